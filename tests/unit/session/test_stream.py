"""Reading from an offset: everything retained, settled or not, and nothing taken out."""

from __future__ import annotations

from typing import cast

import pytest

from brokers.engine.core.amqp.consumer import Consumer
from brokers.engine.core.amqp.port import Outcome
from brokers.engine.core.amqp.properties import BasicProperties, decode_properties, encode_header
from brokers.engine.core.amqp.table import Timestamp
from brokers.engine.core.session.stream import OFFSET, Start, parse_offset
from tests.unit.session.test_session import Confirms, FakeConsumer, World

HEADER = encode_header(BasicProperties(headers={"own": 1}), 4)


def publish(world: World, count: int) -> None:
    for n in range(count):
        world.links[1].add(Confirms(), n + 1, b"\0\1q", HEADER, b"%04d" % n)
    world.settle()


def reader(offset: object, prefetch: int = 0) -> FakeConsumer:
    return FakeConsumer(prefetch=prefetch, arguments={OFFSET: offset})


def attach(world: World, node: int, number: int, consumer: FakeConsumer) -> list[bool | None]:
    answers: list[bool | None] = []
    world.links[node].attach(cast(Consumer, consumer), number, answers.append)
    world.settle()
    return answers


def positions(consumer: FakeConsumer) -> list[int]:
    return [delivery[0] for delivery in consumer.got]


@pytest.fixture
def world() -> World:
    world = World()
    world.elect(1)
    world.state.retain_from = 0
    publish(world, 10)
    taker = FakeConsumer(no_ack=True)
    attach(world, 1, 1, taker)
    assert positions(taker) == list(range(10))
    world.links[1].release(cast(Consumer, taker))
    world.settle()
    assert world.state.messages == 0
    return world


@pytest.mark.parametrize(("offset", "expected"), [("first", 0), ("last", 9), ("next", 10), (4, 4), (99, 99)])
def test_where_a_reader_begins(world: World, offset: object, expected: int) -> None:
    consumer = reader(offset)
    assert attach(world, 2, 7, consumer) == [False]
    publish(world, 5)
    assert positions(consumer) == list(range(expected, 15))
    assert world.state.messages == 5


def test_messages_tell_their_offset_and_keep_their_headers(world: World) -> None:
    consumer = reader(8)
    attach(world, 3, 7, consumer)
    headers = [decode_properties(delivery[3]).headers for delivery in consumer.got]
    assert headers == [{"own": 1, OFFSET: 8}, {"own": 1, OFFSET: 9}]
    assert [delivery[4] for delivery in consumer.got] == [b"0008", b"0009"]


def test_acknowledgements_make_room_and_settle_nothing(world: World) -> None:
    publish(world, 3)
    consumer = reader("first", prefetch=2)
    attach(world, 2, 7, consumer)
    assert positions(consumer) == [0, 1]
    for outcome in (Outcome.ACK, Outcome.REJECT, Outcome.REQUEUE):
        position = consumer.held.pop(0)
        world.links[2].settle(cast(Consumer, consumer), [position], outcome)
        world.settle()
    assert positions(consumer) == [0, 1, 2, 3, 4]
    assert world.state.messages == 3


def test_another_leader_goes_on_where_the_reader_was(world: World) -> None:
    consumer = reader("next", prefetch=3)
    attach(world, 2, 7, consumer)
    publish(world, 5)
    assert positions(consumer) == [10, 11, 12]
    world.elect(3)
    world.settle()
    world.links[2].settle(cast(Consumer, consumer), [consumer.held.pop(0)], Outcome.ACK)
    world.settle()
    assert positions(consumer) == [10, 11, 12, 13]
    assert world.state.messages == 5


def test_what_is_not_retained_is_passed_over(world: World) -> None:
    world.state.retain_from = 6
    world.state.keep_from()
    consumer = reader("first")
    attach(world, 2, 7, consumer)
    assert positions(consumer) == [6, 7, 8, 9]


def test_offsets_that_mean_something() -> None:
    assert parse_offset(Timestamp(5)) == (Start.TIME, 5000)
    assert parse_offset(0) == (Start.POSITION, 0)
    nonsenses: tuple[object, ...] = ("middle", -1, True, None, 1.5, [])
    for nonsense in nonsenses:
        with pytest.raises(ValueError, match="x-stream-offset"):
            parse_offset(nonsense)
