"""A priority queue's messages by priority: one lane each, in order of publishing within a lane.

Every replica keeps them (positions only), so that a new leader need not read the backlog to know the order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from struct import Struct

from brokers.engine.core.model.entries import Run
from brokers.engine.core.model.intervals import IntervalSet

PRIORITY_FLAG = 0x0800
_properties = Struct(">HHQH")
_SHORT_STRINGS_BEFORE = (0x8000, 0x4000)
HEADERS_FLAG = 0x2000
_DELIVERY_MODE_FLAG = 0x1000


def priority_of(header: bytes, highest: int) -> int:
    """The ``priority`` property of a content header (AMQP 0-9-1, 4.2.6), 0 when it has none.

    ``highest`` caps it, as RabbitMQ does. The header was found sound when it was published.
    """
    flags = _properties.unpack_from(header)[3]
    if not flags & PRIORITY_FLAG:
        return 0
    at = _properties.size
    for flag in _SHORT_STRINGS_BEFORE:
        if flags & flag:
            at += 1 + header[at]
    if flags & HEADERS_FLAG:
        at += 4 + int.from_bytes(header[at : at + 4], "big")
    if flags & _DELIVERY_MODE_FLAG:
        at += 1
    return min(header[at], highest)


class Lanes:
    """Positions by priority. What was settled is forgotten by and by."""

    __slots__ = ("_ends", "_starts", "highest")

    def __init__(self, highest: int) -> None:
        self.highest = highest
        self._starts: list[list[int]] = [[] for _ in range(highest + 1)]
        self._ends: list[list[int]] = [[] for _ in range(highest + 1)]

    def publish(self, base: int, priorities: Sequence[int]) -> None:
        """Messages with these priorities are at ``base`` and on."""
        for position, priority in enumerate(priorities, base):
            starts, ends = self._starts[priority], self._ends[priority]
            if ends and ends[-1] == position:
                ends[-1] = position + 1
            else:
                starts.append(position)
                ends.append(position + 1)

    def runs(self, priority: int, start: int) -> Iterator[Run]:
        """The runs of one lane from position ``start`` on."""
        starts, ends = self._starts[priority], self._ends[priority]
        at = bisect_right(ends, start)
        while at < len(starts):
            yield max(start, starts[at]), ends[at]
            at += 1

    def priority_at(self, position: int) -> int:
        """The lane that ``position`` is in; 0 for one that is not known any more."""
        for priority in range(self.highest, -1, -1):
            at = bisect_right(self._starts[priority], position) - 1
            if at >= 0 and position < self._ends[priority][at]:
                return priority
        return 0

    def forget(self, settled: IntervalSet) -> None:
        """Drop runs that lie wholly below what is settled for good."""
        for starts, ends in zip(self._starts, self._ends, strict=True):
            at = bisect_right(ends, settled.floor)
            del starts[:at], ends[:at]

    def flat(self) -> list[list[int]]:
        """Per lane, its runs as plain integers."""
        return [
            [value for run in zip(starts, ends, strict=True) for value in run]
            for starts, ends in zip(self._starts, self._ends, strict=True)
        ]

    @classmethod
    def load(cls, flat: list[list[int]]) -> Lanes:
        """What ``flat`` gave."""
        lanes = cls(len(flat) - 1)
        lanes._starts = [values[0::2] for values in flat]
        lanes._ends = [values[1::2] for values in flat]
        return lanes


class LaneCursors:
    """How far a leader has come in each lane."""

    __slots__ = ("_lanes", "_last", "_next")

    def __init__(self, lanes: Lanes, floor: int) -> None:
        self._lanes = lanes
        self._last = 0
        self._next = [floor] * (lanes.highest + 1)

    def take(self, limit: int, ceiling: int, gap: Callable[[int, int], Run], held: set[int]) -> Run | None:
        """The next run of the highest lane that has one, at most ``limit`` long and below ``ceiling``.

        ``gap(start, end)`` is the first unsettled stretch of [start, end); what is ``held`` is left out.
        """
        for priority in range(self._lanes.highest, -1, -1):
            for start, stop in self._lanes.runs(priority, self._next[priority]):
                if start >= ceiling:
                    break
                first, end = gap(start, min(stop, ceiling))
                while first < end and first in held:
                    first, end = gap(first + 1, min(stop, ceiling))
                if first >= end:
                    self._next[priority] = min(stop, ceiling)
                    continue
                end = min((p for p in held if first < p < end), default=end)
                end = min(end, first + limit)
                self._next[priority] = end
                self._last = priority
                return first, end
        return None

    def leave(self, position: int) -> None:
        """Undo the end of the last ``take``: it stopped at ``position``."""
        self._next[self._last] = position

    def pending(self, ceiling: int) -> Iterator[Run]:
        """Runs that have not been handed out, of all lanes (settled and held ones included)."""
        for priority in range(self._lanes.highest, -1, -1):
            for start, stop in self._lanes.runs(priority, self._next[priority]):
                if start < ceiling:
                    yield start, min(stop, ceiling)

    def skip_to(self, position: int) -> None:
        """Everything below ``position`` is out of the leader's hands."""
        self._next = [max(at, position) for at in self._next]

    def passed(self, position: int) -> bool:
        """Whether ``position`` was handed out already (or skipped)."""
        return position < self._next[self._lanes.priority_at(position)]
