"""What the log knows of a group in memory: ranges, not entries."""

from __future__ import annotations

from dataclasses import dataclass, field

from brokers.engine.core.raft.records import Entry, HardState, Snapshot
from brokers.engine.storage.table import SnapshotPlace


@dataclass(slots=True)
class Span:
    """Entries ``first`` to ``last`` of a group lie in segment ``segment``."""

    first: int
    last: int
    segment: int


@dataclass(slots=True)
class GroupLog:
    """A group's state in the order of ``append``, which the disk follows."""

    group: int
    spans: list[Span] = field(default_factory=list)
    """Written entries, ascending; gaps are allowed below the snapshot."""
    recent: dict[int, Entry] = field(default_factory=dict)
    """Entries in the tail cache; unwritten ones are in no span yet."""
    last: int = 0
    """The highest index present, or the snapshot's when there is none above it."""
    terms: list[tuple[int, int]] = field(default_factory=list)
    """(first index, term) of every run of equal terms, ascending."""
    configs: list[int] = field(default_factory=list)
    """Indexes of the entries that change the membership, ascending."""
    hard: HardState | None = None
    hard_written: HardState | None = None
    """The hard state written last, which lies in ``hard_segment`` (0: none was)."""
    hard_segment: int = 0
    waiting: list[Snapshot] = field(default_factory=list)
    """Snapshots appended and not yet written, oldest first."""
    snapshot: SnapshotPlace | None = None
    """The snapshot written last, which lies in ``snapshot_segment`` (0: none was)."""
    snapshot_segment: int = 0
    base: tuple[int, int] = (0, 0)
    """(index, term) of the snapshot appended last."""
    released: int = 0
    """Entries below are no longer needed."""
    damaged: int | None = None
    """The first index lost to damage, until the group is repaired."""
    hurt: bool = False
    """The log says that the group is damaged."""

    def first(self) -> int:
        """The lowest index from which on all entries up to ``last`` are there."""
        first = self.last + 1
        while first - 1 in self.recent:
            first -= 1
        for span in reversed(self.spans):
            if span.last < first - 1:
                break
            first = min(first, span.first)
        return first

    def lowest(self) -> int:
        """The lowest index present, ``last + 1`` when there is none."""
        lowest = min(self.recent, default=self.last + 1)
        return min(lowest, self.spans[0].first) if self.spans else lowest

    def hole(self, first: int, last: int) -> int | None:
        """The first index in [first, last] that was not written."""
        for span in self.spans:
            if first > last or span.first > first:
                break
            first = max(first, span.last + 1)
        return first if first <= last else None

    def term_at(self, index: int) -> int | None:
        """The term of an entry in the log, None when the log cannot tell."""
        if index == self.base[0]:
            return self.base[1]
        if not self.first() <= index <= self.last:
            return None
        for first, term in reversed(self.terms):
            if first <= index:
                return term
        return None

    def span_of(self, index: int) -> Span | None:
        """The span that holds ``index``."""
        low, high = 0, len(self.spans)
        while low < high:
            middle = (low + high) // 2
            if self.spans[middle].last < index:
                low = middle + 1
            else:
                high = middle
        if low < len(self.spans) and self.spans[low].first <= index:
            return self.spans[low]
        return None
