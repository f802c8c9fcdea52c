"""Consumers whose node was out of reach for a moment: others have their messages, and they settle them late."""

from __future__ import annotations

from typing import cast

from brokers.engine.core.amqp.consumer import Consumer
from brokers.engine.core.amqp.port import Outcome
from brokers.engine.core.model.delivery import Dispatcher, Slot
from brokers.engine.core.model.queue_state import QueueState
from brokers.engine.core.session import messages as m
from tests.unit.model.test_delivery import handed, publish
from tests.unit.model.test_delivery import state as state
from tests.unit.session.test_flaps import FlappingWorld
from tests.unit.session.test_session import GROUP, Confirms, FakeConsumer


def flapped(messages: int = 2) -> tuple[FlappingWorld, FakeConsumer, FakeConsumer]:
    """Node 2's consumer holds messages that node 3's has as well, because node 2 was out of reach."""
    world = FlappingWorld()
    world.elect(1)
    late, other = FakeConsumer(prefetch=messages), FakeConsumer(prefetch=messages)
    world.links[2].attach(cast(Consumer, late), 1, lambda in_use: None)
    for tag in range(1, messages + 1):
        world.links[1].add(Confirms(), tag, b"\0\1q", b"h", b"body")
    world.settle()
    world.links[3].attach(cast(Consumer, other), 2, lambda in_use: None)
    world.settle()
    world.flap(2)
    world.work()
    world.settle()
    assert late.held == other.held == list(range(messages))
    return world, late, other


def test_late_settlements_give_credit_back() -> None:
    world, late, other = flapped()
    for node, consumer in ((2, late), (3, other)):
        world.links[node].settle(cast(Consumer, consumer), consumer.held, Outcome.ACK)
        consumer.held = []
        world.settle()
    for tag in range(3, 7):
        world.links[1].add(Confirms(), tag, b"\0\1q", b"h", b"body")
    world.settle()
    assert len(late.held) == len(other.held) == 2


def test_messages_that_others_have_by_now_count_against_a_new_limit() -> None:
    world, late, _ = flapped()
    late.prefetch = 3
    world.links[2].limit(cast(Consumer, late))
    for tag in range(3, 9):
        world.links[1].add(Confirms(), tag, b"\0\1q", b"h", b"body")
    world.settle()
    assert len(late.held) == 3


def test_what_is_settled_twice_before_it_is_committed_leaves_once(state: QueueState) -> None:
    publish(state, 2)
    dispatcher = Dispatcher(state)
    dispatcher.attach(Slot((1, 7), credit=2))
    handed(dispatcher)
    assert dispatcher.settle((1, 7), [(0, 1)]) == [(0, 1)]
    assert dispatcher.settle((1, 7), [(0, 1)]) == []
    assert dispatcher.settling == 1


def test_leading_again_in_the_same_term_marks_what_was_handed_out() -> None:
    world = FlappingWorld()
    world.elect(1)
    gone, heir = FakeConsumer(), FakeConsumer()
    world.links[2].attach(cast(Consumer, gone), 1, lambda in_use: None)
    world.links[1].add(Confirms(), 1, b"\0\1q", b"h", b"body")
    world.settle()
    world.lead_again()
    assert world.leader is not None
    world.leader.node_down(2)
    world.leader.out = [(node, message) for node, message in world.leader.out if node != 2]
    world.links[3].attach(cast(Consumer, heir), 2, lambda in_use: None)
    world.settle()
    assert [(p, redelivered) for p, redelivered, *_ in heir.got] == [(0, True)]


def test_a_leader_does_not_wait_for_a_node_that_it_was_told_to_give_up() -> None:
    world = FlappingWorld()
    world.elect(1)
    assert world.leader is not None
    consumer = FakeConsumer()
    world.wire = type(world.wire)(w for w in world.wire if w[1] != 2)
    world.links[3].attach(cast(Consumer, consumer), 1, lambda in_use: None)
    world.links[3].add(Confirms(), 1, b"\0\1q", b"h", b"body")
    world.leader.out = [(n, message) for n, message in world.leader.out if n != 2]
    world.settle()
    assert world.leader.awaited == {2}
    assert consumer.got == []
    world.leader.give_up(2)
    world.settle()
    assert len(consumer.got) == 1


def test_what_was_said_before_the_hello_is_not_heard() -> None:
    world = FlappingWorld()
    world.elect(1)
    world.settle()
    assert world.leader is not None
    world.leader.greet(2)
    world.leader.receive(2, m.Ask(GROUP, 1, purge=False))
    assert not world.leader.pump()
    assert [type(message) for _, message in world.leader.out] == [m.Hello]
