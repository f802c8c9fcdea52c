"""Dead-letter queues: which there are, and the causes of what lies in one, counted."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from brokers.engine.control.protocol import ControlError
from brokers.engine.core.model.queue_settings import QueueSettings
from brokers.engine.core.model.routing import needs_headers, route
from brokers.engine.core.model.topology import DEFAULT_EXCHANGE, Kind, QueueInfo
from brokers.engine.core.model.vhost import VHost
from brokers.engine.core.session.leader import QueueLeader
from brokers.engine.node.browse import AskPeer, BrowseApi, Found, Selection, scan
from brokers.engine.node.causes import Cause, cause_of
from brokers.engine.node.params import Params

if TYPE_CHECKING:
    from brokers.engine.node.hosts import Host
    from brokers.engine.node.node import Node

LIMIT = 50_000
"""Messages of one queue that are counted by cause, from the oldest on."""
SURVEYS = 4
"""Queues whose counts are kept."""
GROUPS = 200
"""Groups that an answer names, the largest ones."""
BUCKETS = 48
"""Parts that the time from the oldest to the newest is cut into."""
HEADS = 500
"""Queues whose oldest message is looked at for one answer; what is known of the others is from before."""
SOURCES = 20
"""Queues named as the source of a dead-letter queue."""
_X_DEATH = b"\x07x-deathA"


class SurveyApi:
    """``dead_letter_queues`` and ``dead_letter_groups``."""

    def __init__(self, node: Node, ask_peer: AskPeer, browse: BrowseApi) -> None:
        self._node = node
        self._ask_peer = ask_peer
        self._surveys: OrderedDict[int, Survey] = OrderedDict()
        self._heads: dict[int, tuple[int, bool]] = {}
        self.methods: dict[str, Callable[[Params], Awaitable[object]]] = {
            "dead_letter_queues": self._queues,
            "dead_letter_heads": self._heads_here,
            "dead_letter_groups": browse.at_leader("dead_letter_groups", self._groups),
        }

    async def _queues(self, params: Params) -> object:
        """Queues that others' dead letters go to, and those whose oldest message is a dead letter."""
        node = self._node
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for vhost_name, vhost in node.service.metadata.state.vhosts.items():
            for info in vhost.queues.values():
                settings = node.queues.settings(info.group)
                for target in targets(vhost, settings) if settings is not None else ():
                    row = rows.setdefault((vhost_name, target), _row(vhost_name, target))
                    row["source_count"] += 1
                    if len(row["sources"]) < SOURCES:
                        row["sources"].append(info.name)
        here = await self._heads_here({})
        answers = [here] + [await self._ask_heads(peer) for peer in tuple(node.peers.links)]
        silent = []
        for answer in answers:
            if isinstance(answer, str):
                silent.append(answer)
                continue
            for vhost_name, name in answer:
                rows.setdefault((vhost_name, name), _row(vhost_name, name))["holds_dead"] = True
        return {"queues": [rows[key] for key in sorted(rows)], "silent": silent}

    async def _ask_heads(self, peer: int) -> Any:
        """A peer's answer, or its name where it gives none."""
        try:
            return await self._ask_peer(peer, "dead_letter_heads", {})
        except ControlError:
            return self._node.node_name(peer)

    async def _heads_here(self, params: Params) -> list[list[str]]:
        """The queues led here whose oldest message is a dead letter."""
        found: list[list[str]] = []
        read = 0
        by_group = self._node.service.metadata.state.by_group
        for host in self._node.queues.led():
            info = by_group.get(host.group)
            state = host.state
            first, end = state.settled.next_gap(state.settled.floor, state.next_position)
            if info is None or first >= end:
                self._heads.pop(host.group, None)
                continue
            known = self._heads.get(host.group)
            if (known is None or known[0] != first) and read < HEADS:
                read += 1
                async for message in scan(host, Selection(first, first + 1)):
                    known = self._heads[host.group] = (first, _X_DEATH in message.header)
            if known is not None and known[1]:
                found.append([info.vhost, info.name])
        return found

    async def _groups(
        self, params: Params, info: QueueInfo, host: Host, leader: QueueLeader
    ) -> dict[str, Any]:
        survey = self._surveys.get(info.group)
        if survey is None or survey.leader is not leader:
            survey = self._surveys[info.group] = Survey(host, leader)
        self._surveys.move_to_end(info.group)
        while len(self._surveys) > SURVEYS:
            self._surveys.popitem(last=False)
        await survey.refresh()
        return survey.answer()


