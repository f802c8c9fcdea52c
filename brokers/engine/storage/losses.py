"""Records that damage took, and which of them still matter.

A lost record stops mattering once a later one makes it void: an entry by one with the same or a lower index
or by a snapshot that no longer refers to it, a hard state or snapshot by a newer one, anything by the group's
removal or by the mark that ends its repair.

That holds for what was written before the loss was found. Once it is found, the group is marked as hurt in
the log, and stays so until its repair ends: a repair overwrites what was lost at its start, but until its end
the member may lack entries that it had acknowledged, and must not vote.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from brokers.engine.storage import format as fmt
from brokers.engine.storage.groups import GroupLog
from brokers.engine.storage.table import GroupSummary


class Damage(NamedTuple):
    """Bytes of the log that are not what was written."""

    path: Path
    offset: int
    length: int
    group: int | None
    """Whose record it was; None: unknown, every group may have lost something."""
    what: str


@dataclass(slots=True)
class _Lost:
    entries: list[tuple[int, int]] = field(default_factory=list)
    hard: bool = False
    snapshot: int | None = None


class Losses:
    """What is lost so far, fed in the order of the log."""

    def __init__(self) -> None:
        self._groups: dict[int, _Lost] = {}
        self._unknown = False
        self._cleared: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._groups) or self._unknown

    def _of(self, group: int) -> _Lost:
        return self._groups.setdefault(group, _Lost())

    # Losses.

    def lost_entries(self, group: int, first: int, last: int) -> None:
        """Entries ``first`` to ``last`` are lost."""
        self.voided(group, first)
        self._of(group).entries.append((first, last))

    def lost_snapshot(self, group: int, index: int) -> None:
        """A snapshot is lost."""
        self._of(group).snapshot = index

    def lost_hard(self, group: int) -> None:
        """A hard state is lost."""
        self._of(group).hard = True

    def lost_unknown(self) -> None:
        """Records are lost, and nothing tells whose."""
        self._unknown = True
        self._cleared = set()

    # What makes them void.

    def voided(self, group: int, index: int) -> None:
        """Entries from ``index`` on were replaced."""
        lost = self._groups.get(group)
        if lost is not None:
            lost.entries = [(a, min(b, index - 1)) for a, b in lost.entries if a < index]
            if lost.snapshot is not None and lost.snapshot >= index:
                lost.snapshot = None

    def snapshot(self, group: int, keep_from: int) -> None:
        """A snapshot that refers to entries from ``keep_from`` on."""
        lost = self._groups.get(group)
        if lost is not None:
            lost.snapshot = None
            lost.entries = [(max(a, keep_from), b) for a, b in lost.entries if b >= keep_from]

    def hard(self, group: int) -> None:
        """A newer hard state."""
        lost = self._groups.get(group)
        if lost is not None:
            lost.hard = False

    def cleared(self, group: int) -> None:
        """The group was removed, or its repair ended."""
        self._groups.pop(group, None)
        self._cleared.add(group)

    def superseded_by(self, summary: GroupSummary) -> None:
        """A later segment says this of a group."""
        group = summary.group
        if summary.gone or summary.fixed:
            self.cleared(group)
        if summary.cut is not None:
            self.voided(group, summary.cut)
        if summary.runs:
            self.voided(group, summary.runs[0][0])
        if summary.snapshot is not None:
            self.snapshot(group, summary.snapshot.keep_from)
        if summary.hard is not None:
            self.hard(group)

    def add(self, later: Losses) -> None:
        """Take over what is lost in a later segment, whose summaries were applied."""
        for group, lost in later._groups.items():
            for first, last in lost.entries:
                self._of(group).entries.append((first, last))
            if lost.hard:
                self.lost_hard(group)
            if lost.snapshot is not None:
                self.lost_snapshot(group, lost.snapshot)
        if later._unknown:
            self._unknown = True
            self._cleared = set(later._cleared)

    # The outcome.

    def groups(self) -> set[int]:
        """Groups named by some loss."""
        return set(self._groups)

    def first_lost(self, group: GroupLog) -> int | None:
        """The first index of the group that cannot be trusted, None when all can."""
        found: list[int] = []
        lost = self._groups.get(group.group)
        base = group.base[0]
        if lost is not None:
            found.extend(first for first, _ in lost.entries)
            if lost.hard:
                found.append(group.last + 1)
            if lost.snapshot is not None and lost.snapshot > base:
                hole = group.hole(base + 1, lost.snapshot)
                found.extend([] if hole is None else [hole])
        if self._unknown and group.group not in self._cleared:
            keep_from = group.snapshot.keep_from if group.snapshot is not None else 1
            hole = group.hole(keep_from, base)
            found.append(base + 1 if hole is None else hole)
        hole = group.hole(base + 1, group.last)
        if hole is not None and found:
            found.append(hole)
        return min(found, default=None)


def note_record(losses: Losses, header: fmt.Header) -> None:
    """An intact record makes older losses void (snapshots: see ``Losses.snapshot``)."""
    if header.type in (fmt.ENTRY, fmt.VOID):
        losses.voided(header.group, header.index)
    elif header.type == fmt.HARD:
        losses.hard(header.group)
    elif header.type in (fmt.GONE, fmt.FIXED):
        losses.cleared(header.group)
