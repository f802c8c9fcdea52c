"""Whatever a client sends, nothing is raised, the output stays whole frames, and memory stays bounded."""

from __future__ import annotations

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.constants import PROTOCOL_HEADER
from brokers.engine.core.amqp.frames import frame, method_frame
from brokers.engine.core.amqp.properties import encode_header
from tests.unit.amqp.recording import Client, delivery, opened, publish, split_frames
from tests.unit.amqp.strategies import methods, properties

frames = st.builds(frame, st.sampled_from([1, 1, 2, 3, 8, 0, 255]), st.integers(0, 3), st.binary(max_size=60))
whole_methods = st.builds(method_frame, st.integers(0, 3), methods)
publishes = st.builds(
    lambda number, given_properties, body: publish(number, body, properties=given_properties),
    st.integers(1, 3),
    properties,
    st.binary(max_size=40),
)
acks = st.builds(
    lambda tag, multiple: method_frame(1, m.BasicAck(tag, multiple)), st.integers(0, 8), st.booleans()
)
headers = st.builds(lambda given_properties: frame(2, 1, encode_header(given_properties, 3)), properties)
pieces = st.one_of(frames, whole_methods, publishes, acks, headers, st.binary(max_size=30))


def fed(client: Client, stream: list[bytes]) -> None:
    """Feed a client's bytes, let time pass, and check what holds always."""
    output = b""
    for data in stream:
        client.receive(data)
        for consumer in client.broker.consumers:
            consumer.deliver([delivery(0)])
        output += client.output()
    for _ in range(3):
        client.pass_time(200)
        output += client.output()
    if output != PROTOCOL_HEADER:
        split_frames(output)
    connection = client.connection
    closed = client.broker.of("closed")
    assert len(closed) == (1 if connection.ended else 0)
    if connection.ended:
        assert connection.assembling == 0
        assert connection.channels == {}
        assert connection.reason


@settings(deadline=None)
@given(st.lists(st.binary(max_size=100), max_size=10))
def test_any_octets_from_the_start(stream: list[bytes]) -> None:
    fed(Client(), stream)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=100) | whole_methods, max_size=10))
def test_any_octets_after_the_header(stream: list[bytes]) -> None:
    fed(Client(), [PROTOCOL_HEADER, *stream])


@settings(deadline=None, max_examples=150)
@given(st.lists(pieces, max_size=12))
def test_any_octets_on_open_channels(stream: list[bytes]) -> None:
    fed(opened(1, 2), stream)


@settings(deadline=None, max_examples=100)
@given(st.lists(pieces, max_size=12), st.lists(st.integers(0, 11), max_size=12))
def test_answers_may_come_at_any_time(stream: list[bytes], answers: list[int]) -> None:
    client = opened(1, 2)
    client.broker.hold = True
    for number, data in enumerate(stream):
        client.receive(data)
        for _ in range(min(answers.count(number), len(client.broker.waiting))):
            client.broker.answer()
    while client.broker.waiting:
        client.broker.answer()
    split_frames(client.output())
    assert not client.connection.paused
    client.connection.lost()
    assert len(client.broker.of("closed")) == 1


@settings(deadline=None)
@given(st.data())
def test_flipped_octets_in_a_good_stream(data: st.DataObject) -> None:
    stream = bytearray(
        publish(1, b"one") + method_frame(1, m.BasicConsume("q", "t")) + publish(1, b"two") + publish(2, b"x")
    )
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    fed(opened(1, 2), [bytes(stream)])


def test_announced_sizes_allocate_nothing() -> None:
    """Frames, tables and bodies that claim gigabytes: what is kept is what was sent."""
    claims = [
        b"\x01\x00\x00\xff\xff\xff\xff",
        frame(1, 1, b"\x00\x32\x00\x0a\x00\x00\x01q\x00\xff\xff\xff\xff"),
        frame(1, 1, b"\x00\x32\x00\x0a\x00\x00\x01q\x00\x00\x00\x00\x07\x01kS\xff\xff\xff\xff"),
        method_frame(1, m.BasicPublish()) + frame(2, 1, b"\x00\x3c\x00\x00" + b"\xff" * 8 + b"\x00\x00"),
        method_frame(1, m.BasicPublish())
        + frame(2, 1, b"\x00\x3c\x00\x00" + (100 * 2**20).to_bytes(8, "big") + b"\x00\x00"),
        frame(
            1, 1, b"\x00\x32\x00\x0a\x00\x00\x01q\x00" + (60_000).to_bytes(4, "big") + b"\x01kA\x00" * 15_000
        ),
    ]
    for claim in claims:
        client = opened()
        tracemalloc.start()
        try:
            client.receive(claim)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 16 * len(claim) + 200_000


def test_a_body_in_tiny_frames_takes_its_own_size() -> None:
    size = 60_000
    client = opened()
    client.receive(method_frame(1, m.BasicPublish("", "q")))
    client.receive(frame(2, 1, b"\x00\x3c\x00\x00" + size.to_bytes(8, "big") + b"\x00\x00"))
    tiny = frame(3, 1, b"ab") * 1000
    tracemalloc.start()
    try:
        for _ in range(size // 2000 - 1):
            client.receive(tiny)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert client.connection.assembling == size - 2000
    assert kept < 2 * size
