"""A channel: puts content together, keeps the order of its methods, and closes on errors of its own.

A synchronous method whose answer is the broker's makes the channel *busy*: what follows on this channel
waits in ``backlog`` until the answer came, while other channels go on. What the methods mean is in
``handlers``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.confirms import Confirms
from brokers.engine.core.amqp.constants import FRAME_BODY, FRAME_HEADER, FRAME_METHOD
from brokers.engine.core.amqp.errors import (
    AmqpError,
    not_implemented,
    precondition_failed,
    resource_error,
    syntax_error,
    unexpected_frame,
)
from brokers.engine.core.amqp.frames import content_frames, method_frame
from brokers.engine.core.amqp.handlers import handle
from brokers.engine.core.amqp.port import Outcome
from brokers.engine.core.amqp.properties import HEADER, USER_ID, check_header, decode_properties
from brokers.engine.core.amqp.routes import PUBLISH_IDS, check_route
from brokers.engine.core.amqp.unacked import Groups, Unacked

if TYPE_CHECKING:
    from brokers.engine.core.amqp.connection import Connection
    from brokers.engine.core.amqp.consumer import Consumer
    from brokers.engine.core.amqp.port import Delivery, Target

PUBLISH = b"\x00\x3c\x00\x28"
_ROUTES_KEPT = 4096
_FRAME_COST = 100
"""Octets a waiting frame is taken to cost beyond its payload."""


class ChannelState(Enum):
    OPEN = "open"
    CLOSING = "closing"
    """The server has sent ``channel.close`` and waits for the client's ``close-ok``."""
    CLOSED = "closed"


class _Content:
    """A ``basic.publish`` whose header or body is still to come."""

    __slots__ = ("body", "header", "mandatory", "missing", "route")

    def __init__(self, route: bytes, mandatory: bool) -> None:
        self.route = route
        self.mandatory = mandatory
        self.header: bytes | None = None
        self.missing = 0
        self.body = bytearray()


