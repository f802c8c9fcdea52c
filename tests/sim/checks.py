"""What must hold at every moment, whatever happens (Raft, figure 3), and who broke it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

from brokers.engine.core.raft.messages import (
    AppendResponse,
    Message,
    PreVoteResponse,
    SnapshotResponse,
    Vote,
    VoteResponse,
)
from brokers.engine.core.raft.records import KIND_CONFIG, KIND_NOOP, Entry, Record, Snapshot
from brokers.engine.core.raft.types import Membership, Status
from tests.sim.disk import Disk


class Violation(AssertionError):
    """A promise was broken."""


@dataclass
class Decided:
    """What is known of a committed entry. It was committed in ``term`` or before."""

    entry: Entry
    digest: int
    term: int


def chain(digest: int, entry: Entry) -> int:
    """The state machine's hash after ``entry``."""
    return crc32(b"%d %d %d " % (entry.index, entry.term, entry.kind) + entry.payload, digest)


class Checks:
    """The referee, who sees all nodes at once."""

    def __init__(
        self,
        holds: Callable[[int, Entry], bool],
        memberships: Callable[[int], set[tuple[int, ...]]],
    ) -> None:
        self.holds = holds
        self.memberships = memberships
        self.leaders: dict[tuple[int, int], tuple[int, int]] = {}
        self.decided: dict[int, dict[int, Decided]] = {}
        self.known: dict[tuple[int, int, int], tuple[int, bytes]] = {}
        self.before: dict[tuple[int, int, int], int] = {}
        self.confirmed: dict[bytes, tuple[int, int]] = {}
        self.highest: dict[int, int] = {}
        self.votes: dict[tuple[int, int, int], int] = {}

    def leads(self, group: int, term: int, node: int, boot: int, disk: Disk) -> None:
        """One leader a term, and it has everything that was committed."""
        other = self.leaders.setdefault((group, term), (node, boot))
        if other != (node, boot):
            raise Violation(f"group {group} term {term}: led by {other} and by {(node, boot)}")
        store = disk.appended[group]
        for index in range(max(store.base + 1, 1), self.highest.get(group, 0) + 1):
            decided = self.decided[group][index]
            if decided.term < term and store.entries.get(index) != decided.entry:
                raise Violation(
                    f"group {group} term {term}: leader {node} has {store.entries.get(index)} at {index},"
                    f" committed is {decided.entry} in term {decided.term} at the latest"
                )

    def goes_by(self, node: int, status: Status, disk: Disk) -> None:
        """The membership in force is the last one in the log, committed or not."""
        store = disk.appended.get(status.group)
        if store is None or status.installing or status.damaged:
            return
        above = range(store.base + 1, status.last + 1)
        configs = [store.entries[i] for i in above if store.entries[i].kind == KIND_CONFIG]
        if configs:
            latest = Membership.decode(configs[-1].payload)
        elif store.snapshot is not None:
            latest = Membership.decode(store.snapshot.membership)
        else:
            return
        if latest != status.membership:
            raise Violation(
                f"group {status.group}: node {node} goes by {status.membership}, its log says {latest}"
            )

    def wrote(self, record: Record, disk: Disk) -> None:
        """Log matching: (index, term) determines an entry and, by induction, all before it."""
        if not isinstance(record, Entry) or record.term == 0:
            return
        key = (record.group, record.index, record.term)
        value = (record.kind, record.payload)
        if self.known.setdefault(key, value) != value:
            raise Violation(f"two entries are {key}: {self.known[key]} and {value}")
        before = disk.appended[record.group].entries.get(record.index - 1)
        if before is not None and before.term:
            term = self.before.setdefault(key, before.term)
            if term != before.term:
                raise Violation(f"entry {key} follows an entry of term {term} and one of term {before.term}")

    def applied(self, group: int, entry: Entry, digest: int, node: int, term: int) -> None:
        """Committed entries and the states they lead to are the same everywhere, for ever."""
        decided = self.decided.setdefault(group, {})
        mine = decided.setdefault(entry.index, Decided(entry, digest, term))
        if mine.entry != entry or mine.digest != digest:
            raise Violation(
                f"group {group} index {entry.index}: node {node} applies {entry} ({digest:08x}),"
                f" decided was {mine.entry} ({mine.digest:08x})"
            )
        if entry.index > self.highest.get(group, 0):
            if entry.index != self.highest.get(group, 0) + 1:
                raise Violation(f"group {group}: index {entry.index} is applied before those below it")
            self.highest[group] = entry.index
            self._on_a_majority(group, entry)

    def _on_a_majority(self, group: int, entry: Entry) -> None:
        """Nothing is committed before a majority has it on disk (those that lost theirs since count, too)."""
        for voters in self.memberships(group):
            holders = sum([self.holds(number, entry) for number in voters])
            if 2 * holders > len(voters):
                return
        raise Violation(f"group {group}: {entry} is committed and not on the disks of a majority")

    def restored(self, group: int, index: int, digest: int, node: int) -> None:
        """A snapshot's state is the one that the entries lead to."""
        decided = self.decided.get(group, {}).get(index)
        if decided is None or decided.digest != digest:
            raise Violation(
                f"group {group}: node {node} restores a state at {index} that never was: {decided}"
            )

    def installed(self, snapshot: Snapshot, membership: Membership) -> None:
        """A snapshot brings the membership that the entries up to it lead to, and it is in force."""
        decided = self.decided[snapshot.group]
        for index in range(snapshot.index, 0, -1):
            if decided[index].entry.kind == KIND_CONFIG:
                right = Membership.decode(decided[index].entry.payload)
                brought = Membership.decode(snapshot.membership)
                if right not in (brought, membership) or brought != membership:
                    raise Violation(f"{snapshot} brings {brought}, in force is {membership}, decided {right}")
                return

    def confirms(self, group: int, index: int, payload: bytes) -> None:
        """A proposal is confirmed once, where it lies."""
        if self.confirmed.setdefault(payload, (group, index)) != (group, index):
            raise Violation(f"{payload!r} is confirmed at {self.confirmed[payload]} and at {(group, index)}")
        decided = self.decided[group][index].entry
        if decided.payload != payload or decided.kind in (KIND_NOOP, KIND_CONFIG):
            raise Violation(f"{payload!r} is confirmed at {index}, where {decided} was decided")

    def leaves(self, node: int, boot: int, peer: int, message: Message, disk: Disk, damaged: bool) -> None:
        """Nothing is claimed before it is on disk."""
        if isinstance(message, Vote):
            self._vote(node, node, message.group, message.term, disk)
        elif isinstance(message, VoteResponse) and message.granted:
            self._vote(node, peer, message.group, message.term, disk)
        elif isinstance(message, AppendResponse) and message.success:
            store = disk.durable.get(message.group)
            if store is None:
                if message.match_index:
                    raise Violation(f"node {node} acknowledges {message} and has nothing on disk")
                return
            if store.hard.term == message.term and not store.reaches(message.match_index):
                raise Violation(
                    f"node {node} acknowledges {message.match_index} of group {message.group},"
                    f" on its disk are entries to {store.last}"
                )
        if damaged and (
            (isinstance(message, VoteResponse | PreVoteResponse) and message.granted)
            or isinstance(message, Vote)
        ):
            raise Violation(f"damaged node {node} says {message}")
        if isinstance(message, SnapshotResponse) and message.boot != boot:
            raise Violation(f"node {node} answers under another boot")

    def counted(self, group: int, commit: Entry, term: int, node: int) -> None:
        """A leader commits by counting only up to an entry of its own term."""
        if commit.term != term:
            raise Violation(f"group {group}: node {node} leads term {term} and commits up to {commit}")

    def _vote(self, node: int, candidate: int, group: int, term: int, disk: Disk) -> None:
        if self.votes.setdefault((group, node, term), candidate) != candidate:
            earlier = self.votes[group, node, term]
            raise Violation(f"group {group} term {term}: node {node} votes for {earlier} and {candidate}")
        store = disk.durable.get(group)
        hard = store.hard if store is not None else None
        if hard is None or hard.term < term or (hard.term == term and hard.vote != candidate):
            raise Violation(
                f"node {node} votes for {candidate} in term {term} of group {group}, on disk is {hard}"
            )
