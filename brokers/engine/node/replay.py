"""Replay: retained messages of a queue are published again, settled ones included.

A job reads the log of the replica on its own node and publishes through this node's links, as a client with
confirms does, so that it outlives changes of leader, its queue's and its target's. It dies with its node: then
it is begun again from its *cursor*, below which all is confirmed. What was confirmed after the cursor was last
read is published twice; both copies carry the same ``replay`` and ``position`` in ``x-replayed-from``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from brokers.engine.core.amqp.properties import decode_properties
from brokers.engine.core.amqp.table import Timestamp, encode_field
from brokers.engine.core.model.death import annotate, join_route, split_route
from brokers.engine.core.model.deduplication import HEADER as DEDUPLICATION
from brokers.engine.core.model.hashing import MessageHeaders
from brokers.engine.core.model.routing import route as find_queues
from brokers.engine.core.model.topology import DEFAULT_EXCHANGE, QueueInfo
from brokers.engine.core.model.vhost import VHost
from brokers.engine.core.session.link import Sink
from brokers.engine.node.history import Filter, Kept, Walk
from brokers.engine.node.hosts import Host
from brokers.engine.node.targets import Gather

REPLAYED_FROM = "x-replayed-from"
WINDOW = 1000
WINDOW_BYTES = 8 << 20
"""Messages and bytes that may be on their way unconfirmed."""
FOLLOWED = 60.0
"""A job that nobody has asked about for so many seconds stops: whoever began it is gone, or has paused it."""
PAUSE = 0.25
"""Seconds between two looks at whether publishers may go on."""

JobState = Literal["running", "done", "failed", "cancelled"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Destination:
    """Where replayed messages go: ``queue``, or ``exchange`` with ``routing_key`` (None: each message's own)."""

    vhost: str
    queue: str | None
    exchange: str | None = None
    routing_key: str | None = None

    def find(self, vhost: VHost, message: Kept) -> tuple[bytes, tuple[QueueInfo, ...]]:
        """The route that the message gets and the queues that it reaches. Raises ``LookupError``."""
        if self.queue is not None:
            found = vhost.queues.get(self.queue)
            if found is None:
                raise LookupError(f"there is no queue {self.queue!r} in vhost {self.vhost!r} any more")
            return message.route, (found,)
        exchange = self.exchange or DEFAULT_EXCHANGE
        if exchange != DEFAULT_EXCHANGE and exchange not in vhost.exchanges:
            raise LookupError(f"there is no exchange {exchange!r} in vhost {self.vhost!r} any more")
        key = split_route(message.route)[1] if self.routing_key is None else self.routing_key

        def headers() -> Mapping[str, object]:
            properties = decode_properties(message.header)
            return MessageHeaders(properties, properties.headers or {})

        return join_route(exchange, key), find_queues(vhost, exchange, key, headers)


class Broker(Protocol):
    """What a job needs of its node."""

    def vhost(self, name: str) -> VHost | None:
        """The vhost as it is now."""
        ...

    def publish(
        self, queues: tuple[QueueInfo, ...], sink: Sink, tag: int, route: bytes, header: bytes, body: bytes
    ) -> None:
        """Add a message to the links of ``queues``; each of them answers ``sink``."""
        ...

    def blocked(self) -> str:
        """Why publishers have to wait now, empty when they need not."""
        ...

    def keeps(self, host: Host) -> bool:
        """Whether the host is still this node's replica of its queue."""
        ...


class ReplayJob:
    """One replay under way. A ``Sink`` for its own messages."""

    def __init__(
        self,
        number: str,
        source: QueueInfo,
        host: Host,
        walk: tuple[int, int, Filter],
        destination: Destination,
        rate: float,
        broker: Broker,
        now: Callable[[], float],
    ) -> None:
        """``walk``: from where, up to where, and what. ``rate``: messages a second, 0 for as fast as it goes."""
        first, end, wanted = walk
        self.id = number
        self.state: JobState = "running"
        self.error = ""
        self.waiting = ""
        """Why nothing moves at the moment."""
        self.published = 0
        """Confirmed by all queues that the message reached."""
        self.unroutable = 0
        self.ended = 0.0
        self._source = source
        self._host = host
        self._walk = Walk(host, first, end, wanted)
        self._first = first
        self._reading = first
        """All before it has been published or left out; some may be unconfirmed."""
        self._destination = destination
        self._rate = rate
        self._broker = broker
        self._now = now
        self._gather = Gather(self)
        self._tag = 0
        self._under_way: dict[int, tuple[int, int]] = {}
        """Position and bytes by tag, in the order of both."""
        self._bytes = 0
        self._room = asyncio.Event()
        self._refused_from: int | None = None
        self._cancelled = False
        self._heard = now()
        self._task = asyncio.create_task(self._run())

    @property
    def cursor(self) -> int:
        """Everything before it is done with: confirmed, left out by the filter, without a route, or gone."""
        if self._refused_from is not None:
            return self._refused_from
        first = next(iter(self._under_way.values()), None)
        return self._reading if first is None else first[0]

    def report(self) -> dict[str, Any]:
        """How it goes, as the control API says it."""
        self._heard = self._now()
        return {
            "id": self.id,
            "state": self.state,
            "first": self._first,
            "cursor": self.cursor,
            "end": self._walk.end,
            "published": self.published,
            "unroutable": self.unroutable,
            "gone": self._walk.gone,
            "waiting": self.waiting,
            "error": self.error,
        }

    async def cancel(self, within: float) -> None:
        """Publish no more; wait up to ``within`` seconds for what is on its way."""
        self._cancelled = True
        self._room.set()
        await asyncio.wait([self._task], timeout=within)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
            self._end("cancelled")

    # -- a publisher's confirms -----------------------------------------------------------------------

    def confirmed(self, first: int, last: int) -> None:
        """These messages are safe."""
        self.published += last - first + 1
        self._close(first, last)

    def refused(self, first: int, last: int) -> None:
        """A queue had no room for these messages."""
        position = self._under_way[first][0]
        self._refused_from = position if self._refused_from is None else min(position, self._refused_from)
        self._close(first, last)

    def _close(self, first: int, last: int) -> None:
        for tag in range(first, last + 1):
            self._bytes -= self._under_way.pop(tag)[1]
        self._room.set()

    # -- the work -------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._publish_all()
            while self._under_way:
                await self._changed()
        except LookupError as error:
            self._fail(str(error.args[0]))
        except Exception:
            # Whatever it is must reach the operator who watches, and this node's log.
            _log.exception("replay %s of queue %r failed", self.id, self._source.name)
            self._fail("an error in the node that ran it; see its log")
        else:
            if self._refused_from is not None:
                self._fail(
                    f"a queue is full and refused messages from position {self._refused_from} on; "
                    f"make room and resume"
                )
            else:
                self._end("cancelled" if self._stopped_early else "done")

    @property
    def _stopped_early(self) -> bool:
        return self._cancelled and self._reading < self._walk.end

    async def _publish_all(self) -> None:
        began = self._now()
        sent = 0
        async for found in self._walk.entries():
            for message in found:
                self._reading = message.position
                await self._wait_for_turn(began, sent)
                if self._halted:
                    return
                self._publish(message)
                sent += 1
                self._reading = message.position + 1
            if self._halted:
                return
            self._reading = self._walk.position
            if not self._broker.keeps(self._host):
                raise LookupError("the queue was deleted, or its replica left this node; resume if it exists")
        self._reading = self._walk.end

    @property
    def _halted(self) -> bool:
        if self._now() - self._heard > FOLLOWED:
            self._cancelled = True
        return self._cancelled or self._refused_from is not None

    async def _wait_for_turn(self, began: float, sent: int) -> None:
        due = began + sent / self._rate if self._rate else began
        while not self._halted:
            self.waiting = self._broker.blocked()
            if self.waiting:
                await asyncio.sleep(PAUSE)
            elif (ahead := due - self._now()) > 0:
                await asyncio.sleep(min(ahead, PAUSE))
            elif len(self._under_way) >= WINDOW or self._bytes >= WINDOW_BYTES:
                await self._changed()
            else:
                return

    async def _changed(self) -> None:
        self._room.clear()
        await self._room.wait()

    def _publish(self, message: Kept) -> None:
        vhost = self._broker.vhost(self._destination.vhost)
        if vhost is None:
            raise LookupError(f"there is no vhost {self._destination.vhost!r} any more")
        route, queues = self._destination.find(vhost, message)
        if not queues:
            self.unroutable += 1
            return
        origin = {
            "vhost": self._source.vhost,
            "queue": self._source.name,
            "position": message.position,
            "time": Timestamp(message.stamp // 1000),
            "replay": self.id,
        }
        # A queue that drops repeated messages would drop this one: that it comes again is what was asked for.
        header = annotate(
            message.header,
            {REPLAYED_FROM: encode_field(REPLAYED_FROM, origin)},
            frozenset({DEDUPLICATION}),
        )
        self._tag += 1
        size = len(header) + len(message.body)
        self._under_way[self._tag] = (message.position, size)
        self._bytes += size
        self._gather.expect(self._tag, len(queues))
        self._broker.publish(queues, self._gather, self._tag, route, header, message.body)

    def _fail(self, why: str) -> None:
        self.error = why
        self._end("failed")

    def _end(self, state: JobState) -> None:
        self.state, self.waiting, self.ended = state, "", self._now()
