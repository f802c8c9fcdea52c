"""Charts as SVG, drawn by the server: the same partial at load and live, and no code in the browser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from brokers.live.history import SPAN, STEP, History, Sample

WIDTH: Final = 600
HEIGHT: Final = 100
_GAP: Final = 1.6 * STEP
"""Further apart than this, a value held between two samples instead of moving evenly."""


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: its name, its CSS class, its newest value and its points in SVG's notation."""

    name: str
    css: str
    latest: float
    points: str
    area: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A few curves over one time line, on one scale from zero to ``top``."""

    title: str
    unit: str
    lines: Sequence[Line]
    top: float
    width: int = WIDTH
    height: int = HEIGHT
    minutes: int = round(SPAN / 60)

    @property
    def middle(self) -> float:
        """The value at half height."""
        return self.top / 2


Curve = tuple[str, str, Callable[[Sample], float]]
"""Name, CSS class, and which of a sample's numbers."""

DEPTH: Final[Sequence[Curve]] = (
    ("ready", "line-ready", lambda sample: sample.ready),
    ("unacknowledged", "line-unacked", lambda sample: sample.unacked),
)
RATES: Final[Sequence[Curve]] = (
    ("published", "line-publish", lambda sample: sample.publish),
    ("delivered", "line-deliver", lambda sample: sample.deliver),
)


def chart(title: str, unit: str, curves: Sequence[Curve], history: History | None, now: float) -> Chart:
    """The last minutes of ``history`` up to ``now`` (seconds on the history's time line)."""
    samples = list(history or ())
    top = _round_up(max((pick(sample) for sample in samples for _, _, pick in curves), default=0.0))
    lines = []
    for name, css, pick in curves:
        points = [(_x(at, now), _y(value, top)) for at, value in _held(samples, pick, now)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        area = f"{points[0][0]:.1f},{HEIGHT} {path} {points[-1][0]:.1f},{HEIGHT}" if points else ""
        lines.append(Line(name, css, pick(samples[-1]) if samples else 0.0, path, area))
    return Chart(title, unit, lines, top)


def _held(
    samples: Sequence[Sample], pick: Callable[[Sample], float], now: float
) -> Iterable[tuple[float, float]]:
    left = now - SPAN
    before: tuple[float, float] | None = None
    for at, value in ((sample.at, pick(sample)) for sample in samples):
        if before is not None and at > left:
            if before[0] < left:
                yield left, before[1]
            if at - before[0] > _GAP and at - STEP > left:
                yield at - STEP, before[1]
        if at >= left:
            yield at, value
        before = (at, value)
    if before is not None:
        if before[0] < left:
            yield left, before[1]
        yield now, before[1]


def _x(at: float, now: float) -> float:
    return WIDTH * (1 - (now - at) / SPAN)


def _y(value: float, top: float) -> float:
    return HEIGHT * (1 - value / top)


def _round_up(value: float) -> float:
    """The next number that reads well on an axis: 10, 20, 50, 100, 200, 500 ..."""
    if value <= 10:
        return 10.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if value <= step * power * 1.0001)
