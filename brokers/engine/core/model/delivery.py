"""Which consumer gets which message: the leader's part of a queue, kept in memory only.

Built anew by every leader from the replicated state and from what the nodes with consumers say they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
EXPIRED_LIMIT = 64
"""After so many runs of expired messages there is nothing more to take in a turn."""
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
        "order",
        "priority",
        "room",
        "strays",
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
        order: int = 0,
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
        self.order = order
        """Consumers of a queue have joined in this order."""
        self.unsettled: set[int] = set()
        self.strays = 0
        """How many more messages its client holds, which the queue has given to others since (or let go). They
        count against its prefetch limit until it settles them."""


class Scales:
    """Bytes of the bodies of messages that are there but not ready; ``weigh`` gives those of a run."""

    def __init__(self, weigh: Callable[[int, int], list[int]]) -> None:
        self.total = 0
        self._weigh = weigh
        self._sizes: dict[int, int] = {}

    def put(self, first: int, end: int) -> None:
        """The positions [first, end) are not ready any more."""
        if all(position in self._sizes for position in range(first, end)):
            return
        for position, size in enumerate(self._weigh(first, end), first):
            if position not in self._sizes:
                self._sizes[position] = size
                self.total += size

    def put_all(self, ranges: list[Run], bodies: int) -> None:
        """The runs, all that was ready, are so no more; their bodies take ``bodies`` bytes."""
        if ranges:
            self.total += bodies
            first = ranges[0][0]
            self._sizes[first] = bodies

    def take(self, position: int) -> None:
        """A position is ready again."""
        self.total -= self._sizes.pop(position, 0)

    def settle(self, ranges: Iterable[Run]) -> int:
        """The bytes of runs that are about to be settled; they stay in ``total`` until ``drop``."""
        return sum(self._sizes.pop(p, 0) for first, end in ranges for p in range(first, end))

    def drop(self, bodies: int) -> None:
        """``bodies`` bytes have left the queue."""
        self.total = max(0, self.total - max(0, bodies))


class Dispatcher:
    """Hands out a queue's messages in order, to consumers in turn, within their credit."""

    def __init__(self, state: QueueState) -> None:
        self.state = state
        self.fence = state.redelivered_below
        """Positions below it may have been handed out before this leader's time."""
        self.slots: dict[ConsumerKey, Slot] = {}
        self._ring: list[Slot] = []
        self._turn = 0
        self._next = state.settled.floor
        """Nothing at or above was handed out by this leader (or is known to be held)."""
        self._returned: list[int] = []
        """Heap of positions below ``_next`` that are to be handed out again."""
        self._again = False
        """What was taken last is of that heap."""
        self.unsettled = 0
        self.settling = 0
        """Messages whose settlement is on its way to being committed."""
        self.held: set[int] = set(state.dying)
        """Positions at or above ``_next`` that are not to be handed out when it gets there: consumers held
        them when this leader took over, or they are dying or in limbo."""
        self.limbo: set[int] = set()
        """Positions that nobody holds and that are not ready either: see ``restore``."""
        self.single = False
        """Only the consumer that joined first gets anything."""
        self.judge: Callable[[int, int], tuple[int, bool]] | None = None
        """Tells of a run [first, end) whether its first messages have expired, and up to where that holds."""
        self.expired: list[Run] = []
        """What ``judge`` found expired; it is out of the dispatcher's hands, the caller settles it."""
        self.scales: Scales | None = None
        """Set where bytes are counted."""

    @property
    def ready(self) -> int:
        """Messages that nobody holds."""
        state = self.state
        gone = self.unsettled + self.settling + len(self.limbo) + len(state.dying)
        return max(0, state.messages - gone)

    @property
    def ready_bytes(self) -> int:
        """Bytes of the bodies of ready messages; exact with ``scales`` only."""
        return max(0, self.state.bytes - (self.scales.total if self.scales is not None else 0))

    @property
    def waiting(self) -> int:
        """Messages that nobody holds and nobody gets now: in limbo, or dying."""
        return len(self.limbo) + len(self.state.dying)

    @property
    def cursor(self) -> int:
        """The first position never handed out by this leader."""
        return self._next

    def _ahead(self, position: int) -> bool:
        """Whether the hand-out has not come to ``position`` yet."""
        return position >= self._next

    def fence_off(self) -> None:
        """This node led in the same term before: what it could hand out then may be in clients' hands."""
        self.fence = max(self.fence, min(self.state.watermark, self.state.next_position))

    def attach(self, slot: Slot, outstanding: Iterable[Run] = ()) -> None:
        """A consumer joins, holding what an earlier leader gave it; those aren't handed out meanwhile."""
        outstanding = list(outstanding)
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
                    if position in self.limbo:
                        self.limbo.discard(position)
                    elif self._ahead(position):
                        if position in self.held:
                            continue
                        self.held.add(position)
                    elif position in returned:
                        returned.discard(position)
                    else:
                        continue
                    if self.scales is not None:
                        self.scales.put(position, position + 1)
                    slot.unsettled.add(position)
                    self.unsettled += 1
        slot.strays = sum(end - first for first, end in outstanding) - len(slot.unsettled)
        if len(returned) != before:
            self._returned = list(returned)
            heapify(self._returned)

    def detach(self, key: ConsumerKey, park: bool = False) -> list[int]:
        """A consumer leaves; what it held, ascending, is ready again (in limbo with ``park``)."""
        slot = self.slots.pop(key, None)
        if slot is None:
            return []
        if slot in self._ring:
            self._ring.remove(slot)
        held = sorted(slot.unsettled)
        self._give_back(slot, held, park)
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
        state = self.state
        mine = slot.unsettled if slot is not None else set()
        taken: list[int] = []
        strangers: list[int] = []
        for first, end in ranges:
            for position in range(first, end):
                if position in mine:
                    mine.remove(position)
                    taken.append(position)
                elif (
                    position < state.next_position
                    and position not in state.settled
                    and position not in state.dying
                ):
                    strangers.append(position)
        self.unsettled -= len(taken)
        if strangers:
            strangers = self._still_there(strangers)
            self._take_from_others(strangers)
            taken = sorted(taken + strangers)
        self.settling += len(taken)
        return runs(taken)

    def _still_there(self, positions: list[int]) -> list[int]:
        """Those of the positions, unsettled in the state, whose settlement is not on its way already."""
        back = set(self._returned)
        back.update(self.limbo, *(slot.unsettled for slot in self.slots.values()))
        return [p for p in positions if p in back or (self._ahead(p) and p not in self.held)]

    def _take_from_others(self, positions: list[int]) -> None:
        wanted = set(positions)
        for slot in self.slots.values():
            both = slot.unsettled & wanted
            slot.unsettled -= both
            slot.strays += len(both)
            self.unsettled -= len(both)
        self.limbo -= wanted
        if self.scales is not None:
            for position in positions:
                self.scales.put(position, position + 1)
        left = [p for p in self._returned if p not in wanted]
        if len(left) != len(self._returned):
            heapify(left)
            self._returned = left
        # Until the settlement is committed the state still calls these ready: hold them back.
        self.held.update(p for p in positions if self._ahead(p))

    def committed(self, count: int, bodies: int = 0) -> None:
        """The state has now settled (or set dying) ``count`` messages, whose bodies took ``bodies`` bytes."""
        self.settling = max(0, self.settling - count)
        if self.scales is not None:
            self.scales.drop(bodies)

    def park(self, ranges: Iterable[Run]) -> None:
        """What was settled or expired is not: it stays in limbo until ``restore``."""
        for first, end in ranges:
            self.settling -= end - first
            self.limbo.update(range(first, end))
            self.held.update(p for p in range(first, end) if self._ahead(p))

    def restore(self, positions: Iterable[int]) -> None:
        """Those of the positions that are in limbo are ready again."""
        for position in positions:
            if position in self.limbo:
                self.limbo.discard(position)
                self._put_back(position)

    def give_back(self, key: ConsumerKey, ranges: Iterable[Run], park: bool = False) -> list[Run]:
        """A consumer gives positions back unsettled; those that it really held, as runs.

        With ``park`` they stay in limbo until ``restore``.
        """
        slot = self.slots.get(key)
        if slot is None:
            return []
        back = [p for first, end in ranges for p in range(first, end) if p in slot.unsettled]
        back.sort()
        self._give_back(slot, back, park)
        return runs(back)

    def _give_back(self, slot: Slot, positions: list[int], park: bool) -> None:
        slot.unsettled.difference_update(positions)
        self.unsettled -= len(positions)
        if park:
            self.limbo.update(positions)
            return
        for position in positions:
            self._put_back(position)

    def _put_back(self, position: int) -> None:
        if self.scales is not None:
            self.scales.take(position)
        if self._ahead(position):
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
        if self.scales is not None:
            self.scales.put_all(dropped, self.ready_bytes)
        self._returned = []
        self._next = max(self._next, self.state.next_position)
        self.held.clear()
        self.settling += sum(end - first for first, end in dropped)
        return dropped

    def wants(self) -> bool:
        """Whether some consumer has credit."""
        return any(slot.credit > 0 and slot.room > 0 for slot in self._candidates())

    def appetite(self) -> int:
        """How many messages consumers would take at once."""
        return sum(slot.credit for slot in self._candidates() if slot.credit > 0 and slot.room > 0)

    def _candidates(self) -> list[Slot]:
        if self.single and self._ring:
            return [min(self._ring, key=lambda slot: slot.order)]
        return self._ring

    def blocked_by_watermark(self) -> bool:
        """Whether ready messages wait for the watermark alone."""
        return not self._returned and self.state.watermark <= self._next < self.state.next_position

    def take(self, limit: int, fenced: bool = True) -> tuple[int, int, bool] | None:
        """The next ready positions, at most ``limit``, in one run: (first, end, redelivered).

        Those that have expired are passed over, into ``expired``. Not ``fenced``, the watermark does not
        count: what is taken is not handed out.
        """
        while len(self.expired) < EXPIRED_LIMIT:
            run = self._take(limit, fenced)
            if run is None:
                return None
            first, end, redelivered = run
            late = False
            if self.judge is not None:
                stop, late = self.judge(first, end)
                self._leave(stop, end)
                end = stop
            if self.scales is not None:
                self.scales.put(first, end)
            if not late:
                return first, end, redelivered
            self.settling += end - first
            self.expired.append((first, end))
        return None

    def _leave(self, first: int, end: int) -> None:
        """Undo part of ``_take``: the run just taken ends at ``first``, not at ``end``."""
        if self._again:
            for position in range(first, end):
                heappush(self._returned, position)
        elif first < end:
            self._next = first

    def head(self) -> int | None:
        """The next ready position, once all before it that have expired are gone (into ``expired``)."""
        run = self.take(1, fenced=False)
        if run is None:
            return None
        if self.scales is not None:
            self.scales.take(run[0])
        self._leave(run[0], run[1])
        return run[0]

    def drop_head(self, count: int) -> list[Run]:
        """Take the ``count`` oldest ready messages out of the dispatcher's hands; the caller settles them."""
        dropped: list[Run] = []
        while count > 0:
            run = self.take(count, fenced=False)
            if run is None:
                break
            dropped.append(run[:2])
            self.settling += run[1] - run[0]
            count -= run[1] - run[0]
        return dropped

    def _take(self, limit: int, fenced: bool) -> tuple[int, int, bool] | None:
        state = self.state
        self._again = True
        while self._returned:
            first = heappop(self._returned)
            if first in state.settled or first in state.dying:
                continue
            end = first + 1
            while self._returned and end - first < limit and self._returned[0] == end:
                heappop(self._returned)
                end += 1
            return first, end, True
        self._again = False
        ceiling = min(state.next_position, state.watermark) if fenced else state.next_position
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
        redelivered = first < self.fence
        if redelivered:
            end = min(end, self.fence)
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
            eligible = [slot for slot in self._candidates() if slot.credit > 0 and slot.room > 0]
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