class Channel:
    """One channel of a connection; made by ``channel.open``."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.state = ChannelState.OPEN
        self.ready = True
        """Open, idle, nothing half received: the scanner may hand over whole publishes and acks."""
        self.confirms: Confirms | None = None
        self.consumers: dict[str, Consumer] = {}
        self.unacked = Unacked()
        self.delivered = 0
        """The last delivery tag given out."""
        self.held: deque[tuple[Consumer, Delivery]] = deque()
        """Deliveries over the channel-wide prefetch limit, waiting for acks to make room."""
        self.fetched = 0
        """Unsettled messages that came by ``basic.get``; the channel-wide limit leaves them out."""
        self.prefetch = 0
        """The limit each consumer started from now on gets (qos global=False), 0 for none."""
        self.channel_prefetch = 0
        """The limit all consumers of the channel share (qos global=True), 0 for none."""
        self.last_queue = ""
        self._content: _Content | None = None
        self._busy: object | None = None
        self._backlog: deque[tuple[int, bytes]] = deque()
        self._backlog_size = 0
        self._draining = False

    def __repr__(self) -> str:
        return f"Channel({self.number}, {self.state.value})"

    # Frames in.

    def frame(self, kind: int, payload: bytes) -> None:
        """Take a frame, now or when what it must wait for is answered. Raises ``AmqpError``."""
        if self.state is not ChannelState.OPEN:
            self._frame_while_closing(kind, payload)
        elif self._busy is not None or self._backlog:
            self._backlog.append((kind, payload))
            self._waiting(len(payload) + _FRAME_COST)
        else:
            self._frame(kind, payload)

    def _frame_while_closing(self, kind: int, payload: bytes) -> None:
        ident = payload[:4] if kind == FRAME_METHOD else b""
        if ident == b"\x00\x14\x00\x28":
            self.send(m.ChannelCloseOk())
        elif ident == b"\x00\x14\x00\x29":
            self.state = ChannelState.CLOSED
            self.connection.forget(self)

    def _waiting(self, change: int) -> None:
        self._backlog_size += change
        self.connection.add_waiting(change)

    def _frame(self, kind: int, payload: bytes) -> None:
        content = self._content
        if content is not None:
            self._content_frame(content, kind, payload)
        elif kind != FRAME_METHOD:
            raise unexpected_frame("expected method frame, got non method frame instead")
        elif payload.startswith(PUBLISH):
            self._begin_publish(payload)
        else:
            handle(self, m.decode_method(payload))

    def _begin_publish(self, payload: bytes) -> None:
        route, bits = payload[6:-1], payload[-1]
        check_route(route)
        if bits & 2:
            raise not_implemented("immediate=true").during(*PUBLISH_IDS)
        self._content = _Content(route, bool(bits & 1))
        self.ready = False

    def _content_frame(self, content: _Content, kind: int, payload: bytes) -> None:
        if content.header is None:
            self._content_header(content, kind, payload)
        elif kind != FRAME_BODY:
            raise unexpected_frame("expected content body, got non content body frame instead").during(
                *PUBLISH_IDS
            )
        elif len(payload) > content.missing:
            raise syntax_error(
                f"content body is {len(payload) - content.missing} octets longer than its header says"
            ).during(*PUBLISH_IDS)
        else:
            content.missing -= len(payload)
            content.body += payload
            self._assembling(len(payload))
        if content.header is not None and not content.missing:
            self._end_publish(content, content.header)

    def _content_header(self, content: _Content, kind: int, payload: bytes) -> None:
        if kind != FRAME_HEADER:
            raise unexpected_frame(
                "expected content header for class 60, got non content header frame instead"
            ).during(*PUBLISH_IDS)
        class_id = int.from_bytes(payload[:2], "big")
        if len(payload) >= 2 and class_id != 60:
            raise unexpected_frame(
                f"expected content header for class 60, got one for class {class_id} instead"
            ).during(*PUBLISH_IDS)
        self.check_header(payload)
        size = HEADER.unpack_from(payload)[2]
        limit = self.connection.settings.max_message_size
        if size > limit:
            raise precondition_failed(
                f"message size {size} is larger than configured max size {limit}"
            ).during(*PUBLISH_IDS)
        content.header = payload
        content.missing = size

    def check_header(self, header: bytes) -> None:
        """Make sure that consumers can read ``header`` and that it claims no other user. Raises 502, 406."""
        try:
            check_header(header)
            if HEADER.unpack_from(header)[3] & USER_ID:
                claimed, user = decode_properties(header).user_id, self.connection.user
                if claimed != user:
                    raise precondition_failed(
                        f"user_id property set to '{claimed}' but authenticated user was '{user}'"
                    )
        except AmqpError as exc:
            raise exc.during(*PUBLISH_IDS) from None
        self.connection.checked_header = header

    def _end_publish(self, content: _Content, header: bytes) -> None:
        body = bytes(content.body)
        self._drop_content()
        self._update_ready()
        target = self.connection.routes.get(content.route) or self.resolve(content.route)
        self.connection.counts.publish += 1
        target.publish(self, self.next_publish(), content.route, header, body, content.mandatory)

    def _drop_content(self) -> None:
        if self._content is not None:
            self.connection.assembling -= len(self._content.body)
            self._content = None

    def _assembling(self, octets: int) -> None:
        connection = self.connection
        connection.assembling += octets
        limit = connection.settings.max_assembling
        if connection.assembling > limit:
            raise resource_error(
                f"unfinished messages on this connection take more than {limit} octets"
            ).during(*PUBLISH_IDS)

    def next_publish(self) -> int:
        """The publish sequence number of the next message, 0 outside confirm mode."""
        confirms = self.confirms
        if confirms is None:
            return 0
        confirms.published += 1
        return confirms.published

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

    def _update_ready(self) -> None:
        self.ready = (
            self.state is ChannelState.OPEN
            and self._busy is None
            and self._content is None
            and not self._backlog
            and not self._draining
        )

    # Closing.

    def fail(self, exc: AmqpError) -> None:
        """Close this channel with an error and wait for the client's ``close-ok``."""
        self.release()
        self.state = ChannelState.CLOSING
        self.send(m.ChannelClose(exc.code, exc.reply_text(), exc.class_id, exc.method_id))

    def close(self) -> None:
        """The client closes the channel, or the connection is over."""
        self.release()
        self.state = ChannelState.CLOSED

    def release(self) -> None:
        """Let go of everything; the broker gives back what is unsettled."""
        if self.state is not ChannelState.OPEN:
            return
        self.state = ChannelState.CLOSED
        self.ready = False
        self._busy = None
        self._drop_content()
        self._backlog.clear()
        self._waiting(-self._backlog_size)
        holders = dict.fromkeys(self.consumers.values())
        holders.update(dict.fromkeys(consumer for consumer, _ in self.unacked.values()))
        self.unacked.clear()
        self.held.clear()
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

    def refused(self, first: int, last: int) -> None:
        """The messages ``first`` to ``last`` were not taken."""
        if self.confirms is not None and self.state is ChannelState.OPEN:
            self.connection.write(self.confirms.refused(first, last))

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
            self.send(m.BasicCancel(consumer.tag, nowait=True))

    # Deliveries and their settlement.

    def remove_consumer(self, consumer: Consumer) -> None:
        """Forget a consumer; what the channel held back of it returns to the queue."""
        del self.consumers[consumer.tag]
        consumer.live = False
        consumer.gated = True
        back = [delivery[0] for owner, delivery in self.held if owner is consumer]
        if back:
            self.held = deque(entry for entry in self.held if entry[0] is not consumer)
            consumer.unsettled -= len(back)
            consumer.give_back(back)

    def start_consumer(self, consumer: Consumer) -> None:
        """The client knows of the consumer now: deliveries may go out."""
        consumer.live = True
        self.apply_limit(consumer)
        if consumer.early:
            early, consumer.early = consumer.early, []
            consumer.deliver(early)

    def deliver_gated(self, consumer: Consumer, batch: Sequence[Delivery]) -> None:
        """Deliver with the channel-wide limit in mind, or before the client knows of the consumer."""
        if self.state is not ChannelState.OPEN:
            return  # the broker has given back all that this consumer held, what is on its way included
        if self.consumers.get(consumer.tag) is not consumer:
            consumer.give_back([delivery[0] for delivery in batch])
        elif not consumer.live:
            consumer.early.extend(batch)
        else:
            consumer.unsettled += len(batch)
            self.held.extend((consumer, delivery) for delivery in batch)
            self.send_held()

    def send_held(self) -> None:
        """Send held deliveries as far as the limit allows, oldest first."""
        limit = self.channel_prefetch
        while self.held and (not limit or len(self.unacked) - self.fetched < limit):
            consumer, delivery = self.held.popleft()
            consumer.unsettled -= 1
            consumer.send((delivery,))

    def limit_changed(self) -> None:
        """Apply the channel-wide prefetch; settling nothing makes a queue look at its consumer again."""
        self.send_held()
        for consumer in self.consumers.values():
            if consumer.live:
                self.apply_limit(consumer)
                consumer.queue.settle(consumer, (), Outcome.ACK)

    def apply_limit(self, consumer: Consumer) -> None:
        limits = [limit for limit in (consumer.own_prefetch, self.channel_prefetch) if limit]
        consumer.prefetch = min(limits, default=0)
        consumer.gated = not consumer.live or (self.channel_prefetch > 0 and not consumer.no_ack)

    def settle(self, groups: Groups, outcome: Outcome) -> None:
        """Tell the queues what the client decided, and let held deliveries follow."""
        for consumer, positions in groups:
            self.settle_one(consumer, positions, outcome)

    def settle_one(self, consumer: Consumer, positions: list[int], outcome: Outcome) -> None:
        count = len(positions)
        consumer.unsettled -= count
        if outcome is Outcome.ACK:
            self.connection.counts.ack += count
        if consumer.holder:
            self.fetched -= count
        consumer.queue.settle(consumer, positions, outcome)
        if self.held:
            self.send_held()
