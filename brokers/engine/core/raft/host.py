"""What the groups of one node share: its identity, its peers, timers, and the effects of the current turn."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from brokers.engine.core.raft.messages import AppendResponse, Message, VoteResponse
from brokers.engine.core.raft.peers import Peer
from brokers.engine.core.raft.records import Entry, Record, Snapshot, SnapshotReader
from brokers.engine.core.raft.types import RoleChange, Settings

if TYPE_CHECKING:
    from brokers.engine.core.raft.progress import Progress
    from brokers.engine.core.raft.state import State


class Timer(IntEnum):
    """What a group may have to do at some time."""

    ELECTION = 0
    QUORUM = 1
    TRANSFER = 2


class Timers:
    """A heap of deadlines. A group has at most one of a kind; setting it again forgets the one before."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, Timer]] = []
        self._current: dict[tuple[int, Timer], tuple[float, int]] = {}
        self._serial = 0

    def set(self, group: int, kind: Timer, when: float) -> None:
        """``group`` is due at ``when`` for ``kind``."""
        self._serial += 1
        self._current[group, kind] = (when, self._serial)
        heapq.heappush(self._heap, (when, self._serial, group, kind))

    def clear(self, group: int, kind: Timer) -> None:
        """``group`` is not due for ``kind`` any more."""
        self._current.pop((group, kind), None)

    def due(self, now: float, limit: int) -> Iterator[tuple[int, Timer]]:
        """Take up to ``limit`` (group, kind) that are due."""
        while limit and self.next() <= now:
            _, _, group, kind = heapq.heappop(self._heap)
            del self._current[group, kind]
            limit -= 1
            yield group, kind

    def next(self) -> float:
        """The earliest deadline, infinity when there is none."""
        heap = self._heap
        while heap:
            when, serial, group, kind = heap[0]
            if self._current.get((group, kind)) == (when, serial):
                return when
            heapq.heappop(heap)
        return float("inf")


class InstallDone(NamedTuple):
    """To ourselves: the snapshot and all its data are durable."""

    group: int
    snapshot: Snapshot


class RepairDone(NamedTuple):
    """To ourselves: a damaged log is whole again, durably."""

    group: int


Own = VoteResponse | InstallDone | RepairDone
"""What a group tells itself once its records are durable."""


class Host:
    """The node as its groups see it.

    Tokens number the turns that wrote something: ``token`` is the one being collected, and everything up to
    ``durable`` is on disk. What promises durability waits in ``_held`` for the token it depends on.
    """

    def __init__(
        self, me: int, boot: int, reader: SnapshotReader, rng: random.Random, settings: Settings
    ) -> None:
        self.me = me
        self.boot = boot
        self.reader = reader
        self.rng = rng
        self.settings = settings
        self.now = 0.0
        self.disk_healthy = True
        self.peers: dict[int, Peer] = {}
        self.timers = Timers()
        self.token = 1
        self.durable = 0
        self.records: list[Record] = []
        self.messages: list[tuple[int, Message]] = []
        self.role_changes: list[RoleChange] = []
        self.installed: list[Snapshot] = []
        self.repaired: list[int] = []
        self.touched: dict[int, None] = {}
        self.waiting: dict[tuple[int, int], Progress] = {}
        self.transfers = 0
        self._held: dict[int, list[tuple[int, Message]]] = {}
        self._own: dict[int, list[Own]] = {}
        self._written: dict[int, dict[int, tuple[int, int]]] = {}

    def peer(self, node: int) -> Peer:
        """What is known of ``node``."""
        found = self.peers.get(node)
        if found is None:
            found = self.peers[node] = Peer(node, self.now)
        return found

    def between(self, low: float, high: float) -> float:
        """A random time in [``low``, ``high``] seconds."""
        return self.rng.uniform(low, high)

    def touch(self, group: State) -> None:
        """``group`` has something to send or to hand out when this turn is taken."""
        self.touched[group.id] = None

    def record(self, group: State, record: Record) -> None:
        """``record`` is to be written in this turn."""
        self.records.append(record)
        group.token = self.token

    def wrote(self, group: State, entry: Entry) -> None:
        """A leader's own ``entry`` is to be written: it counts itself once that is durable."""
        self.records.append(entry)
        token = group.token = self.token
        written = self._written.get(token)
        if written is None:
            written = self._written[token] = {}
        written[entry[0]] = (entry[2], entry[1])

    def send(self, node: int, message: Message) -> None:
        """``message`` may leave at once."""
        self.messages.append((node, message))

    def send_durable(self, group: State, node: int, message: Message) -> None:
        """``message`` may leave when all that ``group`` has written so far is durable."""
        if group.token <= self.durable:
            self.messages.append((node, message))
        else:
            self._held.setdefault(group.token, []).append((node, message))

    def acknowledge(self, group: State, node: int, message: AppendResponse) -> None:
        """Like ``send_durable`` for a success; of a run of them from one group only the last leaves."""
        if group.token <= self.durable:
            self.messages.append((node, message))
            return
        held = self._held.setdefault(group.token, [])
        if held:
            last_node, last = held[-1]
            if last_node == node and isinstance(last, AppendResponse) and last[:3] == message[:3]:
                if message.match_index >= last.match_index:
                    held[-1] = (node, message)
                return
        held.append((node, message))

    def tell_self(self, group: State, message: Own) -> None:
        """``message`` comes back from ``persisted`` when what ``group`` has just written is durable."""
        self._own.setdefault(group.token, []).append(message)

    def persisted(self, token: int) -> tuple[dict[int, tuple[int, int]], list[Own]]:
        """All up to ``token`` is durable: what waited for it leaves.

        Returns the leaders' own entries that are durable now, as group: (term, index), and what groups told
        themselves. Raises ``ValueError`` when the token was never handed out.
        """
        if token >= self.token:
            raise ValueError(f"token {token} was not handed out yet (the next one is {self.token})")
        written: dict[int, tuple[int, int]] = {}
        own: list[Own] = []
        while self.durable < token:
            self.durable += 1
            written.update(self._written.pop(self.durable, ()))
            self.messages.extend(self._held.pop(self.durable, ()))
            own.extend(self._own.pop(self.durable, ()))
        return written, own
