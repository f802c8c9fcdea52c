"""What one segment holds, group by group: where each entry lies, and what the segment does to older ones.

Filled in the order of the records on disk, while a segment is written or scanned; ``sidecar`` keeps it in a
file once the segment is closed. Applying the tables of all segments in order gives the same state as
replaying all records.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple, Protocol

from brokers.engine.core.raft.records import KIND_CONFIG


class SnapshotPlace(NamedTuple):
    """A snapshot's position in the log and where its record lies in the segment."""

    index: int  # type: ignore[assignment]  # the word of Raft, and nobody looks up values in a place
    term: int
    keep_from: int
    offset: int
    length: int


class Run(NamedTuple):
    """Consecutive entries of a group: offset and payload length of ``first + i`` at ``[i]``."""

    first: int
    offsets: array[int]
    lengths: array[int]

    @property
    def last(self) -> int:
        return self.first + len(self.offsets) - 1


class GroupSummary(NamedTuple):
    """What a segment says of one group, without the places of the entries."""

    group: int
    gone: bool
    """The group was removed in this segment: everything of it in older segments is void."""
    fixed: bool
    """The group was repaired from its peers in this segment: older losses are void."""
    hurt: int | None
    """The group was found damaged from this index on, and is not repaired by the segment's end."""
    cut: int | None
    """Entries of older segments from this index on were replaced."""
    hard: tuple[int, int] | None
    """The last (term, vote) in this segment."""
    snapshot: SnapshotPlace | None
    runs: list[tuple[int, int]]
    """(first, last) of every run of entries, ascending."""
    terms: list[tuple[int, int]]
    """(first index, term) of every run of equal terms."""
    configs: list[int]
    """Indexes of the entries that change the membership."""


class Index(Protocol):
    """Look-up of what a segment holds: a ``SegmentTable`` in memory or a ``Sidecar`` on disk."""

    def groups(self) -> list[int]:
        """All groups the segment mentions, ascending."""
        ...

    def mentions(self, group: int) -> bool:
        """Whether the segment holds any record of ``group``."""
        ...

    def summary(self, group: int) -> GroupSummary:
        """What the segment says of ``group``; raises ``KeyError`` when it says nothing."""
        ...

    def place(self, group: int, index: int) -> tuple[int, int]:
        """(offset, payload length) of an entry's record; raises ``KeyError`` when it isn't here."""
        ...


class GroupTable:
    """One group in one segment."""

    __slots__ = ("configs", "cut", "fixed", "gone", "hard", "hurt", "runs", "snapshot", "terms")

    def __init__(self) -> None:
        self.gone = False
        self.fixed = False
        self.hurt: int | None = None
        self.cut: int | None = None
        self.hard: tuple[int, int] | None = None
        self.snapshot: SnapshotPlace | None = None
        self.runs: list[Run] = []
        self.terms: list[tuple[int, int]] = []
        self.configs: list[int] = []

    def void(self, index: int) -> None:
        """Entries from ``index`` on are replaced, here and in older segments."""
        if self.cut is None or index < self.cut:
            self.cut = index
        if self.snapshot is not None and self.snapshot.index >= index:
            self.snapshot = None
        self.trim(index)

    def trim(self, index: int) -> None:
        """Forget the entries from ``index`` on."""
        runs = self.runs
        while runs and runs[-1].last >= index:
            run = runs[-1]
            if run.first >= index:
                runs.pop()
                continue
            del run.offsets[index - run.first :]
            del run.lengths[index - run.first :]
        terms = self.terms
        while terms and terms[-1][0] >= index:
            terms.pop()
        while self.configs and self.configs[-1] >= index:
            self.configs.pop()

    def entry(self, index: int, term: int, kind: int, offset: int, length: int) -> None:
        """An entry's record lies at ``offset``."""
        runs = self.runs
        if not runs or runs[-1].last != index - 1:
            self.trim(index)
            if not runs or runs[-1].last != index - 1:
                runs.append(Run(index, array("I"), array("I")))
                self.terms.append((index, term))
        run = runs[-1]
        run.offsets.append(offset)
        run.lengths.append(length)
        if self.terms[-1][1] != term:
            self.terms.append((index, term))
        if kind == KIND_CONFIG:
            self.configs.append(index)


class SegmentTable:
    """The table of a segment that is being written or was scanned."""

    def __init__(self) -> None:
        self.tables: dict[int, GroupTable] = {}
        self.listed: list[int] | None = None
        """The segments that exist, as last listed in this one."""

    def _of(self, group: int) -> GroupTable:
        table = self.tables.get(group)
        if table is None:
            table = self.tables[group] = GroupTable()
        return table

    def entry(self, group: int, index: int, term: int, kind: int, offset: int, length: int) -> None:
        """An entry was written."""
        self._of(group).entry(index, term, kind, offset, length)

    def lost(self, group: int, index: int) -> None:
        """An entry was written and is damaged."""
        self._of(group).trim(index)

    def void(self, group: int, index: int) -> None:
        """Entries from ``index`` on were declared void."""
        self._of(group).void(index)

    def hard(self, group: int, term: int, vote: int) -> None:
        """A hard state was written."""
        self._of(group).hard = (term, vote)

    def snapshot(self, group: int, place: SnapshotPlace, discards: bool) -> None:
        """A snapshot was written."""
        table = self._of(group)
        if discards:
            table.void(place.index + 1)
        table.snapshot = place

    def gone(self, group: int) -> None:
        """A removal was written."""
        table = self.tables[group] = GroupTable()
        table.gone = True

    def fixed(self, group: int) -> None:
        """The end of a repair was written."""
        table = self._of(group)
        table.fixed, table.hurt = True, None

    def hurt(self, group: int, index: int) -> None:
        """The group was found damaged."""
        self._of(group).hurt = index

    def groups(self) -> list[int]:
        return sorted(self.tables)

    def mentions(self, group: int) -> bool:
        return group in self.tables

    def summary(self, group: int) -> GroupSummary:
        table = self.tables[group]
        return GroupSummary(
            group,
            table.gone,
            table.fixed,
            table.hurt,
            table.cut,
            table.hard,
            table.snapshot,
            [(run.first, run.last) for run in table.runs],
            list(table.terms),
            list(table.configs),
        )

    def place(self, group: int, index: int) -> tuple[int, int]:
        for run in reversed(self.tables[group].runs):
            if run.first <= index <= run.last:
                return run.offsets[index - run.first], run.lengths[index - run.first]
        raise KeyError(index)
