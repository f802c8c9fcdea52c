"""Sets of positions kept as intervals, for sets that are nearly contiguous.

What a queue has settled is "everything below here, and a few stretches above": memory per stretch, not
per message.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class IntervalSet:
    """A set of non-negative integers: all below ``floor``, and disjoint half-open stretches above it.

    ``floor`` rises by itself when the lowest stretch touches it.
    """

    __slots__ = ("_ends", "_starts", "above", "floor")

    def __init__(self, floor: int = 0, stretches: Iterable[tuple[int, int]] = ()) -> None:
        self.floor = floor
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.above = 0
        """How many members lie above ``floor``."""
        for start, end in stretches:
            self.add(start, end)

    def __contains__(self, position: int) -> bool:
        if position < self.floor:
            return True
        at = bisect_right(self._starts, position) - 1
        return at >= 0 and position < self._ends[at]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IntervalSet):
            return NotImplemented
        return (self.floor, self._starts, self._ends) == (other.floor, other._starts, other._ends)

    def __repr__(self) -> str:
        return f"IntervalSet({self.floor}, {self.stretches()})"

    __hash__ = None  # type: ignore[assignment]  # mutable

    def stretches(self) -> list[tuple[int, int]]:
        """The stretches above ``floor`` as (start, end) with ``end`` excluded, ascending."""
        return list(zip(self._starts, self._ends, strict=True))

    def add(self, start: int, end: int) -> int:
        """Add [start, end); the number of members that are new."""
        if start < self.floor:
            start = self.floor
        if end <= start:
            return 0
        starts, ends = self._starts, self._ends
        if start == self.floor and (not starts or end < starts[0]):
            self.floor = end
            return end - start
        low = bisect_left(ends, start)
        high = bisect_right(starts, end)
        covered = sum(ends[i] - starts[i] for i in range(low, high))
        if low < high:
            start = min(start, starts[low])
            end = max(end, ends[high - 1])
        starts[low:high] = [start]
        ends[low:high] = [end]
        added = end - start - covered
        self.above += added
        if starts[0] == self.floor:
            self.floor = ends[0]
            self.above -= ends[0] - starts[0]
            del starts[0], ends[0]
        return added

    def gaps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The stretches of [start, end) that are *not* in the set, ascending."""
        start = max(start, self.floor)
        at = bisect_right(self._ends, start)
        while start < end:
            if at == len(self._starts) or self._starts[at] >= end:
                yield start, end
                return
            if self._starts[at] > start:
                yield start, self._starts[at]
            start = self._ends[at]
            at += 1

    def next_gap(self, start: int, end: int) -> tuple[int, int]:
        """The first stretch of [start, end) that is not in the set; (end, end) when there is none."""
        if start < self.floor:
            start = self.floor
        if not self._starts:
            return (start, end) if start < end else (end, end)
        for gap in self.gaps(start, end):
            return gap
        return end, end


def runs(positions: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending positions as half-open runs: [3, 4, 5, 9] is [(3, 6), (9, 10)].

    Positions that are not ascending start a run of their own.
    """
    found: list[tuple[int, int]] = []
    start = end = -1
    for position in positions:
        if position == end:
            end += 1
            continue
        if end >= 0:
            found.append((start, end))
        start, end = position, position + 1
    if end >= 0:
        found.append((start, end))
    return found
