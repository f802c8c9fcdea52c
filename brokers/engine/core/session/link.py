"""A queue as a node with clients sees it: batches on their way to the leader, consumers, settlements.

A link keeps whatever the leader has not yet confirmed as committed and says it again to the next leader, so
that clients notice a change of leader as a pause only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

from brokers.engine.core.amqp.consumer import Consumer
from brokers.engine.core.amqp.port import Delivery, Outcome
from brokers.engine.core.model import entries
from brokers.engine.core.model.delivery import WINDOW_BYTES
from brokers.engine.core.model.intervals import runs
from brokers.engine.core.session import messages as m
from brokers.engine.core.session.stream import OFFSET, Start, parse_offset

BATCH_BYTES = 512 * 1024
BATCH_MESSAGES = 4096
"""A batch is closed when it reaches either."""
WINDOW = 1024
"""Messages on their way to a consumer without a prefetch limit."""


class Sink(Protocol):
    """Who wants to know that publishes are safe: a channel, or a gatherer of several queues' answers."""

    def confirmed(self, first: int, last: int) -> None: ...

    def refused(self, first: int, last: int) -> None: ...


class Confirm:
    """Messages in a row of one batch, with whoever wants to hear of them (None: nobody does)."""

    __slots__ = ("first", "last", "place", "sink")

    def __init__(self, sink: Sink | None, tag: int, place: int) -> None:
        self.sink = sink
        self.first = self.last = tag
        self.place = place
        """Where the first one stands in the batch."""


class Load:
    """Bytes of published messages that a node holds until they are committed, over all its links."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class Membership:
    """A consumer as its link knows it."""

    __slots__ = ("consumer", "drained", "drained_bytes", "holder", "joined", "order", "start", "windowed")

    def __init__(self, consumer: Consumer, *, holder: bool = False) -> None:
        self.consumer = consumer
        self.holder = holder
        self.windowed = consumer.no_ack or not consumer.prefetch
        self.joined: Callable[[bool | None], None] | None = None
        """Takes the answer to the attachment, once."""
        self.order = 0
        """See ``messages.Attached``."""
        offset = None if holder else consumer.arguments.get(OFFSET)
        self.start = None if offset is None else parse_offset(offset)
        """Where a reader begins, or goes on with another leader; None for a consumer that takes."""
        self.drained = 0
        """Messages its socket has taken and the leader doesn't know of yet."""
        self.drained_bytes = 0


