"""Which consumer gets which message: the leader's part of a queue, kept in memory only.

Built anew by every leader from the replicated state and from what the nodes with consumers say they hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from brokers.engine.core.model.entries import Run
from brokers.engine.core.model.intervals import runs
from brokers.engine.core.model.queue_state import QueueState

ConsumerKey = tuple[int, int]
"""(node id, the node's own number for the consumer)."""

WINDOW_BYTES = 8 << 20
"""Bytes on their way to a consumer without a prefetch limit; a turn's hand-out may come on top."""
UNBOUNDED = 1 << 62
CHUNK_LIMIT = 64
"""How many messages one consumer gets in a row while others wait for theirs."""


class Assignment(NamedTuple):
    """Positions [first, end) go to a consumer."""

    slot: Slot
    first: int
    end: int
    redelivered: bool


class Slot:
    """A consumer as the queue's leader sees it. ``credit``: how many more messages it may be sent now."""

    __slots__ = (
        "credit",
        "exclusive",
        "holder",
        "key",
        "no_ack",
        "priority",
        "room",
        "unsettled",
        "windowed",
    )

    def __init__(
        self,
        key: ConsumerKey,
        credit: int,
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        priority: int = 0,
        windowed: bool = False,
        holder: bool = False,
    ) -> None:
        self.key = key
        self.credit = credit
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.priority = priority
        self.windowed = windowed
        """Credit comes back as its socket drains, not by settling."""
        self.room = WINDOW_BYTES if windowed else UNBOUNDED
        """Bytes that it may be sent now."""
        self.holder = holder
        """Gets nothing more, but holds unsettled messages: a basic.get, a cancelled consumer."""
        self.unsettled: set[int] = set()


class Dispatcher:
    """Hands out a queue's messages in order, to consumers in turn, within their credit."""

    def __init__(self, state: QueueState) -> None:
        self.state = state
        self.slots: dict[ConsumerKey, Slot] = {}
        self._ring: list[Slot] = []
        self._turn = 0
        self._next = state.settled.floor
        """Nothing at or above was handed out by this leader (or is known to be held)."""
        self._returned: list[int] = []
        """Heap of positions below ``_next`` that are to be handed out again."""
        self.unsettled = 0
        self.settling = 0
        """Messages whose settlement is on its way to being committed."""
        self.held: set[int] = set()
        """Positions at or above ``_next`` that are not to be handed out when it gets there: consumers held
        them when this leader took over."""

    @property
    def ready(self) -> int:
        """Messages that nobody holds."""
        return max(0, self.state.messages - self.unsettled - self.settling)

    @property
    def cursor(self) -> int:
        """The first position never handed out by this leader."""
        return self._next

    def attach(self, slot: Slot, outstanding: Iterable[Run] = ()) -> None:
        """A consumer joins, holding what an earlier leader gave it; those aren't handed out meanwhile."""
        self.detach(slot.key)
        self.slots[slot.key] = slot
        if not slot.holder:
            self._ring.append(slot)
            self._ring.sort(key=lambda s: -s.priority)
        if not outstanding:
            return
        returned = set(self._returned)
        before = len(returned)
        for first, end in outstanding:
            for low, high in self.state.settled.gaps(first, min(end, self.state.next_position)):
                for position in range(low, high):
                    if position >= self._next:
                        if position in self.held:
                            continue
                        self.held.add(position)
                    elif position in returned:
                        returned.discard(position)
                    else:
                        continue
                    slot.unsettled.add(position)
                    self.unsettled += 1
        if len(returned) != before:
            self._returned = list(returned)
            heapify(self._returned)

    def detach(self, key: ConsumerKey) -> list[int]:
        """A consumer leaves; what it held, ascending, is ready again."""
        slot = self.slots.pop(key, None)
        if slot is None:
            return []
        if slot in self._ring:
            self._ring.remove(slot)
        held = sorted(slot.unsettled)
        self._give_back(slot, held)
        return held

    def stop(self, key: ConsumerKey) -> None:
        """Send nothing more to this consumer; it keeps what it holds."""
        slot = self.slots.get(key)
        if slot is not None:
            slot.holder = True
            if slot in self._ring:
                self._ring.remove(slot)

    def settle(self, key: ConsumerKey, ranges: Iterable[Run]) -> list[Run]:
        """A consumer settled positions; those that it really held, as runs.

        A late settlement of a message that is back in the queue (its consumer was thought gone) counts as
        well: it takes the message out, whoever holds it now.
        """
        slot = self.slots.get(key)
        mine = slot.unsettled if slot is not None else set()
        taken: list[int] = []
        strangers: list[int] = []
        for first, end in ranges:
            for position in range(first, end):
                if position in mine:
                    mine.remove(position)
                    taken.append(position)
                elif position < self.state.next_position and position not in self.state.settled:
                    strangers.append(position)
        self.unsettled -= len(taken)
        if strangers:
            self._take_from_others(strangers)
            taken = sorted(taken + strangers)
        self.settling += len(taken)
        return runs(taken)

    def _take_from_others(self, positions: list[int]) -> None:
        wanted = set(positions)
        for slot in self.slots.values():
            both = slot.unsettled & wanted
            slot.unsettled -= both
            self.unsettled -= len(both)
        left = [p for p in self._returned if p not in wanted]
        if len(left) != len(self._returned):
            heapify(left)
            self._returned = left
        # Until the settlement is committed the state still calls these ready: hold them back.
        self.held.update(p for p in positions if p >= self._next)

    def committed(self, count: int) -> None:
        """The state has now settled ``count`` messages."""
        self.settling = max(0, self.settling - count)

    def give_back(self, key: ConsumerKey, ranges: Iterable[Run]) -> list[Run]:
        """A consumer gives positions back unsettled; those that it really held, as runs."""
        slot = self.slots.get(key)
        if slot is None:
            return []
        back = [p for first, end in ranges for p in range(first, end) if p in slot.unsettled]
        back.sort()
        self._give_back(slot, back)
        return runs(back)

    def _give_back(self, slot: Slot, positions: list[int]) -> None:
        slot.unsettled.difference_update(positions)
        self.unsettled -= len(positions)
        for position in positions:
            if position >= self._next:
                self.held.discard(position)
            else:
                heappush(self._returned, position)

    def ready_runs(self) -> list[Run]:
        """Everything ready, as runs (what a purge removes)."""
        found = runs(sorted(p for p in self._returned if p not in self.state.settled))
        start = self._next
        for low, high in self.state.settled.gaps(start, self.state.next_position):
            if not self.held:
                found.append((low, high))
                continue
            found.extend(runs(p for p in range(low, high) if p not in self.held))
        return found

    def drop_ready(self) -> list[Run]:
        """Take all that is ready out of the hands of the dispatcher; the caller settles it."""
        dropped = self.ready_runs()
        self._returned = []
        self._next = max(self._next, self.state.next_position)
        self.held.clear()
        self.settling += sum(end - first for first, end in dropped)
        return dropped

    def wants(self) -> bool:
        """Whether some consumer has credit."""
        return any(slot.credit > 0 and slot.room > 0 for slot in self._ring)

    def blocked_by_watermark(self) -> bool:
        """Whether ready messages wait for the watermark alone."""
        return not self._returned and self.state.watermark <= self._next < self.state.next_position

    def take(self, limit: int) -> tuple[int, int, bool] | None:
        """The next ready positions, at most ``limit``, in one run: (first, end, redelivered)."""
        state = self.state
        while self._returned:
            first = heappop(self._returned)
            if first in state.settled:
                continue
            end = first + 1
            while self._returned and end - first < limit and self._returned[0] == end:
                heappop(self._returned)
                end += 1
            return first, end, True
        ceiling = min(state.next_position, state.watermark)
        first, end = state.settled.next_gap(self._next, ceiling)
        if self.held:
            self.held = {p for p in self.held if p >= first}
            while first < end and first in self.held:
                self.held.discard(first)
                first, end = state.settled.next_gap(first + 1, ceiling)
            if first < end:
                end = min((p for p in self.held if first < p < end), default=end)
        if first >= end:
            self._next = max(self._next, first if first <= ceiling else ceiling)
            return None
        end = min(end, first + limit)
        redelivered = first < state.redelivered_below
        if redelivered:
            end = min(end, state.redelivered_below)
        self._next = end
        return first, end, redelivered

    def once(self, slot: Slot) -> Assignment | None:
        """One message for a basic.get, or None when none is ready."""
        run = self.take(1)
        if run is None:
            return None
        return self._assign(slot, run)

    def assign(self, budget: int = 1 << 62) -> Iterator[Assignment]:
        """Hand out what is ready to those with credit, in turn, until either or ``budget`` runs out."""
        while budget > 0:
            eligible = [slot for slot in self._ring if slot.credit > 0 and slot.room > 0]
            if not eligible:
                return
            top = eligible[0].priority
            eligible = [slot for slot in eligible if slot.priority == top]
            start = self._turn % len(eligible)
            if len(eligible) == 1:
                chunk = eligible[0].credit
            else:
                share = self.ready // (4 * len(eligible))
                chunk = max(1, min(CHUNK_LIMIT, share if self.ready > CHUNK_LIMIT else 1))
            for slot in eligible[start:] + eligible[:start]:
                run = self.take(min(chunk, slot.credit, budget)) if budget > 0 else None
                if run is None:
                    return
                budget -= run[1] - run[0]
                self._turn += 1
                yield self._assign(slot, run)

    def _assign(self, slot: Slot, run: tuple[int, int, bool]) -> Assignment:
        first, end, redelivered = run
        count = end - first
        slot.credit -= count
        if not slot.no_ack:
            slot.unsettled.update(range(first, end))
            self.unsettled += count
        else:
            self.settling += count
        return Assignment(slot, first, end, redelivered or (first in self.state.counts))
