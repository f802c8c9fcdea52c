"""However a stream of bytes is cut into reads, the same happens."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.frames import HEARTBEAT, frame, method_frame
from brokers.engine.core.amqp.properties import BasicProperties, encode_header
from tests.unit.amqp.recording import Client, delivery, handshake, publish
from tests.unit.amqp.strategies import methods

# A session that uses both ways through the scanner: the fast one and the frame-by-frame one.

_SESSION = [
    method_frame(1, m.ChannelOpen()),
    method_frame(1, m.ConfirmSelect()),
    method_frame(1, m.BasicConsume("q", "t")),
    publish(1, b"one"),
    publish(1, b""),
    HEARTBEAT,
    method_frame(2, m.ChannelOpen()),
    method_frame(1, m.BasicAck(1)) + method_frame(1, m.BasicAck(2)) + method_frame(1, m.BasicAck(4, True)),
    publish(2, b"x" * 5000, frame_max=4096),
    publish(1, b"two", exchange="logs", routing_key="a.b", mandatory=True),
    method_frame(1, m.BasicNack(5, False, True)),
    publish(1, b"user", properties=BasicProperties(user_id="guest", headers={"a": [1, None]})),
]

_ENDINGS = [
    method_frame(0, m.ConnectionClose(200, "bye")),
    method_frame(0, m.ConnectionClose(200, "bye")) * 2 + publish(1) + b"garbage",
    method_frame(1, m.ChannelClose(200, "bye")) + publish(2, b"late"),
    publish(1, exchange="nope") + publish(1) + publish(2),
    publish(1, properties=BasicProperties(user_id="root")) + publish(1) + publish(2),
    publish(1, immediate=True) + publish(2),
    publish(3) + publish(2),
    publish(1)[:-1] + b"\x00" + publish(2),
    method_frame(1, m.BasicAck(1)) + method_frame(1, m.BasicAck(6)) + publish(2),
    frame(1, 1, b"\x00\x3c\x00\x28\x00\x00\x05ab\x00\x00")
    + frame(2, 1, encode_header(BasicProperties(), 1))
    + frame(3, 1, b"x"),
    frame(1, 1, b"\x00\x3c\x00\x28\x00\x00\x01a\x01b\x02") + publish(2),
    method_frame(1, m.BasicPublish("", "q")) + frame(2, 1, b"\x00\x3c\x00\x00" + bytes(8) + b"\x00\x01"),
    method_frame(1, m.BasicPublish("nope", "q")) + frame(2, 1, b"\x00\x3c\x00\x00" + bytes(8) + b"\x00\x01"),
    method_frame(1, m.BasicPublish("nope", "q"))
    + frame(2, 1, encode_header(BasicProperties(user_id="root"), 1))
    + frame(3, 1, b"x"),
    method_frame(1, m.BasicPublish("", "q")) + frame(2, 1, encode_header(BasicProperties(), 2)) + publish(2),
    b"\x01\x00\x01\xff\xff\xff\xff",
    b"\x07\x00\x00\x00\x00\x00\x00\xce",
    publish(1)[:-5],
]


def outcome(chunks: Iterable[bytes]) -> tuple[Any, ...]:
    """All that a stream brought about: calls, settlements, output, state."""
    client = Client()
    output = b""
    for chunk in chunks:
        client.receive(chunk)
        output += client.output()
        for consumer in client.broker.consumers:
            if not consumer.outstanding() and consumer.channel.delivered == 0:
                consumer.deliver([delivery(n) for n in range(6)])
                output += client.output()
    connection = client.connection
    return (
        client.broker.calls,
        client.broker.settled(),
        output,
        connection.state,
        connection.reason,
        connection.counts,
        connection.assembling,
    )


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    marks = [0, *sorted({place % (len(stream) + 1) for place in places}), len(stream)]
    return [stream[start:stop] for start, stop in pairwise(marks)]


_PREFIX = handshake() + b"".join(_SESSION[:3])
"""What comes before the deliveries that the session acknowledges: read by itself, in whatever pieces."""


@settings(deadline=None)
@given(
    st.sampled_from(range(len(_ENDINGS))),
    st.lists(st.integers(0, 2000), max_size=4),
    st.lists(st.integers(0, 20_000), max_size=40),
)
@example(0, list(range(len(_PREFIX))), [])
@example(1, [], list(range(7000)))
def test_reads_of_any_size_do_the_same(ending: int, early: list[int], late: list[int]) -> None:
    rest = b"".join(_SESSION[3:]) + _ENDINGS[ending]
    whole = outcome([_PREFIX, rest])
    assert outcome([*cut(_PREFIX, early), *cut(rest, late)]) == whole


def test_every_ending_octet_by_octet() -> None:
    rest = b"".join(_SESSION[3:8])
    for ending in _ENDINGS:
        stream = rest + ending
        assert outcome([_PREFIX, *cut(stream, range(len(stream)))]) == outcome([_PREFIX, stream])


@settings(deadline=None)
@given(st.lists(methods, max_size=8), st.data())
def test_any_methods_in_any_order_do_the_same_in_any_pieces(
    sent: list[m.Method], data: st.DataObject
) -> None:
    numbers = st.integers(0, 2)
    stream = b"".join(_SESSION[3:5]) + b"".join(method_frame(data.draw(numbers), method) for method in sent)
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=10))
    assert outcome([_PREFIX, *cut(stream, places)]) == outcome([_PREFIX, stream])
