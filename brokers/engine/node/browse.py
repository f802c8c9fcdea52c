"""Looking through a queue's messages, from any position on, in turns that leave the loop to others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from brokers.engine.control import protocol
from brokers.engine.control.protocol import ControlError
from brokers.engine.core.model.entries import split
from brokers.engine.core.model.topology import QueueInfo
from brokers.engine.core.session.leader import QueueLeader
from brokers.engine.node.causes import Cause, cause_of
from brokers.engine.node.messages_api import MAX_ANSWER, MAX_SHOWN, describe
from brokers.engine.node.params import Params, names, number, text

if TYPE_CHECKING:
    from brokers.engine.node.hosts import Host
    from brokers.engine.node.node import Node

TURN = 64
"""Messages that are looked at before others have the loop."""
MAX_PAGE = 500
"""Messages of one answer."""
MAX_SCAN = 20_000
"""Messages looked at for one answer; the next one goes on from there."""

AskPeer = Callable[[int, str, Params], Awaitable[object]]


class Found(NamedTuple):
    """One message that lies in a queue. ``stamp``: when it came, in milliseconds."""

    position: int
    stamp: int
    route: bytes
    header: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages of a queue are meant: those at ``positions``, or those of ``groups`` (see ``causes``),
    or all; from ``first`` on and before ``until``.
    """

    first: int = 0
    until: int = 1 << 62
    positions: frozenset[int] | None = None
    groups: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def parse(cls, params: Params) -> Selection:
        """Of ``from``, ``until``, ``positions``, ``groups``. Raises ControlError ``bad-params``."""
        positions = params.get("positions")
        if positions is not None and not (
            isinstance(positions, list) and all(type(one) is int and one >= 0 for one in positions)
        ):
            raise ControlError(
                protocol.BAD_PARAMS, f"'positions' must be a list of positions, not {positions!r:.200}"
            )
        return cls(
            number(params, "from", 0, low=0),
            number(params, "until", (1 << 53) - 1, low=0),
            None if positions is None else frozenset(positions),
            frozenset(names(params, "groups", ())),
        )

    def has(self, message: Found) -> bool:
        """Whether the message, whose position is meant, is of one of the groups."""
        return not self.groups or cause_of(*message[2:]).identity in self.groups


async def scan(host: Host, selection: Selection) -> AsyncIterator[Found]:
    """The messages at the positions of a selection, those in consumers' hands too, whatever their group."""
    looked_at = 0
    for first, end in _runs(host, selection):
        position = first
        while position < end:
            state = host.state
            low, high = state.settled.next_gap(position, min(end, state.next_position))
            if low >= high:
                break
            entry, base, count = state.index.find(low)
            high = min(high, base + count, low + TURN)
            messages = host.read(entry)
            ends, data = messages.slice(low - base, high - base)
            for at, (route, header, body) in enumerate(split(ends, data), low):
                yield Found(at, messages.stamp, route, header, body)
            looked_at += high - low
            position = high
            if looked_at >= TURN:
                looked_at = 0
                await asyncio.sleep(0)


def _runs(host: Host, selection: Selection) -> Iterable[tuple[int, int]]:
    first = max(selection.first, host.state.settled.floor)
    if selection.positions is None:
        return [(first, selection.until)]
    return [(p, p + 1) for p in sorted(selection.positions) if first <= p < selection.until]


def queue_of(node: Node, params: Params) -> QueueInfo:
    """The queue that ``vhost`` and ``name`` name. Raises ControlError ``not-found``."""
    vhost, name = text(params, "vhost", "/"), text(params, "name")
    known = node.service.metadata.state.vhosts.get(vhost)
    info = known.queues.get(name) if known is not None else None
    if info is None:
        raise ControlError(protocol.NOT_FOUND, f"there is no queue {name!r} in vhost {vhost!r}")
    return info


class BrowseApi:
    """``browse``, and the way of a call to the node that leads its queue."""

    def __init__(self, node: Node, ask_peer: AskPeer) -> None:
        self._node = node
        self._ask_peer = ask_peer
        self.methods: dict[str, Callable[[Params], Awaitable[object]]] = {
            "browse": self.at_leader("browse", self._browse)
        }

    def at_leader(
        self, method: str, answer: Callable[[Params, QueueInfo, Host, QueueLeader], Awaitable[object]]
    ) -> Callable[[Params], Awaitable[object]]:
        """A method that the node answers which leads the queue in question."""

        async def call(params: Params) -> object:
            node = self._node
            info = queue_of(node, params)
            host = node.queues.hosts.get(info.group)
            if host is not None and host.leader is not None:
                return await answer(params, info, host, host.leader)
            leader = node.queues.leaders.get(info.group)
            if leader is None or leader[0] == node.me.id or leader[0] not in node.peers.links:
                raise ControlError(
                    protocol.NO_QUORUM, f"queue {info.name!r} has no leader now that could be asked"
                )
            return await self._ask_peer(leader[0], method, params)

        return call

    async def _browse(
        self, params: Params, info: QueueInfo, host: Host, leader: QueueLeader
    ) -> dict[str, Any]:
        selection = Selection.parse(params)
        count = min(number(params, "count", 50, low=1), MAX_PAGE)
        shown = number(params, "max_bytes", MAX_SHOWN, low=0)
        held = set().union(*(slot.unsettled for slot in leader.dispatcher.slots.values()))
        rows: list[dict[str, Any]] = []
        size = scanned = 0
        onward: int | None = None
        async for message in scan(host, selection):
            scanned += 1
            if len(rows) >= count or size >= MAX_ANSWER // 4 or scanned > MAX_SCAN:
                onward = message.position
                break
            cause = cause_of(*message[2:])
            if selection.groups and cause.identity not in selection.groups:
                continue
            row = describe(message.route, message.header, message.body, shown)
            row.update(
                position=message.position,
                at=message.stamp / 1000,
                state="unacked" if message.position in held else "ready",
                group=cause.identity,
                cause=_cause_row(cause),
            )
            size += len(row["payload"])
            rows.append(row)
        return {"messages": rows, "next": onward, "end": host.state.next_position}


def _cause_row(cause: Cause) -> dict[str, str]:
    return cause._asdict()