class QueueLink:
    """Links the clients of one node to the leader of one queue, wherever that is.

    ``send(node, message)`` delivers in order; ``mark`` asks for a ``flush`` at the end of this turn;
    ``congested(consumer)`` tells whether the consumer's socket is full; ``origin`` is the node's boot.
    """

    def __init__(
        self,
        group: int,
        name: str,
        origin: int,
        load: Load,
        *,
        send: Callable[[int, m.Message], None],
        mark: Callable[[QueueLink], None],
        congested: Callable[[Consumer], bool],
    ) -> None:
        self.group = group
        self.name = name
        self.leader: int | None = None
        self.term = 0
        self.published = 0
        self.on_closed: list[Callable[[], None]] = []
        """Called when the queue was deleted."""
        self._origin = origin
        self._load = load
        self._send = send
        self._mark = mark
        self._congested = congested
        self._dirty = False
        self._ends: list[int] = []
        self._parts: list[bytes] = []
        self._size = 0
        self._flags = 0
        self._confirms: list[Confirm] = []
        self._serial = 0
        self._unpublished: deque[tuple[int, bytes, list[Confirm]]] = deque()
        self._refusals: dict[int, int] = {}
        """By serial: how many messages of a batch were taken, where not all were."""
        self._settling: dict[tuple[int, Outcome], list[int]] = {}
        self._settle_number = 0
        self._unsettled: deque[m.Settle] = deque()
        self._members: dict[int, Membership] = {}
        self._gets: dict[int, tuple[m.Get, Callable[[Delivery | None, int], None]]] = {}
        self._asks: dict[int, tuple[m.Ask, Callable[[int, int], None]]] = {}
        self._next_request = 0

    # -- publishing -----------------------------------------------------------------------------------

    def add(self, sink: Sink | None, tag: int, route: bytes, header: bytes, body: bytes) -> None:
        """Take a message for the next batch; ``sink`` hears of ``tag`` when it is committed."""
        prefix = entries.message_prefix(route, header)
        self._parts += (prefix, route, header, body)
        self._size += len(prefix) + len(route) + len(header) + len(body)
        self._ends.append(self._size)
        confirms = self._confirms
        if sink is not None:
            if confirms and (latest := confirms[-1]).sink is sink and latest.last == tag - 1:
                latest.last = tag
            else:
                confirms.append(Confirm(sink, tag, len(self._ends) - 1))
        elif confirms and confirms[-1].sink is not None:
            confirms.append(Confirm(None, 0, len(self._ends) - 1))
        if self._size >= BATCH_BYTES or len(self._ends) >= BATCH_MESSAGES:
            self._close_batch()
        if not self._dirty:
            self._dirty = True
            self._mark(self)

    def flag(self, flags: int) -> None:
        """Say of the message that is added next what its property flags do not."""
        self._flags |= flags

    def _close_batch(self) -> None:
        self._serial += 1
        parts = self._parts
        flags, self._flags = self._flags, 0
        for octet in {header[12:13] for header in parts[2::4]}:
            flags |= int.from_bytes(octet, "big") << 8
        bodies = sum(map(len, parts[3::4]))
        batch = entries.encode_batch(self._origin, self._serial, self._ends, parts, flags, bodies)
        self.published += len(self._ends)
        self._load.bytes += len(batch)
        self._unpublished.append((self._serial, batch, self._confirms))
        self._ends = []
        self._parts = []
        self._confirms = []
        self._size = 0
        if self.leader is not None:
            self._send(self.leader, m.Publish(self.group, batch))

    # -- consumers ------------------------------------------------------------------------------------

    def attach(self, consumer: Consumer, number: int, joined: Callable[[bool | None], None]) -> None:
        """A consumer joins under this node's ``number``; ``joined(in_use)`` takes the leader's answer, or
        None when the queue was deleted before that came."""
        consumer.queue = self
        consumer.handle = number
        member = Membership(consumer)
        member.joined = joined
        self._members[number] = member
        if self.leader is not None:
            self._send(self.leader, self._attachment(number, member))

    def _attachment(self, number: int, member: Membership) -> m.Attach | m.Follow:
        consumer = member.consumer
        if member.start is not None:
            credit = WINDOW if member.windowed else max(0, consumer.prefetch - consumer.unsettled)
            member.drained = member.drained_bytes = 0
            return m.Follow(self.group, number, credit, member.windowed, *member.start)
        outstanding = [] if consumer.no_ack else runs(sorted(consumer.outstanding()))
        held = sum(end - first for first, end in outstanding)
        credit = WINDOW if member.windowed else max(0, consumer.prefetch - held)
        member.drained = member.drained_bytes = 0
        return m.Attach(
            self.group,
            number,
            0 if member.holder else credit,
            consumer.no_ack,
            consumer.exclusive,
            member.windowed,
            member.joined is None,
            member.holder,
            _priority(consumer),
            member.order,
            outstanding,
        )

    def limit(self, consumer: Consumer) -> None:
        """See ``port.Queue``."""
        number = _number(consumer)
        member = self._members.get(number)
        if member is None or member.holder:
            return
        self.flush()  # what it has settled was settled under the limit there was
        member.windowed = consumer.no_ack or not consumer.prefetch
        member.drained = member.drained_bytes = 0
        prefetch = consumer.prefetch or WINDOW
        if member.start is not None and not member.windowed:
            prefetch = max(0, prefetch - consumer.unsettled)
        self._tell(m.Limit(self.group, number, prefetch, member.windowed))

    def cancel(self, consumer: Consumer) -> None:
        """Nothing more for this consumer; it keeps what it holds."""
        self.flush()
        number = _number(consumer)
        member = self._members.get(number)
        if member is None:
            return
        member.holder = True
        if not consumer.unsettled or member.start is not None:
            del self._members[number]
        self._tell(m.Detach(self.group, number, False))

    def release(self, consumer: Consumer) -> None:
        """The consumer is gone; the queue gets back what it held."""
        self.flush()
        number = _number(consumer)
        asked = self._gets.pop(number, None) is not None
        if self._members.pop(number, None) is not None or asked:
            self._tell(m.Detach(self.group, number, True))

    def settle(self, consumer: Consumer, positions: Sequence[int], outcome: Outcome) -> None:
        """See ``port.Queue``."""
        if OFFSET in consumer.arguments:
            self._read_on(_number(consumer), len(positions))
            return
        key = (_number(consumer), outcome)
        pending = self._settling.get(key)
        if pending is None:
            self._settling[key] = list(positions)
        else:
            pending.extend(positions)
        if not self._dirty:
            self._dirty = True
            self._mark(self)

    def _read_on(self, number: int, settled: int) -> None:
        """A reader has settled messages: that makes room for more, and takes nothing out of the queue."""
        member = self._members.get(number)
        if member is not None and not member.windowed:
            self._tell(m.Credit(self.group, number, settled, 0))

    def get(
        self, consumer: Consumer, number: int, no_ack: bool, done: Callable[[Delivery | None, int], None]
    ) -> None:
        """One message for ``consumer``, a holder; ``done(delivery or None, messages left)``."""
        consumer.queue = self
        consumer.handle = number
        request = m.Get(self.group, number, no_ack)
        self._gets[number] = (request, done)
        if self._dirty:
            self.flush()  # what was published before it may be what it gets
        self._tell(request)

    def ask(self, purge: bool, done: Callable[[int, int], None]) -> None:
        """``done(ready, consumers)``; with ``purge``, ``done(purged, consumers)``."""
        self._next_request += 1
        request = m.Ask(self.group, self._next_request, purge)
        self._asks[self._next_request] = (request, done)
        self.flush()
        self._tell(request)

    def _tell(self, message: m.Message) -> None:
        # With no leader nothing is lost: ``_hello`` says all that is open to the next one.
        if self.leader is not None:
            self._send(self.leader, message)

    # -- turns ----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what this turn has gathered."""
        self._dirty = False
        if self._ends:
            self._close_batch()
        if self._settling:
            self._send_settlements()
        for number, member in self._members.items():
            due = member.drained >= WINDOW // 4 or member.drained_bytes >= WINDOW_BYTES // 4
            if due and not self._congested(member.consumer):
                self._tell(m.Credit(self.group, number, member.drained, member.drained_bytes))
                member.drained = member.drained_bytes = 0

    def _send_settlements(self) -> None:
        settling, self._settling = self._settling, {}
        for (number, outcome), positions in settling.items():
            self._settle_number += 1
            positions.sort()
            message = m.Settle(self.group, self._settle_number, number, outcome, runs(positions))
            if outcome != Outcome.REQUEUE:
                self._unsettled.append(message)
            self._tell(message)
            member = self._members.get(number)
            if member is not None and member.holder and not member.consumer.unsettled:
                del self._members[number]

    # -- the leader's side ----------------------------------------------------------------------------

    def receive(self, node: int, message: m.Message) -> None:
        """A message of a leader (perhaps a former one) on ``node``."""
        self._handlers[type(message)](self, node, message)

    def _hello(self, node: int, message: m.Hello) -> None:
        if message.term < self.term:
            return
        self.flush()
        self.leader = node
        self.term = message.term
        self._send(node, m.Resuming(self.group, message.number))
        for settlement in self._unsettled:
            self._send(node, settlement)
        for number, member in self._members.items():
            self._send(node, self._attachment(number, member))
        for _, batch, _ in self._unpublished:
            self._send(node, m.Publish(self.group, batch))
        for get, _ in self._gets.values():
            self._send(node, get)
        for ask, _ in self._asks.values():
            self._send(node, ask)
        self._send(node, m.Resumed(self.group, message.term))

    def leader_lost(self, node: int) -> None:
        """``node`` can't be reached, or leads no longer: hold everything for the next leader."""
        if self.leader == node:
            self.leader = None

    def _published(self, node: int, message: m.Published) -> None:
        waiting = self._unpublished
        while waiting and waiting[0][0] <= message.serial:
            serial, batch, confirms = waiting.popleft()
            self._load.bytes -= len(batch)
            taken = self._refusals.pop(serial, entries.batch_identity(batch)[2])
            for confirm in confirms:
                sink, first, last = confirm.sink, confirm.first, confirm.last
                if sink is None:
                    continue
                refused = max(first, first + taken - confirm.place)
                if first < refused:
                    sink.confirmed(first, min(last, refused - 1))
                if refused <= last:
                    sink.refused(refused, last)

    def _refused(self, node: int, message: m.Refused) -> None:
        self._refusals[message.serial] = message.taken

    def _settled_to(self, node: int, message: m.SettledTo) -> None:
        waiting = self._unsettled
        while waiting and waiting[0].number <= message.number:
            waiting.popleft()

    def _attached(self, node: int, message: m.Attached) -> None:
        member = self._members.get(message.consumer)
        if member is None or member.joined is None:
            return
        joined, member.joined = member.joined, None
        member.order = message.order
        if message.in_use:
            del self._members[message.consumer]
        joined(message.in_use)

    def _following(self, node: int, message: m.Following) -> None:
        member = self._members.get(message.consumer)
        if member is None:
            return
        member.start = (Start.POSITION, message.position)
        if member.joined is not None:
            joined, member.joined = member.joined, None
            joined(False)

    def _deliver(self, node: int, message: m.Deliver) -> None:
        if node != self.leader:
            return
        member = self._members.get(message.consumer)
        if member is None or member.holder:
            self._return_unwanted(message)
            return
        batch = _deliveries(message.pieces)
        if member.start is not None:
            member.start = (Start.POSITION, batch[-1][0] + 1)
        if member.windowed:
            member.drained += len(batch)
            member.drained_bytes += sum(len(data) for _, _, _, data in message.pieces)
            if not self._dirty:
                self._dirty = True
                self._mark(self)
        member.consumer.deliver(batch)

    def _return_unwanted(self, message: m.Deliver) -> None:
        # It was cancelled or released while these were on their way.
        self._settle_number += 1
        back = [(first, first + len(ends)) for first, _, ends, _ in message.pieces]
        self._tell(m.Settle(self.group, self._settle_number, message.consumer, Outcome.REQUEUE, back))

    def _got(self, node: int, message: m.Got) -> None:
        if node != self.leader or message.consumer not in self._gets:
            return
        _, done = self._gets.pop(message.consumer)
        found = _deliveries(message.pieces)
        done(found[0] if found else None, message.ready)

    def hold(self, consumer: Consumer) -> None:
        """``consumer`` (of a basic.get) now holds a message until it is settled or released."""
        self._members[_number(consumer)] = Membership(consumer, holder=True)

    def _answer(self, node: int, message: m.Answer) -> None:
        if message.request in self._asks:
            _, done = self._asks.pop(message.request)
            done(message.ready, message.consumers)

    def closed(self) -> list[Consumer]:
        """The queue was deleted: its publishes count as done; the consumers that are to be told."""
        self.leader = None
        if self._ends:
            self._close_batch()
        self._published(0, m.Published(self.group, self._serial))
        members = [member for member in self._members.values() if not member.holder]
        self._members.clear()
        for member in members:
            if member.joined is not None:
                member.joined(None)
        gone = [member.consumer for member in members if member.joined is None]
        gets, self._gets = self._gets, {}
        for _, done in gets.values():
            done(None, 0)
        asks, self._asks = self._asks, {}
        for _, answered in asks.values():
            answered(0, 0)
        for told in self.on_closed:
            told()
        return gone

    _handlers: ClassVar[dict[type[Any], Callable[..., None]]] = {
        m.Hello: _hello,
        m.Published: _published,
        m.Refused: _refused,
        m.SettledTo: _settled_to,
        m.Attached: _attached,
        m.Following: _following,
        m.Deliver: _deliver,
        m.Got: _got,
        m.Answer: _answer,
    }


def _priority(consumer: Consumer) -> int:
    """``x-priority``, as far as a peer link carries it."""
    wanted = consumer.arguments.get("x-priority", 0)
    return max(-32768, min(32767, wanted)) if isinstance(wanted, int) else 0


def _number(consumer: Consumer) -> int:
    number = consumer.handle
    assert isinstance(number, int)  # noqa: S101  # set by attach and get
    return number


def _deliveries(pieces: Sequence[m.Piece]) -> list[Delivery]:
    batch: list[Delivery] = []
    for first, redelivered, ends, data in pieces:
        for position, (route, header, body) in enumerate(entries.split(ends, data), first):
            batch.append((position, redelivered, route, header, body))
    return batch
