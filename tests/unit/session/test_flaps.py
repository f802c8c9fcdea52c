"""Links that come and go, hand-overs that fail: nobody is told twice that something is new, nobody gets more
than it asked for, and nobody starves."""

from __future__ import annotations

from typing import cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from brokers.engine.core.amqp.consumer import Consumer
from brokers.engine.core.amqp.port import Outcome
from brokers.engine.core.session.leader import QueueLeader
from tests.unit.session.test_session import GROUP, Confirms, FakeConsumer, World

NODES = (1, 2, 3)


class FlappingWorld(World):
    """A world whose links break."""

    again = 0

    def flap(self, node: int) -> None:
        """The link between ``node`` and the leader breaks and comes back."""
        assert self.leader is not None
        ends = {node, self.leading}
        for entry in [w for w in self.wire if {w[0], w[1]} == ends]:
            self.wire.remove(entry)
        self.links[node].leader_lost(cast(int, self.leading))
        self.leader.node_down(node)
        self.leader.greet(node)

    def lead_again(self) -> None:
        """A hand-over was begun and given up."""
        assert self.leading is not None
        self.links[self.leading].leader_lost(self.leading)
        self.again += 1
        self.leader = QueueLeader(GROUP, self.term, self.state, NODES, self._read, again=self.again)


class Flaps(RuleBasedStateMachine):
    """Random traffic on such links."""

    @initialize()
    def begin(self) -> None:
        self.world = FlappingWorld()
        self.channels = {node: Confirms() for node in NODES}
        self.sent = dict.fromkeys(NODES, 0)
        self.consumers: dict[int, FakeConsumer] = {}
        self.all: list[FakeConsumer] = []
        self.world.elect(1)
        self.world.settle()

    @rule(node=st.sampled_from(NODES), count=st.integers(1, 5))
    def publish(self, node: int, count: int) -> None:
        for _ in range(count):
            self.sent[node] += 1
            self.world.links[node].add(self.channels[node], self.sent[node], b"\0\1q", b"h", b"body")

    @rule(node=st.sampled_from(NODES), prefetch=st.integers(1, 4))
    def consume(self, node: int, prefetch: int) -> None:
        if node not in self.consumers:
            consumer = self.consumers[node] = FakeConsumer(prefetch)
            self.all.append(consumer)
            self.world.links[node].attach(cast(Consumer, consumer), len(self.all), lambda in_use: None)

    @precondition(lambda self: self.consumers)
    @rule(data=st.data(), outcome=st.sampled_from(list(Outcome)))
    def settle_one(self, data: st.DataObject, outcome: Outcome) -> None:
        node = data.draw(st.sampled_from(sorted(self.consumers)))
        consumer = self.consumers[node]
        if consumer.held:
            position = consumer.held.pop(data.draw(st.integers(0, len(consumer.held) - 1)))
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

    @rule(node=st.sampled_from(NODES))
    def change_leader(self, node: int) -> None:
        self.world.elect(node)

    @rule()
    def lead_again(self) -> None:
        self.world.lead_again()

    @rule(node=st.sampled_from(NODES))
    def flap(self, node: int) -> None:
        if node != self.world.leading:
            self.world.flap(node)

    @invariant()
    def only_one_delivery_claims_to_be_the_first(self) -> None:
        if hasattr(self, "world"):
            firsts = [p for consumer in self.all for p, redelivered, *_ in consumer.got if not redelivered]
            assert len(firsts) == len(set(firsts))

    @invariant()
    def nobody_holds_more_than_it_may(self) -> None:
        if hasattr(self, "world"):
            assert all(len(consumer.held) <= consumer.prefetch for consumer in self.all)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.settle()
        for node, channel in self.channels.items():
            assert channel.confirmed_tags == list(range(1, self.sent[node] + 1))
        if not self.consumers:
            self.consume(1, 2)
        for _ in range(world.state.next_position + 1):
            for node, consumer in self.consumers.items():
                world.links[node].settle(cast(Consumer, consumer), consumer.held, Outcome.ACK)
                consumer.held = []
            world.settle()
        assert world.leader is not None
        dispatcher = world.leader.dispatcher
        assert world.state.messages == 0
        assert (dispatcher.unsettled, dispatcher.settling, dispatcher.limbo) == (0, 0, set())


TestFlaps = Flaps.TestCase
TestFlaps.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
