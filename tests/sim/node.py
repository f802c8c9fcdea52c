"""A simulated node: the driver of ``Multi`` that the real node is too, on a simulated disk and network."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

from brokers.engine.core.raft.messages import Message
from brokers.engine.core.raft.multi import Multi, empty_image
from brokers.engine.core.raft.records import KIND_DATA, Snapshot
from brokers.engine.core.raft.types import Committed, Membership, Ready, Role
from tests.sim.checks import chain
from tests.sim.disk import Disk

if TYPE_CHECKING:
    from tests.sim.world import World

_STATE = struct.Struct(">QI")


class Machine:
    """A state machine that remembers how it came to be: the hash of all it applied."""

    def __init__(self, state: bytes | None) -> None:
        self.applied, self.digest = _STATE.unpack(state[: _STATE.size]) if state is not None else (0, 0)
        self.keep_from = 1

    def state(self, padding: int) -> bytes:
        """For a snapshot; ``padding`` makes it longer."""
        return _STATE.pack(self.applied, self.digest) + b"s" * padding


class Node:
    """One process after the other on the same disk."""

    def __init__(self, world: World, node: int) -> None:
        self.world = world
        self.id = node
        self.rng = random.Random(f"node {world.options.seed} {node}")
        self.disk = Disk()
        self.boot = 0
        self.up = False
        self.destroyed = False
        self.paused = False
        self.sync_scale = 1.0
        self.multi: Multi
        self.machines: dict[int, Machine] = {}
        self.foundation: dict[int, Membership] = {}
        self.proposed: dict[tuple[int, int], tuple[int, bytes]] = {}
        self._inherited: dict[int, int] = {}
        self._inbox: list[tuple[int, Message]] = []
        self._syncing = False
        self._turn_due = False

    # Life and death.

    def start(self) -> None:
        """A new process recovers from the disk."""
        world = self.world
        self.boot = self.rng.getrandbits(63) | 1
        self.up, self.paused = True, False
        self.multi = world.multi(self.id, self.boot, self.disk, self.rng, world.options.settings)
        self.machines = {}
        self.proposed = {}
        self._inbox = []
        self._syncing = self._turn_due = False
        for image in self.disk.images():
            self._add(self.multi.add_group(image, self.foundation[image.group]), image.group)
        for group, membership in self.foundation.items():
            if group not in self.machines:
                self._add(self.multi.add_group(empty_image(group), membership), group)
        self._tick(self.boot)

    def _add(self, snapshot: Snapshot | None, group: int) -> None:
        machine = self.machines[group] = Machine(snapshot.state if snapshot is not None else None)
        if snapshot is not None:
            machine.keep_from = snapshot.keep_from
            self.world.checks.restored(group, machine.applied, machine.digest, self.id)

    def found(self, group: int, membership: Membership) -> None:
        """``group`` is to be on this node."""
        if group in self.foundation:
            return
        self.foundation[group] = membership
        if self.up:
            self._add(self.multi.add_group(empty_image(group), membership), group)
            self.turn_soon()

    def crash(self) -> None:
        """The process is gone, and with it what was not synced (but for a lucky prefix)."""
        self.up = False
        unsynced = self.disk.unsynced()
        self.disk.crash(self.rng.choice([0, unsynced, self.rng.randint(0, unsynced)]))

    def resume(self) -> None:
        """Wake from a pause: all that arrived meanwhile is handled now."""
        if not self.up or not self.paused:
            return
        self.paused = False
        self._tick_now()
        inbox, self._inbox = self._inbox, []
        for peer, message in inbox:
            self.multi.receive(peer, message, self.world.clock.now)
        self.turn_soon()

    # Events.

    def _tick(self, boot: int) -> None:
        if not self.up or self.boot != boot:
            return
        if not self.paused:
            self._tick_now()
        self.world.clock.after(self.rng.uniform(0.018, 0.022), self._tick, boot)

    def _tick_now(self) -> None:
        self.multi.tick(self.world.clock.now)
        self.turn_soon()

    def deliver(self, peer: int, message: Message) -> None:
        """The network brings a message."""
        if not self.up:
            return
        if self.paused:
            self._inbox.append((peer, message))
            return
        self.multi.receive(peer, message, self.world.clock.now)
        self.turn_soon()

    def propose(self, group: int, payload: bytes) -> bool:
        """A client wants ``payload`` decided."""
        where = self.multi.propose(group, payload)
        if where is None:
            return False
        self.proposed[group, where[0]] = (where[1], payload)
        self.turn_soon()
        return True

    def compact(self, group: int) -> None:
        """Make a snapshot of where the state machine is."""
        machine = self.machines[group]
        status = self.multi.status(group)
        if status.installing or machine.applied < max(status.first, 1):
            return
        keep_from = max(status.first, machine.applied + 1 - self.rng.choice([0, 0, 3, 20]))
        if machine.applied < self.disk.appended[group].base:
            return
        padding = self.rng.choice([0, 0, 50])
        snapshot = self.multi.make_snapshot(group, machine.applied, machine.state(padding), keep_from)
        self.disk.append(0, [snapshot])
        machine.keep_from = keep_from
        self.multi.compact(snapshot)
        self._start_sync()
        self.turn_soon()

    # The turn.

    def turn_soon(self) -> None:
        """Something happened: see what is to be done, now or a little later."""
        if self._turn_due:
            return
        delay = self.world.options.turn
        self._turn_due = True
        if delay:
            self.world.clock.after(self.rng.uniform(0, delay), self._turn, self.boot)
        else:
            self._turn(self.boot)

    def _turn(self, boot: int) -> None:
        if boot != self.boot:
            return
        self._turn_due = False
        if not self.up or self.paused:
            return
        while (ready := self.multi.take_ready()) is not None:
            self._carry_out(ready)

    def _carry_out(self, ready: Ready) -> None:
        world, checks = self.world, self.world.checks
        if ready.records:
            self.disk.append(ready.token, ready.records)
            for record in ready.records:
                checks.wrote(record, self.disk)
            self._start_sync()
        for group in ready.repaired:
            self.disk.durable[group].damaged = None
            self.disk.appended[group].damaged = None
        for peer, message in ready.messages:
            group_id = getattr(message, "group", None)
            store = self.disk.durable.get(group_id) if group_id is not None else None
            damaged = store is not None and store.damaged is not None
            checks.leaves(self.id, self.boot, peer, message, self.disk, damaged)
            world.network.send(self.id, peer, message)
        for change in ready.role_changes:
            status = self.multi.status(change.group)
            checks.goes_by(self.id, status, self.disk)
            if change.role is Role.LEADER:
                checks.leads(change.group, change.term, self.id, self.boot, self.disk)
                self._inherited[change.group] = status.commit
        for snapshot in ready.installed:
            self._install(snapshot)
        for committed in ready.committed:
            self._apply(committed)

    def _install(self, snapshot: Snapshot) -> None:
        self._add(snapshot, snapshot.group)
        status = self.multi.status(snapshot.group)
        if status.last == snapshot.index:
            self.world.checks.installed(snapshot, status.membership)
        for index in range(snapshot.keep_from, snapshot.index + 1):
            entry = self.disk.durable[snapshot.group].entries.get(index)
            decided = self.world.checks.decided[snapshot.group][index].entry
            if entry != decided:
                raise AssertionError(
                    f"node {self.id} installed snapshot {snapshot.index} of group {snapshot.group}"
                    f" with {entry} at {index}, decided was {decided}"
                )

    def _apply(self, committed: Committed) -> None:
        group, low, high = committed
        machine, checks = self.machines[group], self.world.checks
        if low != machine.applied + 1:
            raise AssertionError(f"node {self.id}: {committed}, but {machine.applied} were applied")
        term = self.multi.status(group).term
        while low <= high:
            entries = self.disk.read(group, low, high, 1 << 20)
            for entry in entries:
                machine.digest = chain(machine.digest, entry)
                machine.applied = entry.index
                checks.applied(group, entry, machine.digest, self.id, term)
                proposed = self.proposed.pop((group, entry.index), None)
                if proposed is not None and proposed[0] == entry.term and entry.kind == KIND_DATA:
                    checks.confirms(group, entry.index, proposed[1])
            low = entries[-1].index + 1
        status = self.multi.status(group)
        checks.goes_by(self.id, status, self.disk)
        commit = self.disk.appended[group].entries.get(status.commit)
        if status.role is Role.LEADER and commit is not None and status.commit > self._inherited[group]:
            checks.counted(group, commit, status.term, self.id)

    # The disk.

    def _start_sync(self) -> None:
        if self._syncing or not self.disk.queue:
            return
        self._syncing = True
        low, high = self.world.options.sync
        delay = min(self.rng.uniform(low, high) * self.sync_scale, 1.0)
        self.world.clock.after(delay, self._synced, self.boot, len(self.disk.queue))

    def _synced(self, boot: int, count: int) -> None:
        if not self.up or boot != self.boot:
            return
        if self.paused:
            self.world.clock.after(0.01, self._synced, boot, count)
            return
        self._syncing = False
        token = self.disk.sync(count)
        self._start_sync()
        self.multi.persisted(token, self.world.clock.now)
        self.turn_soon()
