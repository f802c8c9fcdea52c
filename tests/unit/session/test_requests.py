"""basic.get, declare and purge see what was published before them on the same way, committed or not."""

from __future__ import annotations

from typing import cast

from brokers.engine.core.amqp.consumer import Consumer
from brokers.engine.core.amqp.port import Delivery
from brokers.engine.core.session import messages as m
from tests.unit.session.test_session import Confirms, FakeConsumer, World


class Turns:
    """A leader whose proposals are committed only when told."""

    def __init__(self) -> None:
        self.world = World()
        self.world.elect(1)
        self.world.settle()
        leader = self.world.leader
        assert leader is not None
        self.leader = leader
        self.uncommitted: list[int] = []

    def turn(self) -> list[m.Message]:
        """Links speak, the leader listens and proposes; what it says."""
        for link in self.world.links.values():
            link.flush()
        while self.world.wire:
            sender, _, message = self.world.wire.popleft()
            self.leader.receive(sender, message)
        self.leader.pump()
        for payload, answers in self.leader.take_proposals(0):
            self.world.log.append(payload)
            self.uncommitted.append(len(self.world.log))
            self.leader.proposed(len(self.world.log), answers)
        out, self.leader.out = self.leader.out, []
        return [message for _, message in out]

    def commit(self) -> list[m.Message]:
        """What was proposed is committed; what the leader says then."""
        while self.uncommitted:
            index = self.uncommitted.pop(0)
            result = self.world.state.apply(index, self.world.log[index - 1])
            self.leader.applied(index, result)
        return self.turn()

    def publish(self, body: bytes) -> None:
        self.world.links[2].add(Confirms(), 1, b"\0\1q", b"h", body)

    def get(self, number: int) -> list[tuple[Delivery | None, int]]:
        got: list[tuple[Delivery | None, int]] = []
        holder = cast(Consumer, FakeConsumer())
        self.world.links[2].get(holder, number, False, lambda delivery, ready: got.append((delivery, ready)))
        return got

    def say(self, messages: list[m.Message]) -> None:
        for message in messages:
            self.world.links[2].receive(1, message)


def test_a_get_waits_for_the_publish_before_it() -> None:
    turns = Turns()
    turns.publish(b"body")
    got = turns.get(1)
    turns.say(turns.turn())
    assert got == []
    said = turns.commit()
    said += turns.commit()  # of the watermark
    turns.say(said)
    [(delivery, ready)] = got
    assert delivery is not None
    assert (delivery[4], ready) == (b"body", 0)


def test_a_get_does_not_wait_when_a_message_is_there() -> None:
    turns = Turns()
    turns.publish(b"first")
    turns.get(1)
    for _ in range(3):
        turns.say(turns.commit())
    turns.publish(b"second")
    turns.say(turns.turn())
    turns.say(turns.commit())
    turns.publish(b"third")
    got = turns.get(2)
    turns.say(turns.turn())
    [(delivery, _)] = got
    assert delivery is not None
    assert delivery[4] == b"second"


def test_a_count_waits_for_the_publish_before_it() -> None:
    turns = Turns()
    turns.publish(b"body")
    counted: list[tuple[int, int]] = []
    turns.world.links[2].ask(False, lambda ready, consumers: counted.append((ready, consumers)))
    turns.say(turns.turn())
    assert counted == []
    turns.say(turns.commit())
    assert counted == [(1, 0)]


def test_a_purge_takes_the_publish_before_it() -> None:
    turns = Turns()
    turns.publish(b"body")
    purged: list[int] = []
    turns.world.links[2].ask(True, lambda count, consumers: purged.append(count))
    for _ in range(3):
        turns.say(turns.commit())
    assert purged == [1]
    assert turns.world.state.messages == 0


def test_a_get_of_a_channel_that_closed_takes_nothing() -> None:
    turns = Turns()
    turns.publish(b"body")
    holder = cast(Consumer, FakeConsumer())
    turns.world.links[2].get(holder, 1, False, lambda delivery, ready: None)
    turns.world.links[2].release(holder)
    for _ in range(3):
        turns.say(turns.commit())
    assert turns.leader.dispatcher.ready == 1
    assert turns.leader.dispatcher.slots == {}


def test_requests_of_a_node_that_is_gone_are_forgotten() -> None:
    turns = Turns()
    turns.publish(b"body")
    turns.get(1)
    turns.turn()
    turns.leader.node_down(2)
    said = turns.commit() + turns.commit()
    assert not [message for message in said if isinstance(message, m.Got)]
    assert turns.leader.dispatcher.ready == 1
