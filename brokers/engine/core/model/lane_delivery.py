"""The hand-out of a priority queue: the highest lane first, whatever came back included."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappush

from brokers.engine.core.model.delivery import Dispatcher
from brokers.engine.core.model.entries import Run
from brokers.engine.core.model.intervals import runs
from brokers.engine.core.model.lanes import LaneCursors, Lanes
from brokers.engine.core.model.queue_state import QueueState


def dispatcher(state: QueueState) -> Dispatcher:
    """The dispatcher that ``state`` asks for."""
    return Dispatcher(state) if state.lanes is None else LaneDispatcher(state, state.lanes)


class LaneDispatcher(Dispatcher):
    """A dispatcher with a cursor in each lane instead of a single one."""

    def __init__(self, state: QueueState, lanes: Lanes) -> None:
        super().__init__(state)
        self._lanes = lanes
        self._cursors = LaneCursors(lanes, state.settled.floor)

    @property
    def cursor(self) -> int:
        """What is handed out next may be anywhere, so that the watermark has to be ahead of everything."""
        return self.state.next_position

    def _ahead(self, position: int) -> bool:
        return not self._cursors.passed(position)

    def _take(self, limit: int, fenced: bool) -> tuple[int, int, bool] | None:
        state = self.state
        ceiling = min(state.next_position, state.watermark) if fenced else state.next_position
        if self.held:
            self.held = {p for p in self.held if self._ahead(p)}
        back = self._best_returned()
        if back is not None:
            urgent = self._first_above(self._lanes.priority_at(back), ceiling)
            if urgent is None:
                self._returned.remove(back)
                heapify(self._returned)
                self._again = True
                return back, back + 1, True
        self._again = False
        run = self._cursors.take(limit, ceiling, state.settled.next_gap, self.held)
        if run is None:
            return None
        first, end = run
        redelivered = first < self.fence
        if redelivered and end > self.fence:
            end = self.fence
            self._cursors.leave(end)
        return first, end, redelivered

    def _best_returned(self) -> int | None:
        """Of what came back, the oldest of the highest priority."""
        gone = [p for p in self._returned if p in self.state.settled or p in self.state.dying]
        if gone:
            self._returned = [p for p in self._returned if p not in set(gone)]
            heapify(self._returned)
        return min(self._returned, key=lambda p: (-self._lanes.priority_at(p), p), default=None)

    def _first_above(self, priority: int, ceiling: int) -> int | None:
        """Something fresh of a higher priority than ``priority``, if there is any."""
        for first, end in self._cursors.pending(ceiling):
            if self._lanes.priority_at(first) <= priority:
                return None
            for low, high in self.state.settled.gaps(first, end):
                for position in range(low, high):
                    if position not in self.held:
                        return position
        return None

    def _leave(self, first: int, end: int) -> None:
        if self._again:
            for position in range(first, end):
                heappush(self._returned, position)
        elif first < end:
            self._cursors.leave(first)

    def _fresh(self) -> Iterator[Run]:
        for first, end in self._cursors.pending(self.state.next_position):
            for low, high in self.state.settled.gaps(first, end):
                yield from runs(p for p in range(low, high) if p not in self.held)

    def ready_runs(self) -> list[Run]:
        """See ``Dispatcher``."""
        back = runs(sorted(p for p in self._returned if p not in self.state.settled))
        return sorted([*back, *self._fresh()])

    def drop_ready(self) -> list[Run]:
        """See ``Dispatcher``."""
        dropped = super().drop_ready()
        self._cursors.skip_to(self.state.next_position)
        return dropped

    def blocked_by_watermark(self) -> bool:
        """See ``Dispatcher``."""
        state = self.state
        waiting = any(end > state.watermark for _, end in self._fresh())
        return not self._returned and state.watermark < state.next_position and waiting
