"""A channel: keeps the order of its methods, waits for the broker, and closes on errors of its own.

A synchronous method whose answer is the broker's makes the channel *busy*: what follows on this channel
waits until the answer came, while other channels go on. What the methods do is in ``handlers``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.assembly import PUBLISH, Assembly
from brokers.engine.core.amqp.confirms import Confirms
from brokers.engine.core.amqp.constants import FRAME_METHOD, NO_ROUTE
from brokers.engine.core.amqp.errors import AmqpError, unexpected_frame
from brokers.engine.core.amqp.frames import content_frames, method_frame
from brokers.engine.core.amqp.handlers import handle
from brokers.engine.core.amqp.port import Outcome
from brokers.engine.core.amqp.prefetch import SharedPrefetch
from brokers.engine.core.amqp.routes import PUBLISH_IDS
from brokers.engine.core.amqp.transaction import HeldPublish, Transaction
from brokers.engine.core.amqp.unacked import Groups, Unacked

if TYPE_CHECKING:
    from brokers.engine.core.amqp.connection import Connection
    from brokers.engine.core.amqp.consumer import Consumer
    from brokers.engine.core.amqp.port import Delivery, Target

_CLOSE = b"\x00\x14\x00\x28"
_CLOSE_OK = b"\x00\x14\x00\x29"
_ROUTES_KEPT = 4096
_FRAME_COST = 100
"""Octets a waiting frame is taken to cost beyond its payload."""


class ChannelState(Enum):
    OPEN = "open"
    CLOSING = "closing"
    """The server has sent ``channel.close`` and waits for the client's ``close-ok``."""
    CLOSED = "closed"


