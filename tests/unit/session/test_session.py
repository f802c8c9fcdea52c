"""Links and leaders against each other, without a network: batches, consumers, settlements, and what is said
again after a change of leader."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from brokers.engine.core.amqp.consumer import Consumer
from brokers.engine.core.amqp.port import Delivery, Outcome
from brokers.engine.core.model.entries import Messages
from brokers.engine.core.model.queue_state import QueueState
from brokers.engine.core.session import messages as m
from brokers.engine.core.session.leader import QueueLeader
from brokers.engine.core.session.link import Load, QueueLink

GROUP = 7


@dataclass(eq=False)
class FakeConsumer:
    """As much of ``core.amqp.consumer.Consumer`` as a link needs."""

    prefetch: int = 10
    no_ack: bool = False
    exclusive: bool = False
    arguments: dict[str, object] = field(default_factory=dict)
    handle: object = None
    queue: object = None
    held: list[int] = field(default_factory=list)
    got: list[Delivery] = field(default_factory=list)

    @property
    def unsettled(self) -> int:
        return len(self.held)

    def outstanding(self) -> list[int]:
        return list(self.held)

    def deliver(self, batch: list[Delivery]) -> None:
        self.got += batch
        if not self.no_ack:
            self.held += [delivery[0] for delivery in batch]


@dataclass
class Confirms:
    """A publisher's channel."""

    confirmed_tags: list[int] = field(default_factory=list)

    def confirmed(self, first: int, last: int) -> None:
        self.confirmed_tags += range(first, last + 1)

    def refused(self, first: int, last: int) -> None:
        raise AssertionError(f"{first} to {last} were refused, though nothing is full")


class World:
    """Three nodes that share one committed log (consensus is somebody else's test)."""

    def __init__(self) -> None:
        self.log: list[bytes] = []
        self.state = QueueState()
        self.term = 0
        self.leading: int | None = None
        self.leader: QueueLeader | None = None
        self.wire: deque[tuple[int, int, m.Message]] = deque()
        self.links = {node: self._link(node) for node in (1, 2, 3)}

    def _link(self, node: int) -> QueueLink:
        return QueueLink(
            GROUP,
            "q",
            1000 + node,
            Load(),
            send=lambda to, message: self.wire.append((node, to, message)),
            mark=lambda link: None,
            congested=lambda consumer: False,
        )

    def elect(self, node: int) -> None:
        """``node`` leads from now on; what the former leader had not committed is lost with it."""
        self.term += 1
        self.leading = node
        self.log.append(b"")
        self.state.open_term(len(self.log))
        self.wire = deque(w for w in self.wire if not self._is_leaders(w[2]))
        self.leader = QueueLeader(GROUP, self.term, self.state, (1, 2, 3), self._read)

    def _is_leaders(self, message: m.Message) -> bool:
        return isinstance(message, m.Deliver | m.Got | m.Answer | m.Attached)

    def _read(self, index: int) -> Messages:
        return Messages(self.log[index - 1])

    def settle(self) -> None:
        """Let everything run until nothing moves."""
        moving = True
        while moving:
            moving = self.step()

    def step(self) -> bool:
        """One turn of everybody; whether anything moved."""
        for link in self.links.values():
            link.flush()
        moved = bool(self.wire)
        while self.wire:
            sender, to, message = self.wire.popleft()
            if isinstance(message, m.Hello) or self._is_leaders(message) or _to_link(message):
                self.links[to].receive(sender, message)
            elif self.leader is not None and to == self.leading:
                self.leader.receive(sender, message)
        return self.work() or moved

    def work(self) -> bool:
        """The leader's turn, everything it proposes being committed at once."""
        leader = self.leader
        if leader is None or self.leading is None:
            return False
        leader.pump()
        proposals = leader.take_proposals(0)
        for payload, answers in proposals:
            self.log.append(payload)
            index = len(self.log)
            leader.proposed(index, answers)
            leader.applied(index, self.state.apply(index, payload))
        leader.pump()
        out, leader.out = leader.out, []
        self.wire.extend((self.leading, node, message) for node, message in out)
        return bool(proposals or out)


def _to_link(message: m.Message) -> bool:
    return type(message) not in QueueLeader.handlers


