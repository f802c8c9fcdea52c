"""Misfortune and operators' deeds, in doses that the promises cover."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from brokers.engine.core.raft.messages import TimeoutNow
from brokers.engine.core.raft.types import Membership, Refused
from tests.sim.node import Node

if TYPE_CHECKING:
    from tests.sim.world import World


class Faults:
    """Draws from the seed what goes wrong and when."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = random.Random(f"faults {world.options.seed}")
        self._healing = False
        self._replaced: tuple[int, int] | None = None
        self._damaged = 0

    def start(self) -> None:
        """Begin."""
        options, clock = self._world.options, self._world.clock
        clock.after(self._rng.uniform(0, 0.8), self._next)
        if "compact" in options.faults:
            clock.after(self._rng.uniform(0, options.compact_every), self._compact)
        clock.after(0.3, self._operator)

    def _next(self) -> None:
        if self._healing:
            return
        options = self._world.options
        choices = [fault for fault in options.faults if fault != "compact"]
        if choices:
            getattr(self, "_" + self._rng.choice(choices))()
        self._world.clock.after(self._rng.uniform(0, 2 * options.fault_every), self._next)

    def heal(self) -> None:
        """No more faults, and the lasting ones end."""
        world = self._world
        self._healing = True
        world.network.reliable = True
        world.network.cuts.clear()
        for node in world.nodes.values():
            node.sync_scale = 1.0
            if node.up:
                node.resume()
                node.multi.disk_healthy(True)
            elif not node.destroyed:
                node.start()
        world.connect_all()

    def _some(self) -> Node | None:
        nodes = self._world.live()
        return self._rng.choice(nodes) if nodes else None

    def _victim(self, group: int | None = None) -> Node | None:
        """Often the leader: that is where it hurts."""
        world = self._world
        leader = world.leader(group or self._rng.choice(world.groups))
        return leader if leader is not None and self._rng.random() < 0.6 else self._some()

    def _loud(self) -> bool:
        return self._rng.random() >= self._world.options.silent

    # Processes.

    def _crash(self) -> None:
        node = self._victim()
        if node is None:
            return
        self._kill(node)
        self._world.clock.after(self._rng.choice([0.05, 0.5, 1.5]), self._restart, node)

    def _kill(self, node: Node) -> None:
        node.crash()
        if self._loud():
            for peer in self._world.nodes.values():
                if peer is not node and self._rng.random() < 0.9:
                    delay = self._rng.uniform(0, 0.02)
                    self._world.clock.after(delay, self._world.link_down, peer, node.id)

    def _restart(self, node: Node) -> None:
        if node.up or node.destroyed:
            return
        node.start()
        for peer in self._world.nodes.values():
            if peer is not node and (self._loud() or self._healing):
                self._world.clock.after(self._rng.uniform(0, 0.03), self._world.link_up, node, peer)
                self._world.clock.after(self._rng.uniform(0, 0.03), self._world.link_up, peer, node)

    def _pause(self) -> None:
        node = self._victim()
        if node is not None:
            node.paused = True
            self._world.clock.after(self._rng.choice([0.1, 0.6, 1.5]), node.resume)

    # Networks.

    def _cut(self) -> None:
        node, other = self._victim(), self._some()
        if node is None or other is None or node is other:
            return
        pairs = [(node.id, other.id)]
        if self._rng.random() < 0.5:
            pairs.append((other.id, node.id))
        self._sever(pairs)

    def _partition(self) -> None:
        nodes = [node.id for node in self._world.nodes.values() if not node.destroyed]
        self._rng.shuffle(nodes)
        victim = self._victim()
        if victim is not None:
            nodes.sort(key=lambda number: number != victim.id)
        size = self._rng.randint(1, len(nodes) // 2)
        left, right = nodes[:size], nodes[size:]
        pairs = [(a, b) for a in left for b in right]
        if self._rng.random() < 0.7:
            pairs += [(b, a) for a, b in pairs]
        self._sever(pairs)

    def _sever(self, pairs: list[tuple[int, int]]) -> None:
        world = self._world
        world.network.cuts.update(pairs)
        if self._loud():
            for a, b in pairs:
                world.link_down(world.nodes[b], a)
        world.clock.after(self._rng.choice([0.1, 0.7, 1.5]), self._mend, pairs)

    def _mend(self, pairs: list[tuple[int, int]]) -> None:
        world = self._world
        world.network.cuts.difference_update(pairs)
        if self._loud():
            for a, b in pairs:
                world.link_up(world.nodes[a], world.nodes[b])
                world.link_up(world.nodes[b], world.nodes[a])

    # Disks.

    def _slow_disk(self) -> None:
        node = self._victim()
        if node is not None:
            node.sync_scale = self._rng.choice([5.0, 30.0])
            self._world.clock.after(self._rng.uniform(0.2, 1.0), self._fast_disk, node)

    @staticmethod
    def _fast_disk(node: Node) -> None:
        node.sync_scale = 1.0

    def _bad_disk(self) -> None:
        node = self._victim()
        if node is not None:
            node.multi.disk_healthy(False)
            node.turn_soon()
            self._world.clock.after(self._rng.uniform(0.1, 1.2), self._good_disk, node, node.boot)

    @staticmethod
    def _good_disk(node: Node, boot: int) -> None:
        if node.up and node.boot == boot:
            node.multi.disk_healthy(True)
            node.turn_soon()

    def _damage(self) -> None:
        """A crash, after which a part of the log that was durable cannot be read. One node at a time."""
        world = self._world
        node = self._victim()
        if node is None or not self._can_lose_one():
            return
        self._kill(node)
        self._damaged = node.id
        for store in node.disk.durable.values():
            if store.last and self._rng.random() < 0.7:
                low = min(store.entries, default=store.last)
                store.damaged = self._rng.randint(max(low, 1), store.last)
                if self._rng.random() < 0.5:
                    store.entries = {i: e for i, e in store.entries.items() if i < store.damaged}
                    store.last = max(store.damaged - 1, store.base)
        node.disk.appended = {group: store.copy() for group, store in node.disk.durable.items()}
        world.clock.after(self._rng.uniform(0.05, 0.5), self._restart, node)

    def _can_lose_one(self) -> bool:
        """Would every group still have a majority of whole members without one of them?"""
        world = self._world
        if self._replaced is not None or self._unwell():
            return False
        for group in world.groups:
            leader = world.leader(group)
            if leader is None:
                return False
            status = leader.multi.status(group)
            if status.changing or len(status.membership.voters) < 3:
                return False
        return True

    def _unwell(self) -> bool:
        """Is some node's data incomplete already?"""
        if self._damaged:
            node = self._world.nodes[self._damaged]
            if any(store.damaged is not None for store in node.disk.durable.values()):
                return True
            self._damaged = 0
        return False

    def _wipe(self) -> None:
        """A node loses its disk; another with a new id takes its place, as a learner first."""
        world = self._world
        node = self._victim()
        if node is None or not self._can_lose_one():
            return
        self._kill(node)
        node.destroyed = True
        number = max(world.nodes) + 1
        world.nodes[number] = Node(world, number)
        world.nodes[number].start()
        for peer in world.nodes.values():
            if peer.id != number:
                world.link_up(peer, world.nodes[number])
                world.link_up(world.nodes[number], peer)
        self._replaced = (node.id, number)

    # Operators.

    def _operator(self) -> None:
        if not self._healing:
            self.operate()
            self._world.clock.after(0.3, self._operator)

    def operate(self) -> None:
        """Bring a replacement in, step by step, in every group that the lost node was in."""
        if self._replaced is None:
            return
        old, new = self._replaced
        done = True
        for group in self._world.groups:
            done = self._replace(group, old, new) and done
        if done:
            self._replaced = None

    def _replace(self, group: int, old: int, new: int) -> bool:
        leader = self._world.leader(group)
        if leader is None:
            return False
        status = leader.multi.status(group)
        voters, learners = set(status.membership.voters), set(status.membership.learners)
        if old not in voters | learners:
            return not status.changing
        if old in learners:
            target = Membership.of(tuple(voters), tuple(learners - {old}))
        elif new not in voters | learners:
            self._world.nodes[new].found(group, Membership((), (new,)))
            target = Membership.of(tuple(voters), (*learners, new))
        elif new in learners:
            follower = next((f for f in status.followers if f.node == new), None)
            if follower is None or follower.lag > 5:
                return False
            target = Membership.of((*voters, new), tuple(learners - {new}))
        else:
            target = Membership.of(tuple(voters - {old}), tuple(learners))
        self._change(leader, group, target)
        return False

    def _change(self, leader: Node, group: int, target: Membership) -> None:
        try:
            leader.multi.change_membership(group, target)
        except Refused:
            return
        leader.turn_soon()

    def _step(self, leader: Node, group: int) -> Membership | None:
        world, rng = self._world, self._rng
        membership = leader.multi.status(group).membership
        voters, learners = set(membership.voters), set(membership.learners)
        whole = [n for n in world.nodes.values() if not n.destroyed]
        outside = [n.id for n in whole if n.id not in voters | learners]
        kind = rng.choice(["learner", "promote", "demote", "remove"])
        if kind == "learner" and outside:
            number = rng.choice(outside)
            world.nodes[number].found(group, Membership((), (number,)))
            return Membership.of(tuple(voters), (*learners, number))
        if kind == "promote" and learners:
            number = rng.choice(sorted(learners))
            return Membership.of((*voters, number), tuple(learners - {number}))
        if kind == "demote" and len(voters) > 2:
            number = rng.choice(sorted(voters))
            return Membership.of(tuple(voters - {number}), (*learners, number))
        if kind == "remove" and len(voters) > 3:
            return Membership.of(tuple(voters - {rng.choice(sorted(voters))}), tuple(learners))
        return None

    def _members(self) -> None:
        if self._replaced is not None or self._unwell():
            return
        group = self._rng.choice(self._world.groups)
        leaders = [node for node in self._world.live() if node.multi.is_leader(group)]
        leader = self._rng.choice(leaders) if leaders else None
        target = self._step(leader, group) if leader is not None else None
        if leader is not None and target is not None:
            self._change(leader, group, target)

    def _transfer(self) -> None:
        group = self._rng.choice(self._world.groups)
        leader = self._world.leader(group)
        if leader is None:
            return
        voters = [n for n in leader.multi.status(group).membership.voters if n != leader.id]
        if voters:
            try:
                leader.multi.transfer(group, self._rng.choice(voters))
            except Refused:
                return
            leader.turn_soon()

    def _campaign(self) -> None:
        group, node = self._rng.choice(self._world.groups), self._some()
        if node is not None and group in node.machines:
            node.multi.campaign(group, self._world.clock.now)
            node.turn_soon()

    def _stampede(self) -> None:
        """Several members believe that they were asked to take over: rival elections without pre-vote."""
        world = self._world
        group = self._rng.choice(world.groups)
        nodes = [node for node in world.live() if group in node.machines]
        self._rng.shuffle(nodes)
        if len(nodes) > 2 and self._rng.random() < 0.5:
            voter = nodes.pop()
            world.clock.after(self._rng.uniform(0, 0.08), self._blink, voter)
        for node in nodes[: self._rng.randint(1, 3)]:
            status = node.multi.status(group)
            world.clock.after(
                self._rng.uniform(0, 0.01), node.deliver, status.leader, TimeoutNow(group, status.term)
            )

    def _blink(self, node: Node) -> None:
        """The process ends and is back at once: it must know what it promised."""
        if node.up:
            self._kill(node)
            self._world.clock.after(self._rng.uniform(0, 0.03), self._restart, node)

    def _compact(self) -> None:
        node = self._some()
        if node is not None and node.machines:
            node.compact(self._rng.choice(sorted(node.machines)))
        self._world.clock.after(self._rng.uniform(0, 2 * self._world.options.compact_every), self._compact)
