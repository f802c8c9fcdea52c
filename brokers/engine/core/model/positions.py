"""From a message's position to the log entry that holds it, with memory per run of like entries."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple


class Location(NamedTuple):
    """The entry that holds a position: its log index, its first position, how many it holds."""

    entry: int
    base: int
    size: int


class PositionIndex:
    """Publish entries in order; consecutive ones of equal size and equal distance share one run."""

    __slots__ = ("_bases", "_counts", "_entries", "_indexes", "_strides")

    def __init__(self, flat: Iterable[int] = ()) -> None:
        values = list(flat)
        self._bases = values[0::5]
        """First position of each run."""
        self._indexes = values[1::5]
        """Log index of each run's first entry."""
        self._strides = values[2::5]
        """Distance of log indexes within the run."""
        self._counts = values[3::5]
        """Messages in each entry of the run."""
        self._entries = values[4::5]
        """Entries in the run."""

    def flat(self) -> list[int]:
        """Everything as one list of integers, from which ``PositionIndex(flat)`` makes it anew."""
        return [
            value
            for run in zip(
                self._bases, self._indexes, self._strides, self._counts, self._entries, strict=True
            )
            for value in run
        ]

    def __len__(self) -> int:
        """How many runs are kept."""
        return len(self._bases)

    def append(self, base: int, index: int, count: int) -> None:
        """The entry at log ``index`` holds positions [base, base + count)."""
        if self._bases:
            entries = self._entries[-1]
            if self._counts[-1] == count and self._bases[-1] + entries * count == base:
                distance = index - self._indexes[-1]
                if entries == 1:
                    self._strides[-1] = distance
                    self._entries[-1] = 2
                    return
                if distance == entries * self._strides[-1]:
                    self._entries[-1] = entries + 1
                    return
        self._bases.append(base)
        self._indexes.append(index)
        self._strides.append(1)
        self._counts.append(count)
        self._entries.append(1)

    def find(self, position: int) -> Location:
        """Raises ``LookupError`` when no known entry holds ``position``."""
        at = bisect_right(self._bases, position) - 1
        if at >= 0:
            count = self._counts[at]
            nth = (position - self._bases[at]) // count
            if nth < self._entries[at]:
                return Location(
                    self._indexes[at] + nth * self._strides[at], self._bases[at] + nth * count, count
                )
        raise LookupError(f"no log entry holds position {position}; it was released or never published")

    def trim(self, position: int) -> None:
        """Forget runs that lie wholly below ``position``."""
        keep = bisect_right(self._bases, position) - 1
        if keep > 0:
            for column in (self._bases, self._indexes, self._strides, self._counts, self._entries):
                del column[:keep]
