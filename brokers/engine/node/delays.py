"""Delayed exchanges: the leader of what waits there lets messages go when they are due.

What waits lies in a replicated queue (``topology.DELAY_QUEUE``). When a message is due is its leader's stamp
plus ``x-delay``, so every leader comes to the same time. A due message is published through this node's links
to where the exchange's bindings lead, and settled when all queues there have committed it: a fail-over in
between repeats it, none is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from heapq import heappop, heappush, nsmallest

from brokers.engine.core.amqp.properties import decode_properties
from brokers.engine.core.amqp.rewriting import rewrite
from brokers.engine.core.model.delayed import DELAY_HEADER, delay
from brokers.engine.core.model.entries import split
from brokers.engine.core.model.hashing import MessageHeaders
from brokers.engine.core.model.intervals import runs
from brokers.engine.core.model.metadata import Metadata
from brokers.engine.core.model.routing import route as find_queues
from brokers.engine.core.model.sender_routes import BCC, sender_routes
from brokers.engine.core.model.topology import QueueInfo
from brokers.engine.core.session.leader import QueueLeader
from brokers.engine.node.hosts import Host, wall_clock_ms
from brokers.engine.node.queues import Queues
from brokers.engine.node.targets import Gather, names

MAX_KNOWN = 200_000
"""Due times kept per exchange; when more messages wait, the later ones are looked up again in the log."""
MAX_ON_THE_WAY = 2_000
"""Messages published and not yet committed by their queues, per exchange."""
SLICE = 0.005
"""Seconds of the loop that one look at the log may take."""
PAUSE = 0.005
"""Seconds until the next look when there is more."""
RETRY = 1_000
"""Milliseconds after which a message that a queue refused is tried again."""

_log = logging.getLogger(__name__)


class Schedule:
    """Positions by when they are due: as many of the earliest as there is room for.

    What had to be dropped for want of room is found again by looking through the log, once all that was kept
    has gone.
    """

    def __init__(self, limit: int = MAX_KNOWN) -> None:
        self._limit = limit
        self._heap: list[tuple[int, int]] = []
        self._horizon: tuple[int, int] | None = None
        """The earliest (due, position) that was dropped; nothing from there on is kept."""

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due: int, position: int) -> None:
        """Note that ``position`` is due at ``due``."""
        item = (due, position)
        if self._horizon is not None and item >= self._horizon:
            return
        heappush(self._heap, item)
        if len(self._heap) > self._limit:
            # In ascending order, so that the list is a heap again.
            self._heap = nsmallest(max(1, self._limit // 2) + 1, self._heap)
            self._horizon = self._heap.pop()

    def take(self, now: int) -> int | None:
        """The next position that is due, or None."""
        if self._heap and self._heap[0][0] <= now:
            return heappop(self._heap)[1]
        return None

    def exhausted(self, now: int) -> bool:
        """Whether the log has to be looked through again: what was dropped may be due."""
        return self._horizon is not None and not self._heap and now >= self._horizon[0]


class Releaser:
    """Lets the messages of one delayed exchange go, while this node leads what waits there."""

    def __init__(self, host: Host, info: QueueInfo, metadata: Metadata, queues: Queues) -> None:
        self.leader = host.leader
        self._host = host
        self._info = info
        self._metadata = metadata
        self._queues = queues
        self._schedule = Schedule()
        self._cursor = host.state.settled.floor
        self._pending: dict[int, int] = {}
        """Positions by tag: published, and not committed by all their queues yet."""
        self._on_the_way: set[int] = set()
        self._tag = 0
        self._gather = Gather(self)

    def turn(self, clock: Callable[[], float]) -> bool:
        """Look at new messages and release due ones; True when there is more to do at once."""
        until = clock() + SLICE
        now = wall_clock_ms()
        if self._schedule.exhausted(now):
            self._schedule = Schedule()
            self._cursor = self._host.state.settled.floor
        while self._cursor < self._host.state.next_position:
            if clock() > until:
                return True
            self._scan()
        while len(self._pending) < MAX_ON_THE_WAY:
            position = self._schedule.take(now)
            if position is None:
                return False
            if position not in self._host.state.settled:
                self._release(position)
            if clock() > until:
                return True
        return False

    def _scan(self) -> None:
        """Note when the messages of the next entry are due."""
        state = self._host.state
        first, end = state.settled.next_gap(self._cursor, state.next_position)
        if first >= end:
            self._cursor = state.next_position
            return
        entry, base, count = state.index.find(first)
        end = min(end, base + count)
        messages = self._host.read(entry)
        ends, data = messages.slice(first - base, end - base)
        for position, (_, header, _) in enumerate(split(ends, data), first):
            if position not in self._on_the_way:
                self._schedule.add(messages.stamp + delay(_delay_header(header)), position)
        self._cursor = end

    def _release(self, position: int) -> None:
        entry, base, _ = self._host.state.index.find(position)
        ends, data = self._host.read(entry).slice(position - base, position - base + 1)
        ((route, header, body),) = split(ends, data)
        properties = decode_properties(header)
        headers = dict(properties.headers or {})
        also = sender_routes(headers)
        headers[DELAY_HEADER] = -delay(headers.get(DELAY_HEADER))
        header = rewrite(header, drop=(BCC,), put={DELAY_HEADER: headers[DELAY_HEADER]})
        _, key = names(route)
        vhost = self._metadata.state.vhosts.get(self._info.vhost)
        found: tuple[QueueInfo, ...] = ()
        if vhost is not None and self._info.name in vhost.exchanges:

            def present() -> Mapping[str, object]:
                return MessageHeaders(properties, headers)

            found = find_queues(vhost, self._info.name, key, present, also)
        self._tag += 1
        self._pending[self._tag] = position
        self._on_the_way.add(position)
        if not found:
            self.confirmed(self._tag, self._tag)
            return
        self._gather.expect(self._tag, len(found))
        for queue in found:
            self._queues.link(queue).add(self._gather, self._tag, route, header, body)

    def confirmed(self, first: int, last: int) -> None:
        """All queues have the messages of these tags: they leave the exchange."""
        done = sorted(self._answered(first, last))
        if done and self._host.leader is self.leader and self.leader is not None:
            self.leader.passed_on(runs(done))
            self._queues.mark(self._host)

    def refused(self, first: int, last: int) -> None:
        """A queue is full and refused the messages of these tags: they are tried again."""
        for position in self._answered(first, last):
            self._schedule.add(wall_clock_ms() + RETRY, position)

    def _answered(self, first: int, last: int) -> list[int]:
        tags = [tag for tag in range(first, last + 1) if tag in self._pending]
        done = [self._pending.pop(tag) for tag in tags]
        self._on_the_way.difference_update(done)
        return done


class Delays:
    """All delayed exchanges of the cluster; those that are led from here have a releaser."""

    def __init__(self, metadata: Metadata, queues: Queues, loop: asyncio.AbstractEventLoop) -> None:
        self._metadata = metadata
        self._queues = queues
        self._loop = loop
        self._groups: dict[int, Releaser | None] = {}
        self._again: asyncio.TimerHandle | None = None

    def add(self, group: int) -> None:
        """There is a delay queue."""
        self._groups.setdefault(group, None)

    def remove(self, group: int) -> None:
        """The delay queue was deleted."""
        self._groups.pop(group, None)

    def tick(self) -> None:
        """Release what is due, where this node leads. Called every few milliseconds."""
        more = False
        for group, releaser in self._groups.items():
            leader = self._leader(group)
            if leader is None:
                self._groups[group] = None
                continue
            if releaser is None or releaser.leader is not leader:
                info = self._metadata.state.by_group.get(group)
                if info is None:
                    continue
                releaser = Releaser(self._queues.hosts[group], info, self._metadata, self._queues)
                self._groups[group] = releaser
            more = releaser.turn(self._loop.time) or more
        if more and self._again is None:
            self._again = self._loop.call_later(PAUSE, self._continue)

    def _continue(self) -> None:
        self._again = None
        self.tick()

    def _leader(self, group: int) -> QueueLeader | None:
        host = self._queues.hosts.get(group)
        return host.leader if host is not None else None


def _delay_header(header: bytes) -> object:
    headers = decode_properties(header).headers
    return None if headers is None else headers.get(DELAY_HEADER)
