"""A broker that records what it is asked and answers what the test told it to, and a client's side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.channel import Channel
from brokers.engine.core.amqp.connection import Connection, ConnectionSettings
from brokers.engine.core.amqp.constants import PROTOCOL_HEADER
from brokers.engine.core.amqp.consumer import Consumer
from brokers.engine.core.amqp.errors import AmqpError, login_refused, no_exchange, vhost_not_found
from brokers.engine.core.amqp.frames import FRAME, content_frames, frame, method_frame
from brokers.engine.core.amqp.port import Delivery, Outcome
from brokers.engine.core.amqp.properties import BasicProperties, encode_header


class RecordingQueue:
    """Notes what was settled."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.settled: list[tuple[str, list[int], Outcome]] = []
        self.limits: list[tuple[str, int]] = []

    def settle(self, consumer: Consumer, positions: Sequence[int], outcome: Outcome) -> None:
        if positions:
            self.settled.append((consumer.tag, list(positions), outcome))

    def limit(self, consumer: Consumer) -> None:
        self.limits.append((consumer.tag, consumer.prefetch))


class RecordingBroker:
    """Implements ``port.Broker``. With ``hold`` set, answers wait in ``waiting`` for ``answer``."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.queues: dict[str, RecordingQueue] = {}
        self.replies: dict[type[m.Method], m.Method | AmqpError | None] = {}
        self.ready: list[Delivery] = []
        self.consumers: list[Consumer] = []
        self.hold = False
        self.waiting: list[Callable[[], None]] = []
        self.keep_routes = True
        self.exchanges = {"", "amq.direct", "logs"}

    def server_properties(self) -> dict[str, object]:
        return {"product": "mqconsole", "capabilities": {"basic.nack": True}}

    def queue(self, name: str) -> RecordingQueue:
        return self.queues.setdefault(name, RecordingQueue(name))

    def _later(self, answer: Callable[[], None]) -> None:
        if self.hold:
            self.waiting.append(answer)
        else:
            answer()

    def answer(self) -> None:
        """Give the oldest answer that was held back."""
        self.waiting.pop(0)()

    def authenticate(
        self, connection: Connection, user: str, password: str, done: Callable[[AmqpError | None], None]
    ) -> None:
        self.calls.append(("authenticate", user))
        refused = None if (user, password) == ("guest", "guest") else login_refused(connection.mechanism)
        self._later(lambda: done(refused))

    def open(self, connection: Connection, vhost: str, done: Callable[[AmqpError | None], None]) -> None:
        self.calls.append(("open", vhost))
        self._later(lambda: done(None if vhost == "/" else vhost_not_found(vhost)))

    def resolve(self, channel: Channel, route: bytes) -> RecordingBroker:
        self.calls.append(("resolve", route))
        exchange = route[1 : 1 + route[0]].decode()
        if exchange not in self.exchanges:
            raise no_exchange(exchange, channel.connection.vhost)
        if self.keep_routes:
            channel.connection.routes[route] = self
        return self

    def resolve_special(self, channel: Channel, route: bytes, header: bytes) -> RecordingBroker:
        self.calls.append(("resolve_special", route, header))
        return self

    def publish(
        self, channel: Channel, tag: int, route: bytes, header: bytes, body: bytes, mandatory: bool
    ) -> None:
        self.calls.append(("publish", channel.number, tag, route, header, body, mandatory))

    def call(
        self, channel: Channel, method: m.Method, done: Callable[[m.Method | AmqpError | None], None]
    ) -> None:
        self.calls.append(("call", channel.number, method))
        reply = self.replies.get(type(method))
        if reply is None and isinstance(method, m.QueueDeclare):
            reply = m.QueueDeclareOk(method.queue or "amq.gen-1", 0, 0)
        elif reply is None:
            reply = getattr(m, type(method).__name__ + "Ok")()
        self._later(lambda: done(reply))

    def consume(
        self,
        channel: Channel,
        consumer: Consumer,
        method: m.BasicConsume,
        done: Callable[[m.Method | AmqpError | None], None],
    ) -> None:
        self.calls.append(("consume", channel.number, method))
        consumer.queue = self.queue(method.queue)
        self.consumers.append(consumer)
        self._later(lambda: done(self.replies.get(m.BasicConsume)))

    def cancel(self, consumer: Consumer) -> None:
        self.calls.append(("cancel", consumer.tag))

    def get(
        self, channel: Channel, consumer: Consumer, method: m.BasicGet, done: Callable[..., None]
    ) -> None:
        self.calls.append(("get", channel.number, method))
        consumer.queue = self.queue(method.queue)
        reply = self.replies.get(m.BasicGet)
        if isinstance(reply, AmqpError):
            self._later(lambda: done(reply, 0))
            return
        delivery = self.ready.pop(0) if self.ready else None
        self._later(lambda: done(delivery, len(self.ready)))

    def release(self, channel: Channel, consumers: Sequence[Consumer]) -> None:
        self.calls.append(("release", channel.number, [consumer.tag for consumer in consumers]))

    def closed(self, connection: Connection) -> None:
        self.calls.append(("closed",))

    def departed(self, connection: Connection, done: Callable[[], None]) -> None:
        self._later(done)

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] == kind]

    def settled(self) -> list[tuple[str, int, Outcome]]:
        """One entry a position: how acknowledgements are batched is not the test's business."""
        return [
            (tag, position, outcome)
            for queue in self.queues.values()
            for tag, positions, outcome in queue.settled
            for position in positions
        ]


