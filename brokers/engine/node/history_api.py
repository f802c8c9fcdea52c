"""The control API's methods that show what a queue retains: a page of it, one message, its time line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from brokers.engine.control import protocol
from brokers.engine.control.protocol import ControlError
from brokers.engine.core.model.queue_state import QueueState
from brokers.engine.core.model.topology import QueueInfo
from brokers.engine.node.history import Filter, Kept, Walk, count_settled, oldest, position_at, stamp_at
from brokers.engine.node.hosts import Host
from brokers.engine.node.messages_api import MAX_SHOWN, describe
from brokers.engine.node.params import Params, number, text

if TYPE_CHECKING:
    from brokers.engine.node.node import Node

MAX_PAGE = 500
"""Messages that one call shows at most."""
SHOWN_IN_LIST = 256
"""Bytes of each body in a page, unless told otherwise."""
MAX_BODY = 32 << 20
"""Bytes of a body that can be asked for."""
BUCKETS = 48
"""Stretches of time that a time line has."""

AskPeer = Callable[[int, str, Params], Awaitable[object]]


class HistoryApi:
    """``history``, ``message`` and ``timeline``; answered by the leader, who knows best who holds what."""

    def __init__(self, node: Node, ask_peer: AskPeer) -> None:
        self._node = node
        self._ask_peer = ask_peer
        self.methods: dict[str, Callable[[Params], Awaitable[object]]] = {
            "history": self._history,
            "message": self._message,
            "timeline": self._timeline,
        }

    async def at_leader(
        self, method: str, params: Params, act: Callable[[QueueInfo, Host], Awaitable[object]]
    ) -> object:
        """``act`` here when the queue is led from here, else what its leader answers to ``method``."""
        vhost, name = text(params, "vhost", "/"), text(params, "name")
        found = self._node.service.metadata.state.vhosts.get(vhost)
        info = found.queues.get(name) if found is not None else None
        if info is None:
            raise ControlError(protocol.NOT_FOUND, f"there is no queue {name!r} in vhost {vhost!r}")
        host = self._node.queues.hosts.get(info.group)
        if host is not None and host.leader is not None:
            return await act(info, host)
        leader = self._node.queues.leaders.get(info.group)
        if leader is None or leader[0] == self._node.me.id or leader[0] not in self._node.peers.links:
            raise ControlError(protocol.NO_QUORUM, f"queue {name!r} has no leader now that could be asked")
        return await self._ask_peer(leader[0], method, params)

    async def _history(self, params: Params) -> object:
        async def act(info: QueueInfo, host: Host) -> object:
            state = host.state
            count = max(1, min(number(params, "count", 50, low=1), MAX_PAGE))
            shown = min(number(params, "max_bytes", SHOWN_IN_LIST, low=0), MAX_SHOWN)
            first = self._first(host, params, count)
            end = min(first + count, state.next_position)
            rows: list[dict[str, Any]] = []
            async for found in Walk(host, first, end, Filter()).entries():
                rows += self._rows(host, found, shown)
            return {"oldest": oldest(state), "end": state.next_position, "first": first, "messages": rows}

        return await self.at_leader("history", params, act)

    @staticmethod
    def _first(host: Host, params: Params, count: int) -> int:
        state = host.state
        if params.get("at") is not None:
            first = position_at(host, number(params, "at", low=0))
        elif params.get("first") is not None:
            first = number(params, "first", low=0)
        else:
            first = state.next_position - count
        return max(oldest(state), min(first, state.next_position))

    async def _message(self, params: Params) -> object:
        async def act(info: QueueInfo, host: Host) -> object:
            state = host.state
            position = number(params, "position", low=0)
            if not oldest(state) <= position < state.next_position:
                raise ControlError(
                    protocol.NOT_FOUND,
                    f"queue {info.name!r} has no message at position {position}; it retains "
                    f"{oldest(state)} to {state.next_position - 1}",
                )
            shown = min(number(params, "max_bytes", MAX_SHOWN, low=0), MAX_BODY)
            async for found in Walk(host, position, position + 1, Filter()).entries():
                return self._rows(host, found, shown)[0]
            raise ControlError(protocol.NOT_FOUND, f"position {position} has just been let go")

        return await self.at_leader("message", params, act)

    async def _timeline(self, params: Params) -> object:
        async def act(info: QueueInfo, host: Host) -> object:
            return {"buckets": await _buckets(host)}

        return await self.at_leader("timeline", params, act)

    def _rows(self, host: Host, messages: list[Kept], shown: int) -> list[dict[str, Any]]:
        holders = self._holders(host)
        rows = []
        for message in messages:
            row = describe(message.route, message.header, message.body, shown)
            row.update(fate(host.state, message.position, holders))
            row.update(position=message.position, at=message.stamp / 1000)
            rows.append(row)
        return rows

    def _holders(self, host: Host) -> dict[int, str]:
        """Unacknowledged position -> the node whose client holds it."""
        if host.leader is None:
            return {}
        return {
            position: self._node.node_name(node)
            for (node, _), slot in host.leader.dispatcher.slots.items()
            for position in slot.unsettled
        }


def fate(state: QueueState, position: int, holders: Mapping[int, str]) -> dict[str, Any]:
    """What the queue knows of a message's course. Who had a settled one, and how it was settled, it forgets."""
    deliveries = state.counts.get(position)
    if position in state.settled:
        return {"state": "settled", "holder": None, "returned": None, "redelivered": None}
    held = "unacked" if position in holders else "ready"
    return {
        "state": "dying" if position in state.dying else held,
        "holder": holders.get(position),
        "returned": deliveries or 0,
        "redelivered": deliveries is not None or position < state.redelivered_below,
    }


async def _buckets(host: Host) -> list[dict[str, Any]]:
    """Equal stretches of time over all that is retained: how much was published in each, how much is settled."""
    state = host.state
    first, end = oldest(state), state.next_position
    if first >= end:
        return []
    began, ended = stamp_at(host, first), stamp_at(host, end - 1) + 1
    step = max(1.0, (ended - began) / BUCKETS)
    found = []
    low = first
    for bucket in range(BUCKETS):
        until = began + step * (bucket + 1)
        high = end if bucket == BUCKETS - 1 else max(low, min(end, position_at(host, int(until))))
        found.append(
            {
                "at": (began + step * bucket) / 1000,
                "until": until / 1000,
                "first": low,
                "end": high,
                "settled": count_settled(host.state, low, high),
            }
        )
        low = high
        await asyncio.sleep(0)
    return found
