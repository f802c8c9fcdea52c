"""What consensus knows of a group's log: indexes and terms, never payloads."""

from __future__ import annotations

from bisect import bisect_right

Runs = list[tuple[int, int]]


class LogIndex:
    """The extent and the terms of a log, run-length encoded.

    ``first``..``last`` are present; the snapshot covers everything up to ``snapshot_index`` (entries below
    that may still be present: they are the snapshot's data). ``base_term`` is the term at ``first`` - 1, None
    when it is not known.
    """

    __slots__ = (
        "_starts",
        "_terms",
        "base_term",
        "first",
        "last",
        "last_term",
        "snapshot_index",
        "snapshot_term",
    )

    def __init__(self) -> None:
        self.snapshot_index = 0
        self.snapshot_term = 0
        self._starts: list[int] = []
        self._terms: list[int] = []
        self.first = 1
        self.last = 0
        self.last_term = 0
        self.base_term: int | None = 0

    def reset(
        self,
        snapshot_index: int,
        snapshot_term: int,
        base_term: int | None,
        runs: Runs,
        first: int,
        last: int,
    ) -> None:
        """Become the log of a snapshot and the entries ``first``..``last`` with the terms ``runs``."""
        self.snapshot_index, self.snapshot_term = snapshot_index, snapshot_term
        self.first, self.last, self.base_term = first, last, base_term
        self._starts = [start for start, _ in runs]
        self._terms = [term for _, term in runs]
        self._set_last_term()

    def _set_last_term(self) -> None:
        if self._terms:
            self.last_term = self._terms[-1]
        elif self.last == self.snapshot_index:
            self.last_term = self.snapshot_term
        else:
            self.last_term = self.base_term or 0

    def term(self, index: int) -> int | None:
        """The term of the entry at ``index``; None when it is not known any more or not yet."""
        if index == self.last:
            return self.last_term
        if index > self.last:
            return None
        if index >= self.first:
            return self._terms[bisect_right(self._starts, index) - 1]
        if index == self.snapshot_index:
            return self.snapshot_term
        if index == self.first - 1:
            return self.base_term
        return None

    def append(self, term: int) -> int:
        """One more entry of ``term``; returns its index."""
        self.last += 1
        if term != self.last_term or not self._starts:
            self._starts.append(self.last)
            self._terms.append(term)
            self.last_term = term
        return self.last

    def truncate(self, index: int) -> None:
        """Forget the entry at ``index`` and everything after it. Raises ``ValueError`` below ``first``."""
        if index < self.first:
            raise ValueError(f"cannot truncate at {index}: the log starts at {self.first}")
        self.last = min(self.last, index - 1)
        while self._starts and self._starts[-1] > self.last:
            self._starts.pop()
            self._terms.pop()
        self._set_last_term()

    def compact(self, snapshot_index: int, snapshot_term: int, first: int) -> None:
        """A snapshot at ``snapshot_index`` exists and entries below ``first`` may go."""
        self.snapshot_index, self.snapshot_term = snapshot_index, snapshot_term
        if first <= self.first:
            return
        self.base_term = self.term(first - 1)
        keep = max(bisect_right(self._starts, first) - 1, 0)
        del self._starts[:keep], self._terms[:keep]
        self.first = first
        if self.last < first:
            self._starts.clear()
            self._terms.clear()
        else:
            self._starts[0] = first
        self._set_last_term()

    def runs(self, low: int, high: int) -> Runs:
        """(first index, term) runs of ``low``..``high``; empty where that is not wholly known."""
        found: Runs = []
        if low > high or self.term(low) is None or high > self.last:
            return found
        if low < self.first:
            found.append((low, self.term(low) or 0))
            low += 1
            if low < self.first:
                return []
        if low > high:
            return found
        at = bisect_right(self._starts, low) - 1
        while at < len(self._starts) and self._starts[at] <= high:
            found.append((max(self._starts[at], low), self._terms[at]))
            at += 1
        return merge(found)

    def run_start(self, index: int) -> int:
        """The first entry of the run of equal terms that ``index`` lies in."""
        if index < self.first:
            return index
        return self._starts[bisect_right(self._starts, index) - 1]

    def possible_match(self, index: int, term: int) -> tuple[int, int]:
        """The highest (index, term) not above ``index`` whose term is not above ``term``.

        Everything higher conflicts for certain with a log that has ``term`` at ``index``. Ends at
        ``first`` - 1, with term 0 where the term is not known.
        """
        index = min(index, self.last)
        while index >= self.first:
            at = bisect_right(self._starts, index) - 1
            if self._terms[at] <= term:
                return index, self._terms[at]
            index = self._starts[at] - 1
        return index, self.term(index) or 0


def merge(runs: Runs) -> Runs:
    """``runs`` without those that only continue the one before."""
    merged: Runs = []
    for start, term in runs:
        if not merged or merged[-1][1] != term:
            merged.append((start, term))
    return merged


def clip(runs: Runs, low: int) -> Runs:
    """``runs`` from ``low`` on."""
    kept = [(start, term) for start, term in runs if start > low]
    before = [term for start, term in runs if start <= low]
    return [(low, before[-1]), *kept] if before else kept