def protocol_error(call: Callable[..., object], *arguments: object) -> AmqpError | None:
    """The ``AmqpError`` that ``call`` raises, None when it returns."""
    try:
        call(*arguments)
    except AmqpError as exc:
        return exc
    return None


Frame = tuple[int, int, bytes]


def split_frames(data: bytes) -> list[Frame]:
    """(type, channel, payload) of each frame; fails on anything that is not whole frames."""
    frames = []
    pos = 0
    while pos < len(data):
        kind, channel, size = FRAME.unpack_from(data, pos)
        end = pos + 7 + size
        assert data[end] == 0xCE
        frames.append((kind, channel, data[pos + 7 : end]))
        pos = end + 1
    return frames


def route(exchange: str, routing_key: str) -> bytes:
    return bytes((len(exchange),)) + exchange.encode() + bytes((len(routing_key),)) + routing_key.encode()


def delivery(position: int, body: bytes = b"hi", key: str = "q", redelivered: bool = False) -> Delivery:
    return (position, redelivered, route("", key), encode_header(BasicProperties(), len(body)), body)


def publish(
    channel: int,
    body: bytes = b"hello",
    *,
    exchange: str = "",
    routing_key: str = "q",
    mandatory: bool = False,
    immediate: bool = False,
    properties: BasicProperties | None = None,
    frame_max: int = 131072,
) -> bytes:
    """The bytes of a ``basic.publish``."""
    method = m.encode(m.BasicPublish(exchange, routing_key, mandatory, immediate))
    header = encode_header(properties or BasicProperties(), len(body))
    return b"".join(content_frames(channel, method, header, body, frame_max))


CAPABLE: dict[str, object] = {
    "capabilities": {
        "authentication_failure_close": True,
        "basic.nack": True,
        "connection.blocked": True,
        "consumer_cancel_notify": True,
        "publisher_confirms": True,
    }
}

START_OK = m.ConnectionStartOk(CAPABLE, "PLAIN", b"\0guest\0guest", "en_US")
TUNE_OK = m.ConnectionTuneOk(2047, 131072, 60)
OPEN = m.ConnectionOpen("/")


def handshake(
    start_ok: m.ConnectionStartOk = START_OK,
    tune_ok: m.ConnectionTuneOk = TUNE_OK,
    vhost: m.ConnectionOpen = OPEN,
) -> bytes:
    """Everything a client says until the connection is open."""
    return PROTOCOL_HEADER + b"".join(method_frame(0, method) for method in (start_ok, tune_ok, vhost))


class Client:
    """A connection with a recording broker behind it and a clock of the test's."""

    def __init__(self, **settings: Any) -> None:
        self.broker = RecordingBroker()
        numbers = count(1)
        self.now = 100.0
        self.woken = 0
        self.connection = Connection(
            self.broker,
            ConnectionSettings(token=lambda: f"token{next(numbers)}", **settings),
            peer="127.0.0.1:5",
            loopback=True,
            tls=False,
            now=self.now,
        )
        self.connection.wake = self._wake

    def _wake(self) -> None:
        self.woken += 1

    def receive(self, data: bytes) -> None:
        self.connection.receive(data, self.now)

    def output(self) -> bytes:
        return b"".join(self.connection.take_output())

    def frames(self) -> list[Frame]:
        return split_frames(self.output())

    def methods(self) -> list[tuple[int, m.Method]]:
        """(channel, method) of the output, contents left out."""
        return [(number, m.decode_method(payload)) for kind, number, payload in self.frames() if kind == 1]

    def exchange(self, *sent: m.Method | bytes, channel: int = 1) -> list[m.Method]:
        """Send methods (or raw bytes) on a channel; the methods that came back on it and on channel 0."""
        for item in sent:
            self.receive(item if isinstance(item, bytes) else method_frame(channel, item))
        return [method for number, method in self.methods() if number in (0, channel)]

    def frame(self, kind: int, channel: int, payload: bytes) -> list[m.Method]:
        return self.exchange(frame(kind, channel, payload), channel=channel)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.connection.tick(self.now)


def opened(*channels: int, tune_ok: m.ConnectionTuneOk = TUNE_OK, **settings: Any) -> Client:
    """A client whose connection and channels are open."""
    client = Client(**settings)
    client.receive(handshake(tune_ok=tune_ok))
    for number in channels or (1,):
        client.receive(method_frame(number, m.ChannelOpen()))
    client.output()
    client.broker.calls.clear()
    client.woken = 0
    return client
