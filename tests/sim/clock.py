"""Virtual time: events happen in the order of their times, nothing waits."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """A heap of things to do."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = 0
        self.events = 0

    def at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        """Call ``action(*arguments)`` at ``when``."""
        self._serial += 1
        heapq.heappush(self._heap, (max(when, self.now), self._serial, action, arguments))

    def after(self, delay: float, action: Callable[..., None], *arguments: Any) -> None:
        """Call ``action(*arguments)`` in ``delay`` seconds."""
        self.at(self.now + delay, action, *arguments)

    def run_until(self, end: float) -> None:
        """Let everything up to ``end`` happen."""
        heap = self._heap
        while heap and heap[0][0] <= end:
            self.now, _, action, arguments = heapq.heappop(heap)
            self.events += 1
            action(*arguments)
        self.now = end
