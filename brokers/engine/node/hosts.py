"""The queues that have a replica on this node: state, log and, where this node leads, the leader."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from brokers.engine.core.model.arguments import Arguments
from brokers.engine.core.model.entries import PUBLISH, Messages
from brokers.engine.core.model.queue_settings import QueueSettings
from brokers.engine.core.model.queue_state import QueueState
from brokers.engine.core.raft.records import KIND_DATA, KIND_NOOP, Entry, LogReader, Snapshot
from brokers.engine.core.session.leader import QueueLeader

CACHED_ENTRIES = 16
SNAPSHOT_ENTRIES = 4096
SNAPSHOT_BYTES = 32 << 20
"""A snapshot is made after so many entries or bytes, or when the queue is quiet and has any since the last.
"""


@dataclass(slots=True)
class Failover:
    """The last time the queue changed its leader, as its present leader saw it."""

    at: float
    origin: str | None
    target: str
    unavailable_ms: float
    reason: str


class Host:
    """A queue's replica on this node."""

    def __init__(self, group: int, state: QueueState) -> None:
        self.group = group
        self.state = state
        self.leader: QueueLeader | None = None
        self.term = 0
        self.dirty = False
        self.failover: Failover | None = None
        self._led = (0, 0)
        """The last term led in, and how often before."""
        self.held: tuple[int, float] | None = None
        """A reader needs all from this position on, until that time of the loop."""
        self._cache: OrderedDict[int, Messages] = OrderedDict()

    def propose(self, payload: bytes) -> int | None:
        """Append to the queue's log; the entry's index, or None when this node may not (any more)."""
        raise NotImplementedError

    def hold(self, position: int, until: float) -> None:
        """Keep messages from ``position`` on readable until then, settled or not."""
        if self.held is not None:
            position, until = min(position, self.held[0]), max(until, self.held[1])
        self.held = position, until
        state = self.state
        state.retain_from = position if state.retain_from is None else min(state.retain_from, position)

    def read(self, index: int) -> Messages:
        """The publish entry at a log index."""
        found = self._cache.get(index)
        if found is None:
            found = Messages(self._load(index))
            self._remember(index, found)
        return found

    def _remember(self, index: int, messages: Messages) -> None:
        self._cache[index] = messages
        if len(self._cache) > CACHED_ENTRIES:
            self._cache.popitem(last=False)

    def _load(self, index: int) -> bytes:
        raise NotImplementedError

    def lead(self, term: int, nodes: Iterable[int], settings: QueueSettings) -> QueueLeader:
        """This node leads the queue from now on."""
        former, before = self._led
        self._led = (term, before + 1 if former == term else 0)
        self.term = term
        self.leader = QueueLeader(
            self.group, term, self.state, nodes, self.read, settings, wall_clock_ms(), again=self._led[1]
        )
        return self.leader

    def apply(self, index: int, payload: bytes) -> None:
        """A committed entry of the queue's own."""
        result = self.state.apply(index, payload)
        if self.leader is not None:
            self.leader.applied(index, result)


class ReplicaHost(Host):
    """A replica of a durable queue: its log is a consensus group's."""

    def __init__(self, group: int, state: QueueState, log: LogReader, consensus: Consensus) -> None:
        super().__init__(group, state)
        self._log = log
        self._consensus = consensus
        self.snapshot_index = state.applied
        self.snapshot_bytes = 0
        """Bytes of entries since the last snapshot."""

    def propose(self, payload: bytes) -> int | None:
        place = self._consensus.propose(self.group, payload)
        return None if place is None else place[0]

    def _load(self, index: int) -> bytes:
        return self._log.read(self.group, index, index, 1 << 62)[0].payload

    def apply_entry(self, entry: Entry) -> None:
        """A committed entry of the group."""
        self.snapshot_bytes += len(entry.payload)
        if entry.kind == KIND_DATA:
            self.apply(entry.index, entry.payload)
        elif entry.kind == KIND_NOOP:
            self.state.open_term(entry.index)
        else:
            self.state.applied = entry.index

    def restore(self, snapshot: Snapshot) -> None:
        """The group's state was replaced by its leader's."""
        self.state = restored(snapshot)
        self.leader = None
        self._cache.clear()
        self.snapshot_index = snapshot.index

    def wants_snapshot(self, quiet: bool) -> bool:
        """Whether enough was applied since the last one."""
        since = self.state.applied - self.snapshot_index
        return since >= SNAPSHOT_ENTRIES or self.snapshot_bytes >= SNAPSHOT_BYTES or (quiet and since > 0)

    def snapshotted(self) -> None:
        """A snapshot of the state as it is was made."""
        self.snapshot_index = self.state.applied
        self.snapshot_bytes = 0


class Consensus(Protocol):
    """What a replica needs of the consensus driver (see ``replication.Replication``)."""

    def propose(self, group: int, payload: bytes) -> tuple[int, int] | None:
        """(index, term) of the new entry, or None when this node cannot lead it."""
        ...


class TransientHost(Host):
    """A queue that lives in this node's memory alone: every entry is committed as it is made."""

    def __init__(self, group: int, arguments: Arguments) -> None:
        super().__init__(group, QueueState.founded(arguments))
        self._payloads: dict[int, bytes] = {}
        self._waiting: list[tuple[int, bytes]] = []
        self._last = 0
        self.state.open_term(0)

    def propose(self, payload: bytes) -> int | None:
        self._last += 1
        self._waiting.append((self._last, payload))
        return self._last

    def _load(self, index: int) -> bytes:
        return self._payloads[index]

    def commit(self) -> bool:
        """Apply what was proposed; whether there was anything."""
        if not self._waiting:
            return False
        waiting, self._waiting = self._waiting, []
        for index, payload in waiting:
            if payload[0] == PUBLISH:
                self._payloads[index] = payload
            self.apply(index, payload)
        floor = self.state.keep_from()
        payloads = self._payloads
        while payloads and (oldest := next(iter(payloads))) < floor:
            del payloads[oldest]
        return True


def restored(snapshot: Snapshot | None) -> QueueState:
    """The state that a group's log goes on from."""
    if snapshot is None:
        return QueueState()
    state = QueueState.load(snapshot.state)
    state.applied = snapshot.index
    return state


def wall_clock_ms() -> int:
    """Milliseconds since 1970, as stamped on messages."""
    return time.time_ns() // 1_000_000