class Channel:
    """One channel of a connection; made by ``channel.open``."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.state = ChannelState.OPEN
        self.ready = True
        """Open, idle, nothing half received: the scanner may hand over whole publishes and acks."""
        self.confirms: Confirms | None = None
        self.tx: Transaction | None = None
        """Set in transaction mode; such a channel is never ``ready``."""
        self.consumers: dict[str, Consumer] = {}
        self.unacked = Unacked()
        self.delivered = 0
        """The last delivery tag given out."""
        self.prefetch = 0
        """The limit of each consumer started from now on (qos global=False), 0 for none."""
        self.shared = SharedPrefetch(self.unacked)
        self.last_queue = ""
        """The queue declared last: what an empty queue name means."""
        self._assembly: Assembly | None = None
        self._busy: object | None = None
        self._notices: list[m.BasicCancel] = []
        """Said after the answer that is waited for: who deletes a queue hears of that before its consumers do."""
        self._backlog: deque[tuple[int, bytes]] = deque()
        self._backlog_size = 0
        self._draining = False

    def __repr__(self) -> str:
        return f"Channel({self.number}, {self.state.value})"

    # Frames in.

    def frame(self, kind: int, payload: bytes) -> None:
        """Take a frame, now or when what it must wait for is answered. Raises ``AmqpError``."""
        if self.state is not ChannelState.OPEN:
            self._frame_while_closing(payload[:4] if kind == FRAME_METHOD else b"")
        elif self._busy is not None:
            self._backlog.append((kind, payload))
            self._waiting(len(payload) + _FRAME_COST)
        else:
            self._frame(kind, payload)

    def _frame_while_closing(self, ident: bytes) -> None:
        if ident == _CLOSE:
            self.send(m.ChannelCloseOk())
        elif ident == _CLOSE_OK:
            self.state = ChannelState.CLOSED
            self.connection.forget(self)

    def _frame(self, kind: int, payload: bytes) -> None:
        if self._assembly is not None:
            self._assembly.add(kind, payload)
            if self._assembly.complete:
                self._publish(self._assembly)
        elif kind != FRAME_METHOD:
            raise unexpected_frame("expected method frame, got non method frame instead")
        elif payload.startswith(PUBLISH):
            self._assembly = Assembly(self.connection, payload)
            self.ready = False
        else:
            handle(self, m.decode_method(payload))

    def _publish(self, message: Assembly) -> None:
        self._drop_assembly()
        self._update_ready()
        target = self._target(message.route, message.header, message.special)
        self.connection.counts.publish += 1
        if self.tx is not None:
            held = HeldPublish(
                message.route, message.header, message.body, message.mandatory, message.special
            )
            self.connection.assembling += len(held.body)
            self.tx.hold(held)
            return
        tag = 0
        if self.confirms is not None:
            tag = self.confirms.published = self.confirms.published + 1
        target.publish(self, tag, message.route, message.header, message.body, message.mandatory)

    def _drop_assembly(self) -> None:
        if self._assembly is not None:
            self._assembly.drop()
            self._assembly = None

    def _target(self, route: bytes, header: bytes, special: bool) -> Target:
        if special:
            return self.resolve_special(route, header)
        target = self.connection.routes.get(route)
        return self.resolve(route) if target is None else target

    def resolve_special(self, route: bytes, header: bytes) -> Target:
        """Where one message leads that asks for more than its route says. Raises ``AmqpError``."""
        try:
            return self.connection.broker.resolve_special(self, route, header)
        except AmqpError as exc:
            raise exc.during(*PUBLISH_IDS) from None

    def resolve(self, route: bytes) -> Target:
        """Where ``route``, a checked one, leads; asked of the broker. Raises ``AmqpError``."""
        routes = self.connection.routes
        if len(routes) >= _ROUTES_KEPT:
            routes.clear()
        try:
            return self.connection.broker.resolve(self, route)
        except AmqpError as exc:
            raise exc.during(*PUBLISH_IDS) from None

    # Waiting for the broker.

    def wait(self) -> Callable[[], bool]:
        """Become busy. The returned function ends that; it says False when the channel closed meanwhile."""
        token = self._busy = object()
        self.ready = False

        def finish() -> bool:
            if self.state is not ChannelState.OPEN:
                return False
            if self._busy is not token:
                raise RuntimeError(f"{self!r}: the broker answered a call twice")
            self._busy = None
            return True

        return finish

    def resume(self) -> None:
        """Take what has waited, until something has to wait again."""
        if self._notices and self._busy is None and self.state is ChannelState.OPEN:
            notices, self._notices = self._notices, []
            for notice in notices:
                self.send(notice)
        if self._draining:
            return
        self._draining = True
        try:
            while self._backlog and self._busy is None and self.state is ChannelState.OPEN:
                kind, payload = self._backlog.popleft()
                self._waiting(-len(payload) - _FRAME_COST)
                self._frame(kind, payload)
        except AmqpError as exc:
            self.connection.failed(exc, self)
        finally:
            self._draining = False
            self._update_ready()

    def _waiting(self, change: int) -> None:
        self._backlog_size += change
        self.connection.add_waiting(change)

    def _update_ready(self) -> None:
        self.ready = (
            self.state is ChannelState.OPEN
            and self._busy is None
            and self._assembly is None
            and self.tx is None
        )

    # Closing.

    def fail(self, exc: AmqpError) -> None:
        """Close this channel with an error and wait for the client's ``close-ok``."""
        if self.state is ChannelState.OPEN:
            self.close()
            self.state = ChannelState.CLOSING
            self.send(m.ChannelClose(exc.code, exc.reply_text(), exc.class_id, exc.method_id))

    def close(self) -> None:
        """Let go of everything; the broker gives back what is unsettled."""
        if self.state is not ChannelState.OPEN:
            return
        self.state = ChannelState.CLOSED
        self.ready = False
        self._busy = None
        self._drop_assembly()
        if self.tx is not None:
            self.connection.assembling -= self.tx.rollback()
            self.tx = None
        self._backlog.clear()
        self._waiting(-self._backlog_size)
        holders = dict.fromkeys(self.consumers.values())
        holders.update(dict.fromkeys(consumer for consumer, _ in self.unacked.values()))
        self.unacked.clear()
        self.shared.held.clear()
        self.consumers.clear()
        self.connection.broker.release(self, list(holders))

    # Frames out.

    def send(self, method: m.Method) -> None:
        self.connection.write(method_frame(self.number, method))

    def send_content(self, method: bytes, header: bytes, body: bytes) -> None:
        """``method`` is the payload of the method frame."""
        connection = self.connection
        connection.out += content_frames(self.number, method, header, body, connection.frame_max)
        connection.written()

    # Called by the broker.

    def confirmed(self, first: int, last: int) -> None:
        """The messages with the publish sequence numbers ``first`` to ``last`` are safe."""
        if self.confirms is not None and self.state is ChannelState.OPEN:
            self.connection.write(self.confirms.confirmed(first, last))
        elif self.tx is not None:
            self.tx.answered(last - first + 1)

    def refused(self, first: int, last: int) -> None:
        """The messages ``first`` to ``last`` were not taken."""
        if self.confirms is not None and self.state is ChannelState.OPEN:
            self.connection.write(self.confirms.refused(first, last))
        elif self.tx is not None:
            self.tx.answered(last - first + 1, refused=True)

    # Transactions.

    def select(self) -> None:
        """Be in transaction mode from now on."""
        if self.tx is None:
            self.tx = Transaction()
            self.ready = False

    def commit(self, tx: Transaction, done: Callable[[bool], None]) -> None:
        """Publish what ``tx`` holds; when all of it is safe, settle; then ``done(whole)``.

        Not whole: a queue refused a message; then nothing is settled, and what others took stays.
        """
        publishes = tx.publishes
        tx.publishes = []
        self.connection.assembling -= tx.size
        tx.size = 0

        def committed(whole: bool) -> None:
            if self.tx is not tx:
                return  # the channel has closed meanwhile
            if whole:
                for groups, outcome in tx.settlements(self.unacked):
                    self.settle(groups, outcome)
            done(whole)

        tx.begin(len(publishes), committed)
        for publish in publishes:
            tx.published += 1
            try:
                target = self._target(publish.route, publish.header, publish.special)
            except AmqpError:
                # The exchange was there when this was published and is gone: the message has no way to go.
                if publish.mandatory:
                    self.returned(NO_ROUTE, "NO_ROUTE", publish.route, publish.header, publish.body)
                tx.answered(1)
                continue
            target.publish(self, tx.published, publish.route, publish.header, publish.body, publish.mandatory)
        tx.sent()

    def returned(self, code: int, text: str, route: bytes, header: bytes, body: bytes) -> None:
        """A mandatory message found no queue: it goes back to its publisher."""
        if self.state is ChannelState.OPEN:
            raw = text.encode()
            method = b"\x00\x3c\x00\x32" + code.to_bytes(2, "big") + bytes((len(raw),)) + raw + route
            self.send_content(method, header, body)

    def cancelled_by_broker(self, consumer: Consumer) -> None:
        """The queue of ``consumer`` is gone: tell the client, if it wants to know."""
        if self.consumers.get(consumer.tag) is not consumer:
            return
        self.remove_consumer(consumer)
        if self.connection.capable("consumer_cancel_notify"):
            notice = m.BasicCancel(consumer.tag, nowait=True)
            if self._busy is None:
                self.send(notice)
            else:
                self._notices.append(notice)

    # Consumers and what they hold.

    def start_consumer(self, consumer: Consumer) -> None:
        """The client knows of the consumer now: deliveries may go out."""
        consumer.live = True
        consumer.gated = self.shared.applies_to(consumer)
        if consumer.early:
            early, consumer.early = consumer.early, []
            consumer.deliver(early)

    def remove_consumer(self, consumer: Consumer) -> None:
        """Forget a consumer; what the channel held back of it returns to the queue."""
        del self.consumers[consumer.tag]
        consumer.live = False
        consumer.gated = True
        back = self.shared.withdraw(consumer)
        if back:
            consumer.give_back(back)

    def share_prefetch(self, limit: int) -> None:
        """From now on all consumers of the channel share ``limit``, 0 for none."""
        self.shared.limit = limit
        self.shared.refill()
        for consumer in self.consumers.values():
            consumer.gated = not consumer.live or self.shared.applies_to(consumer)
            prefetch = self.shared.prefetch_of(consumer)
            if prefetch != consumer.prefetch:
                consumer.prefetch = prefetch
                if not consumer.no_ack:
                    consumer.queue.limit(consumer)

    def deliver_gated(self, consumer: Consumer, batch: Sequence[Delivery]) -> None:
        """Deliver to a consumer that may not be there (any more), or not have room."""
        if self.state is not ChannelState.OPEN:
            return  # the broker has given back all that this consumer held, what is on its way included
        if self.consumers.get(consumer.tag) is not consumer:
            consumer.give_back([delivery[0] for delivery in batch])
        elif not consumer.live:
            consumer.early.extend(batch)
        else:
            self.shared.deliver(consumer, batch)

    def settle(self, groups: Groups, outcome: Outcome) -> None:
        """Tell the queues what the client decided."""
        for consumer, positions in groups:
            self.settle_one(consumer, positions, outcome)

    def settle_one(self, consumer: Consumer, positions: list[int], outcome: Outcome) -> None:
        """Tell the queue of ``consumer``, and let deliveries that were held back follow."""
        count = len(positions)
        consumer.unsettled -= count
        if outcome is Outcome.ACK:
            self.connection.counts.ack += count
        if consumer.holder:
            self.shared.fetched -= count
        consumer.queue.settle(consumer, positions, outcome)
        if self.shared.held:
            self.shared.refill()
