"""The last minutes of a few numbers, kept small: what the charts are drawn from."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple

SPAN: Final = 300.0
"""Seconds that a chart shows."""
STEP: Final = 2.0
"""Seconds between samples."""


class Sample(NamedTuple):
    """One point in time: messages ready and unacknowledged, and messages per second in and out."""

    at: float
    ready: float
    unacked: float
    publish: float
    deliver: float


WIDTH: Final = len(Sample._fields)


class History:
    """Samples of one queue (or of the whole cluster), oldest first.

    A sample is only taken when a value changed; a value holds until the next sample. So an idle queue costs
    nothing after its first sample, and a busy one 3 KiB.
    """

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values = array("f")

    def add(self, sample: Sample) -> None:
        """Append ``sample`` and forget what no chart reaches any more. Times must not go backwards."""
        values = self._values
        if len(values) >= WIDTH and tuple(values[-WIDTH + 1 :]) == tuple(array("f", sample[1:])):
            return
        values.extend(sample)
        # The newest sample older than the span stays: its value holds at the chart's left edge.
        drop = 0
        while len(values) - drop > WIDTH and values[drop + WIDTH] < sample.at - SPAN:
            drop += WIDTH
        if drop:
            del values[:drop]

    def __len__(self) -> int:
        return len(self._values) // WIDTH

    def __iter__(self) -> Iterator[Sample]:
        values = self._values[:]  # a copy: the watcher may append meanwhile
        for start in range(0, len(values), WIDTH):
            yield Sample(*values[start : start + WIDTH])
