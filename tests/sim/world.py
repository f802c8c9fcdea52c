"""A cluster in a box: nodes, network, clients, operator and misfortune, all from one seed."""

from __future__ import annotations

import random

from brokers.engine.core.raft.multi import Multi
from brokers.engine.core.raft.records import Entry
from brokers.engine.core.raft.types import Membership, Role, Settings
from tests.sim.checks import Checks, Violation
from tests.sim.clock import Clock
from tests.sim.disk import Disk
from tests.sim.faults import Faults
from tests.sim.network import Network
from tests.sim.node import Node
from tests.sim.options import Options

HEAL = 5.0
"""After the last fault something gets better every so many seconds, until all is well."""
LONGEST = 120.0
"""Seconds that catching up may take where messages are small and disks are slow."""


class World:
    """One run."""

    def __init__(self, options: Options, multi: type[Multi] = Multi) -> None:
        self.options = options
        self.multi_class = multi
        self.rng = random.Random(f"world {options.seed}")
        self.clock = Clock()
        self.checks = Checks(self._holds, self._voters)
        self.network = Network(self)
        self.nodes: dict[int, Node] = {}
        self.groups = tuple(range(1, options.groups + 1))
        self.serial = 0
        self.quiet = False
        self.members: set[int] = set()
        """Nodes that should end up as voters of all groups (empty: whoever they are)."""

    def multi(self, me: int, boot: int, disk: Disk, rng: random.Random, settings: Settings) -> Multi:
        """The consensus under test."""
        return self.multi_class(me, boot, disk, rng, settings)

    def _holds(self, number: int, entry: Entry) -> bool:
        """Has node ``number`` this entry on disk, or had it before it lost its disk?"""
        node = self.nodes[number]
        store = node.disk.durable.get(entry.group)
        if node.destroyed or store is None or store.damaged is not None:
            return node.destroyed or store is not None
        return entry.index <= store.base or store.entries.get(entry.index) == entry

    def _voters(self, group: int) -> set[tuple[int, ...]]:
        """The voters as any running node believes."""
        running = [node for node in self.nodes.values() if node.up and group in node.machines]
        return {node.multi.status(group).membership.voters for node in running}

    def live(self) -> list[Node]:
        """Nodes whose process runs and moves."""
        return [node for node in self.nodes.values() if node.up and not node.paused]

    def leader(self, group: int) -> Node | None:
        """The leader of the highest term among the live nodes."""
        leaders = [node for node in self.live() if group in node.machines and node.multi.is_leader(group)]
        return max(leaders, key=lambda node: node.multi.status(group).term, default=None)

    def run(self) -> None:
        """Live through it. Raises ``Violation`` (and whatever the code under test raises)."""
        options = self.options
        for number in range(1, options.nodes + 1):
            self.nodes[number] = Node(self, number)
        founders = Membership(tuple(range(1, options.voters + 1)))
        for number in founders.voters:
            for group in self.groups:
                self.nodes[number].foundation[group] = founders
        for node in self.nodes.values():
            node.start()
        self.connect_all()
        faults = Faults(self)
        self.clock.after(0.0, self._client)
        faults.start()
        self.clock.run_until(options.duration)
        faults.heal()
        self._settle(faults)

    def connect_all(self) -> None:
        """All links come up."""
        for node in self.nodes.values():
            for peer in self.nodes.values():
                if peer is not node:
                    self.link_up(node, peer)

    def link_up(self, node: Node, peer: Node) -> None:
        """``node`` learns that it is connected with ``peer``."""
        if node.up and peer.up and not node.paused and (node.id, peer.id) not in self.network.cuts:
            node.multi.link_up(peer.id, peer.boot, self.clock.now)
            node.turn_soon()

    def link_down(self, node: Node, peer: int) -> None:
        """``node`` learns that its connection with ``peer`` is gone."""
        if node.up and not node.paused:
            node.multi.link_down(peer, self.clock.now)
            node.turn_soon()

    def _client(self) -> None:
        group = self.rng.choice(self.groups)
        leaders = [node for node in self.live() if group in node.machines and node.multi.is_leader(group)]
        if leaders and not self.quiet:
            for _ in range(self.rng.choice([1, 1, 3])):
                self.serial += 1
                self.rng.choice(leaders).propose(group, b"%d-" % self.serial + b"x" * self.rng.randint(0, 30))
        self.clock.after(self.rng.uniform(0, 2 * self.options.propose_every), self._client)

    # The end.

    def _settle(self, faults: Faults) -> None:
        """After the faults: a leader soon, then all replicas alike."""
        self.quiet = True
        moved, before = self.clock.now, 0
        end = self.clock.now + LONGEST
        while why := self._unsettled():
            if self.clock.now > min(moved + HEAL, end):
                raise Violation(f"not well, {HEAL} s after anything moved: {why}")
            self.clock.run_until(self.clock.now + 0.25)
            faults.operate()
            reached = sum([self._reached(node) for node in self.live()])
            if reached != before:
                moved, before = self.clock.now, reached
        for group in self.groups:
            leader = self.leader(group)
            assert leader is not None
            self.serial += 1
            payload = b"last-%d" % self.serial
            if not leader.propose(group, payload):
                raise Violation(f"group {group}: leader {leader.id} does not take proposals after healing")
            self.clock.run_until(self.clock.now + 1.5)
            if payload not in self.checks.confirmed:
                raise Violation(f"group {group}: a proposal after healing was not confirmed")
        why = self._unsettled()
        if why:
            raise Violation(f"after healing and a last proposal: {why}")

    @staticmethod
    def _reached(node: Node) -> int:
        """How far a node is, as one number."""
        applied: int = sum([machine.applied for machine in node.machines.values()])
        return applied + sum([store.last for store in node.disk.durable.values()])

    def _unsettled(self) -> str:
        """What is not yet as it should be."""
        for group in self.groups:
            leader = self.leader(group)
            if leader is None:
                return f"group {group} has no leader: {self._describe(group)}"
            status = leader.multi.status(group)
            if status.transferring or status.changing:
                return f"group {group} is in motion: {self._describe(group)}"
            for number in status.membership.members:
                node = self.nodes[number]
                if not node.up:
                    if node.destroyed:
                        return f"group {group} still has node {number}, whose disk is gone"
                    continue
                mine = node.multi.status(group)
                machine = node.machines[group]
                if mine.leader != leader.id or mine.damaged or machine.applied != status.last:
                    return f"group {group}, node {number} differs: {self._describe(group)}"
                if machine.digest != leader.machines[group].digest:
                    raise Violation(f"group {group}: states differ: {self._describe(group)}")
                if mine.role is Role.LEADER and number != leader.id:
                    return f"group {group}: node {number} leads as well"
        return ""

    def _describe(self, group: int) -> str:
        lines = []
        for node in self.nodes.values():
            if node.up and group in node.machines:
                lines.append(f"\n  node {node.id}{' paused' * node.paused}: {node.multi.status(group)}")
            else:
                lines.append(f"\n  node {node.id}: down")
        return "".join(lines)