class Sessions(RuleBasedStateMachine):
    """Random traffic and changes of leader; nothing confirmed is lost, nothing is held by two."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.channels = {node: Confirms() for node in (1, 2, 3)}
        self.sent = dict.fromkeys((1, 2, 3), 0)
        self.acked: set[int] = set()
        self.consumers: dict[int, FakeConsumer] = {}
        self.numbers = 0
        self.world.elect(1)
        self.world.settle()

    @rule(node=st.sampled_from((1, 2, 3)), count=st.integers(1, 5))
    def publish(self, node: int, count: int) -> None:
        for _ in range(count):
            self.sent[node] += 1
            body = f"{node}:{self.sent[node]}".encode()
            self.world.links[node].add(self.channels[node], self.sent[node], b"\0\1q", b"h", body)

    @rule(node=st.sampled_from((1, 2, 3)), prefetch=st.integers(0, 4))
    def consume(self, node: int, prefetch: int) -> None:
        if node in self.consumers:
            return
        self.numbers += 1
        consumer = self.consumers[node] = FakeConsumer(prefetch)
        self.world.links[node].attach(cast(Consumer, consumer), self.numbers, lambda in_use: None)

    @precondition(lambda self: self.consumers)
    @rule(data=st.data(), outcome=st.sampled_from(list(Outcome)))
    def settle_one(self, data: st.DataObject, outcome: Outcome) -> None:
        node = data.draw(st.sampled_from(sorted(self.consumers)))
        consumer = self.consumers[node]
        if not consumer.held:
            return
        position = consumer.held.pop(data.draw(st.integers(0, len(consumer.held) - 1)))
        if outcome is not Outcome.REQUEUE:
            self.acked.add(position)
        self.world.links[node].settle(cast(Consumer, consumer), [position], outcome)

    @precondition(lambda self: self.consumers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(sorted(self.consumers)))
        self.world.links[node].release(cast(Consumer, self.consumers.pop(node)))

    @rule()
    def one_step(self) -> None:
        self.world.step()

    @rule()
    def run(self) -> None:
        self.world.settle()

    @rule(node=st.sampled_from((1, 2, 3)))
    def change_leader(self, node: int) -> None:
        self.world.elect(node)

    @invariant()
    def nobody_holds_what_another_holds(self) -> None:
        if not hasattr(self, "world"):
            return
        held = [p for consumer in self.consumers.values() for p in consumer.held]
        assert len(held) == len(set(held))

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.elect(2)
        world.settle()
        for node, channel in self.channels.items():
            assert channel.confirmed_tags == list(range(1, self.sent[node] + 1))
        assert world.state.next_position == sum(self.sent.values())
        for node, consumer in list(self.consumers.items()):
            world.links[node].release(cast(Consumer, consumer))
        drain = FakeConsumer(prefetch=0)
        world.links[3].attach(cast(Consumer, drain), 10_000, lambda in_use: None)
        world.settle()
        left = {delivery[0] for delivery in drain.got}
        assert left == set(range(world.state.next_position)) - self.acked
        last: dict[bytes, int] = {}
        for _, redelivered, _, _, body in drain.got:
            node_name, number = body.split(b":")
            if not redelivered:
                assert int(number) > last.get(node_name, 0)
                last[node_name] = int(number)


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_settlements_of_a_lost_leader_are_said_again() -> None:
    world = World()
    world.elect(1)
    channel, consumer = Confirms(), FakeConsumer()
    world.links[2].add(channel, 1, b"\0\1q", b"h", b"body")
    world.links[3].attach(cast(Consumer, consumer), 1, lambda in_use: None)
    world.settle()
    assert consumer.held == [0]
    consumer.held.clear()
    world.links[3].settle(cast(Consumer, consumer), [0], Outcome.ACK)
    world.links[3].flush()
    world.wire.clear()
    world.elect(2)
    world.settle()
    assert world.state.messages == 0
    assert len(consumer.got) == 1


def test_consumer_without_prefetch_is_not_sent_more_than_its_socket_takes() -> None:
    world = World()
    world.elect(1)
    consumer = FakeConsumer(prefetch=0)
    congested = True
    world.links[2]._congested = lambda consumer: congested
    world.links[2].attach(cast(Consumer, consumer), 1, lambda in_use: None)
    for tag in range(1, 5001):
        world.links[1].add(Confirms(), tag, b"\0\1q", b"h", b"b" * 10)
    world.settle()
    assert 0 < len(consumer.got) < 5000
    congested = False
    world.settle()
    assert len(consumer.got) == 5000


def test_exclusive_consumer_keeps_others_out() -> None:
    world = World()
    world.elect(1)
    answers: list[bool | None] = []
    first, second = FakeConsumer(exclusive=True), FakeConsumer()
    world.links[1].attach(cast(Consumer, first), 1, answers.append)
    world.settle()
    world.links[2].attach(cast(Consumer, second), 2, answers.append)
    world.settle()
    assert answers == [False, True]
    world.links[1].release(cast(Consumer, first))
    world.links[2].attach(cast(Consumer, second), 3, answers.append)
    world.settle()
    assert answers == [False, True, False]
