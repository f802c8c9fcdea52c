"""How far back a queue's settled messages are kept for replay and for consuming from an offset.

Marks note where the log stood every few megabytes or seconds, so that "the last hour" and "the last GiB" are
found without a note per message. They follow from the log alone and are equal on all replicas; what each
replica keeps by them is its own affair.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

MARK_BYTES = 8 << 20
MARK_MILLISECONDS = 10_000
"""A mark is set when either has passed since the last."""
MAX_MARKS = 20_000
"""Older marks are thinned out beyond: every second of the older half goes."""


class Mark(NamedTuple):
    """``position`` was about to be published when ``size`` bytes had been, at ``stamp`` (ms since 1970)."""

    position: int
    size: int
    stamp: int


class Marks:
    """The marks of one queue, ascending."""

    __slots__ = ("_marks", "total")

    def __init__(self, marks: Iterable[Mark] = (), total: int = 0) -> None:
        self._marks = list(marks)
        self.total = total
        """Bytes ever published."""

    def __iter__(self) -> Iterator[Mark]:
        return iter(self._marks)

    def __len__(self) -> int:
        return len(self._marks)

    def publish(self, position: int, size: int, stamp: int) -> None:
        """Messages of ``size`` bytes are published from ``position`` on."""
        last = self._marks[-1] if self._marks else None
        if last is None or self.total - last.size >= MARK_BYTES or stamp - last.stamp >= MARK_MILLISECONDS:
            self._marks.append(Mark(position, self.total, stamp))
            if len(self._marks) > MAX_MARKS:
                half = MAX_MARKS // 2
                self._marks[:half] = self._marks[:half:2]
        self.total += size

    def keep_from(self, max_bytes: int, max_age: int, now: int) -> int | None:
        """The first position of what lies within ``max_bytes`` and ``max_age`` (ms) before ``now``.

        None when nothing has to be kept. What is kept reaches back to the mark at or before the limit, so
        that it is a little more rather than less.
        """
        if max_bytes <= 0 or max_age <= 0 or not self._marks:
            return None
        by_size = bisect_right(self._marks, self.total - max_bytes, key=lambda mark: mark.size)
        by_age = bisect_right(self._marks, now - max_age, key=lambda mark: mark.stamp)
        at = max(by_size, by_age) - 1
        if at == len(self._marks) - 1 and by_age == len(self._marks):
            return None
        return self._marks[max(0, at)].position

    def at_time(self, stamp: int) -> Mark | None:
        """The last mark not after ``stamp`` (ms), the first one when all are; None when there are none."""
        if not self._marks:
            return None
        return self._marks[max(0, bisect_right(self._marks, stamp, key=lambda mark: mark.stamp) - 1)]

    def forget_below(self, position: int) -> None:
        """Marks that lie wholly below ``position`` are of no more use."""
        at = bisect_right(self._marks, position, key=lambda mark: mark.position) - 1
        if at > 0:
            del self._marks[:at]

    def flat(self) -> list[int]:
        """As plain integers, for a snapshot."""
        return [value for mark in self._marks for value in mark]

    @classmethod
    def load(cls, flat: list[int], total: int) -> Marks:
        """What ``flat`` gave."""
        triples = zip(flat[0::3], flat[1::3], flat[2::3], strict=True)
        return cls((Mark(*triple) for triple in triples), total)
