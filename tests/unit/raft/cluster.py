"""A few nodes driven by hand: messages move when the test says so, disks are instant unless held."""

from __future__ import annotations

import random

from brokers.engine.core.raft.messages import Message
from brokers.engine.core.raft.multi import Multi, empty_image
from brokers.engine.core.raft.types import Committed, Membership, Ready, RoleChange, Settings
from tests.sim.disk import Disk


class Member:
    """A node with its disk and all that its consensus asked for."""

    def __init__(self, node: int, disk: Disk | None = None, boot: int = 0, settings: Settings | None = None):
        self.id = node
        self.boot = boot or 1000 + node
        self.disk = disk or Disk()
        self.multi = Multi(node, self.boot, self.disk, random.Random(node), settings or Settings())
        self.hold_disk = False
        self.out: list[tuple[int, Message]] = []
        self.committed: list[Committed] = []
        self.roles: list[RoleChange] = []
        self.ready: list[Ready] = []

    def turn(self, now: float) -> None:
        """Carry out what is asked for."""
        while True:
            ready = self.multi.take_ready()
            if ready is None:
                return
            self.ready.append(ready)
            if ready.records:
                self.disk.append(ready.token, ready.records)
            self.out.extend(ready.messages)
            self.committed.extend(ready.committed)
            self.roles.extend(ready.role_changes)
            if not self.hold_disk:
                self.sync(now)

    def sync(self, now: float) -> None:
        """The disk catches up."""
        if self.disk.queue:
            token = self.disk.sync(len(self.disk.queue))
            self.multi.persisted(token, now)

    def payloads(self, group: int = 1) -> list[bytes]:
        """What was handed out for applying."""
        found: list[bytes] = []
        for committed in self.committed:
            if committed.group == group:
                entries = self.disk.read(group, committed.low, committed.high, 1 << 30)
                found += [entry.payload for entry in entries if entry.payload]
        return found


class Cluster:
    """Nodes 1..n, all members of group 1 (unless told otherwise)."""

    def __init__(self, nodes: int = 3, groups: tuple[int, ...] = (1,), settings: Settings | None = None):
        self.now = 0.0
        self.members = {number: Member(number, settings=settings) for number in range(1, nodes + 1)}
        self.cut: set[tuple[int, int]] = set()
        founders = Membership(tuple(self.members))
        for member in self.members.values():
            for group in groups:
                member.multi.add_group(empty_image(group), founders)

    def __getitem__(self, node: int) -> Member:
        return self.members[node]

    def step(self) -> bool:
        """One round of turns and deliveries; False when nothing moved."""
        for member in self.members.values():
            member.turn(self.now)
        moved = False
        for member in self.members.values():
            out, member.out = member.out, []
            for peer, message in out:
                if peer in self.members and (member.id, peer) not in self.cut:
                    self.members[peer].multi.receive(member.id, message, self.now)
                    moved = True
        return moved

    def settle(self) -> None:
        """Until nothing moves at this instant."""
        while self.step():
            pass

    def run(self, seconds: float) -> None:
        """Let time pass in ticks of 10 ms."""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.01
            for member in self.members.values():
                member.multi.tick(self.now)
            self.settle()

    def isolate(self, node: int) -> None:
        """No message passes from or to ``node``."""
        for other in self.members:
            self.cut |= {(node, other), (other, node)}

    def elect(self, node: int, group: int = 1) -> None:
        """``node`` leads ``group``."""
        for member in self.members.values():
            member.multi.tick(self.now)
        self.members[node].multi.campaign(group, self.now)
        self.settle()
        assert self.members[node].multi.is_leader(group)

    def restart(self, node: int, keep: int = 0) -> Member:
        """The process of ``node`` crashes (``keep`` unsynced records survive) and is back."""
        old = self.members[node]
        old.disk.crash(keep)
        member = self.members[node] = Member(node, old.disk, old.boot + 1000)
        founders = Membership(tuple(self.members))
        for image in old.disk.images():
            member.multi.add_group(image, founders)
        member.multi.tick(self.now)
        return member