class Survey:
    """The causes of one queue's messages. A refresh looks only at what came since the last one."""

    def __init__(self, host: Host, leader: QueueLeader) -> None:
        self.leader = leader
        self._host = host
        self._lock = asyncio.Lock()
        self._next = 0
        self._settled = 0
        self._labels: dict[int, tuple[Cause, int]] = {}
        """By position: why it died and when it came (ms)."""
        self._causes: dict[Cause, Cause] = {}

    async def refresh(self) -> None:
        """Forget what has left the queue, look at what is new."""
        async with self._lock:
            state = self._host.state
            if self._settled != state.settled_total:
                self._settled = state.settled_total
                await self._forget()
            if len(self._labels) >= LIMIT:
                return
            async for message in scan(self._host, Selection(self._next)):
                self._label(message)
                if len(self._labels) >= LIMIT:
                    break

    async def _forget(self) -> None:
        settled = self._host.state.settled
        for number, position in enumerate(tuple(self._labels)):
            if position in settled:
                del self._labels[position]
            if number % 1000 == 999:
                await asyncio.sleep(0)

    def _label(self, message: Found) -> None:
        cause = cause_of(message.route, message.header, message.body)
        cause = self._causes.setdefault(cause, cause)
        self._labels[message.position] = (cause, message.stamp)
        self._next = message.position + 1

    def answer(self) -> dict[str, Any]:
        """The groups, the largest first, and how the messages came over time."""
        counts: Counter[Cause] = Counter()
        first: dict[Cause, tuple[int, int]] = {}
        newest: dict[Cause, int] = {}
        for position, (cause, stamp) in self._labels.items():
            counts[cause] += 1
            if cause not in first or stamp < first[cause][1]:
                first[cause] = (position, stamp)
            newest[cause] = max(newest.get(cause, 0), stamp)
        self._causes = {cause: cause for cause in counts}
        rows = [
            {
                "id": cause.identity,
                **cause._asdict(),
                "count": count,
                "position": first[cause][0],
                "oldest": first[cause][1] / 1000,
                "newest": newest[cause] / 1000,
            }
            for cause, count in counts.most_common(GROUPS)
        ]
        state = self._host.state
        return {
            "groups": rows,
            "group_count": len(counts),
            "counted": len(self._labels),
            "messages": state.messages,
            "end": state.next_position,
            "over_time": list(self._over_time()),
        }

    def _over_time(self) -> Iterator[dict[str, float | int]]:
        stamps = [stamp for _, stamp in self._labels.values()]
        if not stamps:
            return
        oldest, newest = min(stamps), max(stamps)
        width = max(1000.0, (newest - oldest + 1) / BUCKETS)
        counts = Counter(int((stamp - oldest) / width) for stamp in stamps)
        for bucket in range(max(counts) + 1):
            yield {"at": (oldest + bucket * width) / 1000, "seconds": width / 1000, "count": counts[bucket]}


def targets(vhost: VHost, settings: QueueSettings) -> list[str]:
    """The queues that the dead letters of a queue may reach."""
    exchange, key = settings.dead_letter_exchange, settings.dead_letter_key
    if exchange is None:
        return []
    if exchange == DEFAULT_EXCHANGE:
        return [key] if key is not None and key in vhost.queues else []
    if exchange not in vhost.exchanges:
        return []
    if key is not None and not needs_headers(vhost, exchange):
        found = [queue.name for queue in route(vhost, exchange, key, dict)]
        return [name for name in found if name in vhost.queues]
    return _reachable(vhost, exchange)


def _reachable(vhost: VHost, exchange: str) -> list[str]:
    """All queues that something published to ``exchange`` may come to."""
    queues: dict[str, None] = {}
    seen = {exchange}
    pending = [exchange]
    while pending:
        for binding in vhost.bindings_from(pending.pop()):
            if binding.kind is Kind.QUEUE:
                if binding.destination in vhost.queues:
                    queues[binding.destination] = None
            elif binding.destination not in seen:
                seen.add(binding.destination)
                pending.append(binding.destination)
    return list(queues)


def _row(vhost: str, name: str) -> dict[str, Any]:
    return {"vhost": vhost, "name": name, "sources": [], "source_count": 0, "holds_dead": False}
