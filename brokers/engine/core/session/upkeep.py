"""What a queue's settings ask of its leader: expiry, limits, retries, dead letters.

The leader decides by its own clock, hands the decision to the log, and goes on when that is committed: a
message dies in one entry and leaves the queue in another, between which its dead letter is published. A
leader that takes over finds what is dying, and what waits for its retry, in the replicated state.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from typing import NamedTuple

from brokers.engine.core.amqp.expiration import EXPIRATION, parse_expiration
from brokers.engine.core.amqp.properties import decode_properties
from brokers.engine.core.model import entries
from brokers.engine.core.model.delivery import Dispatcher, Scales
from brokers.engine.core.model.entries import Messages, Run, Settled, split
from brokers.engine.core.model.intervals import runs
from brokers.engine.core.model.queue_settings import DEFAULT, Overflow, QueueSettings
from brokers.engine.core.model.queue_state import Died, Postponed, Published, QueueState, Returned

LETTERS = 1024
"""Dead letters of a queue that are under way at once."""
DYING = 65_536
"""While more messages than these are dying, none expires nor makes room for others."""
AT_ONCE = 16_384
"""Messages that one turn drops."""
DELETE_AGAIN = 5_000
"""Milliseconds after which a queue that has outlived its use, and is still there, is deleted again."""
NEVER = 1 << 62


class Letter(NamedTuple):
    """A message that died, as it is in the queue. ``position`` is None where the queue refused it."""

    position: int | None
    outcome: Settled
    stamp: int
    route: bytes
    header: bytes
    body: bytes


class Upkeep:
    """One of each ``QueueLeader``. All times are wall clock milliseconds.

    ``doomed`` are settlements that need no dead letter, for the leader to propose; ``payloads`` gives the
    other entries to propose. ``due`` is when there is something to do again without anything happening.
    """

    def __init__(self, state: QueueState, dispatcher: Dispatcher, read: Callable[[int], Messages]) -> None:
        self.settings = DEFAULT
        self.doomed: list[tuple[Settled, list[Run]]] = []
        self.due = NEVER
        self.outlived = False
        """The queue has not been used for as long as it may be kept unused."""
        self._state = state
        self._dispatcher = dispatcher
        self._read = read
        self._now = 0
        self._fresh = state.next_position
        """What lies from here on came since consumers last had their chance; it has not expired for them."""
        self._to_kill: dict[Settled, list[Run]] = {}
        self._to_retry: dict[int, list[int]] = {}
        self._waiting: list[tuple[int, list[int]]] = []
        """Heap of (due, positions) that are to be delivered again."""
        self._letters: deque[int] = deque(sorted(state.dying))
        self._under_way = 0
        self._put_off: list[tuple[int, list[int]]] = []
        """Heap of (due, positions) whose dead letters are to be tried again."""
        self._refused: deque[tuple[Messages, int]] = deque()
        """Batches of which all messages from a place on were refused and are dead-lettered."""
        self._incoming: dict[int, tuple[int, int]] = {}
        """Messages and bytes of publishes that are proposed and not applied, by log index."""
        self._admitted: deque[tuple[int, int]] = deque()
        self._used_at = NEVER
        self._used = True
        self._delete_again = 0
        self._parked = 0
        self._expirations: OrderedDict[int, list[int | None]] = OrderedDict()

    def configure(self, settings: QueueSettings) -> None:
        """From now on ``settings`` are in force."""
        self.settings = settings
        dispatcher = self._dispatcher
        dispatcher.single = settings.single_active
        if settings.max_bytes is None:
            dispatcher.scales = None
        elif dispatcher.scales is None:
            dispatcher.scales = scales = Scales(self._weigh)
            for position in (*self._state.dying, *dispatcher.limbo):
                scales.put(position, position + 1)
            for slot in dispatcher.slots.values():
                for position in slot.unsettled:
                    scales.put(position, position + 1)

    def take_over(self, now: int) -> None:
        """A new leader's first step: what waits for its retry goes on waiting."""
        for position, retry in self._state.retries.items():
            if retry.due > now and position not in self._state.dying:
                self._dispatcher.limbo.add(position)
                self._dispatcher.held.add(position)
                heappush(self._waiting, (retry.due, [position]))

    def _weigh(self, first: int, end: int) -> list[int]:
        sizes: list[int] = []
        while first < end:
            entry, base, size = self._state.index.find(first)
            stop = min(end, base + size)
            sizes += self._read(entry).body_sizes(first - base, stop - base)
            first = stop
        return sizes

    # -- what comes in --------------------------------------------------------------------------------

    def used(self) -> None:
        """Somebody declared the queue again, or fetched from it."""
        self._used = True

    def admit(self, batch: bytes) -> int | None:
        """How many messages of a batch the queue takes; None for all."""
        if not self.settings.rejects_publishes:
            return None
        count = entries.batch_identity(batch)[2]
        messages = sum(count for count, _ in (*self._incoming.values(), *self._admitted))
        taken = min(count, self._room(messages))
        bodies = 0
        if self.settings.max_bytes is not None:
            taken, bodies = self._fitting(batch, taken)
        self._admitted.append((taken, bodies))
        return taken

    def _room(self, incoming: int) -> int:
        limit = self.settings.max_length
        if not limit:
            return NEVER if limit is None else 0
        dispatcher = self._dispatcher
        return max(0, limit + dispatcher.appetite() - dispatcher.ready - incoming)

    def _fitting(self, batch: bytes, count: int) -> tuple[int, int]:
        limit = self.settings.max_bytes or 0
        incoming = sum(size for _, size in (*self._incoming.values(), *self._admitted))
        room = limit - self._dispatcher.ready_bytes - incoming
        bodies = 0
        for taken, size in enumerate(Messages(entries.encode_publish(0, batch)).body_sizes(0, count)):
            if bodies + size > room:
                return taken, bodies
            bodies += size
        return count, bodies

    def proposed(self, index: int) -> None:
        """The leader has proposed an entry; publishes first, in the order in which they were admitted."""
        if self._admitted:
            self._incoming[index] = self._admitted.popleft()

    @property
    def parks_returns(self) -> bool:
        """Whether what is given back has to wait until its deliveries are counted."""
        return self.settings.delivery_limit is not None

    def parked(self, count: int) -> None:
        """So many messages that were given back wait for that. Nothing is handed out meanwhile: they come
        first.
        """
        self._parked += count

    @property
    def holds(self) -> bool:
        """Whether nothing may be handed out now."""
        return self._parked > 0

    def rejected(self, ranges: list[Run]) -> None:
        """Consumers rejected messages: they are tried again, or die."""
        attempts = self.settings.retry_attempts
        if not attempts:
            self._doom(Settled.REJECT, ranges)
            return
        again, last = [], []
        for first, end in ranges:
            for position in range(first, end):
                retry = self._state.retries.get(position)
                made = 0 if retry is None else retry.attempts
                if made < attempts:
                    self._to_retry.setdefault(made + 1, []).append(position)
                    again.append(position)
                else:
                    last.append(position)
        self._dispatcher.park(runs(again))
        if last:
            self._doom(Settled.REJECT, runs(last))

    def _doom(self, outcome: Settled, ranges: list[Run]) -> None:
        if self.settings.dead_letter_exchange is None:
            self.doomed.append((outcome, ranges))
        else:
            self._to_kill.setdefault(outcome, []).extend(ranges)

    def payloads(self, stamp: int) -> Iterator[bytes]:
        """Entries to propose."""
        for outcome, ranges in self._to_kill.items():
            yield entries.encode_dead(outcome, stamp, ranges)
        self._to_kill.clear()
        for attempt, positions in self._to_retry.items():
            due = stamp + self.settings.backoff(attempt)
            yield entries.encode_retry(due, runs(sorted(positions)))
        self._to_retry.clear()

    # -- what was committed ---------------------------------------------------------------------------

    def applied(self, index: int, result: object) -> None:
        """See ``QueueLeader.applied``."""
        self._incoming.pop(index, None)
        if isinstance(result, Died):
            self._dispatcher.committed(result.asked)
            self._letters.extend(result.positions)
        elif isinstance(result, Returned):
            self._dispatcher.limbo.difference_update(result.died)
            self._letters.extend(result.died)
            self._parked = max(0, self._parked - sum(end - first for first, end in result.runs))
            self._dispatcher.restore(p for first, end in result.runs for p in range(first, end))
        elif isinstance(result, Postponed):
            positions = [p for first, end in result.runs for p in range(first, end)]
            heappush(self._waiting, (result.due, positions))
        elif isinstance(result, Published) and result.refused and self._buries_refused:
            self._refused.append((self._read(index), result.size))

    @property
    def _buries_refused(self) -> bool:
        settings = self.settings
        return settings.overflow is Overflow.REJECT_PUBLISH_DLX and settings.dead_letter_exchange is not None

    # -- time -----------------------------------------------------------------------------------------

    def begin(self, now: int) -> None:
        """Before messages are handed out: what is due again is ready, what has expired will be seen."""
        self._now = now
        while self._waiting and self._waiting[0][0] <= now:
            self._dispatcher.restore(heappop(self._waiting)[1])
        while self._put_off and self._put_off[0][0] <= now:
            self._letters.extend(heappop(self._put_off)[1])
        expiring = self.settings.expires_messages and (
            self.settings.ttl is not None or self._state.flags & EXPIRATION
        )
        self._dispatcher.judge = self._judge if expiring else None

    def end(self, done: bool, consumers: int) -> bool:
        """After messages were handed out, all that could be if ``done``: drop what has expired and what is
        too much. True when there is more to do than fits in one turn.
        """
        dispatcher = self._dispatcher
        self.due = min((heap[0][0] for heap in (self._waiting, self._put_off) if heap), default=NEVER)
        roomy = len(self._state.dying) < DYING or self.settings.dead_letter_exchange is None
        if dispatcher.judge is not None and roomy:
            if done:
                self._fresh = NEVER
            head = dispatcher.head()
            if head is not None:
                self.due = min(self.due, self._expiry(head))
        if done:
            self._fresh = self._state.next_position
        if self._letters and self.settings.dead_letter_exchange is None:
            self._let_go(self._letters)
            self._letters.clear()
        more = False
        if dispatcher.expired:
            self._doom(Settled.EXPIRE, dispatcher.expired)
            dispatcher.expired = []
            more = True
        if done and roomy and self.settings.bounded and self.settings.overflow is Overflow.DROP_HEAD:
            more |= self._drop_excess()
        self._check_use(consumers)
        return more

    def _drop_excess(self) -> bool:
        dispatcher, settings = self._dispatcher, self.settings
        dropped: list[Run] = []
        if settings.max_length is not None:
            excess = dispatcher.ready - settings.max_length
            if excess > 0:
                dropped += dispatcher.drop_head(min(excess, AT_ONCE))
        if settings.max_bytes is not None:
            while dispatcher.ready and dispatcher.ready_bytes > settings.max_bytes and len(dropped) < AT_ONCE:
                found = dispatcher.drop_head(1)
                if not found:
                    break
                dropped += found
        if dropped:
            self._doom(Settled.DROP, dropped)
        return bool(dropped)

    def _check_use(self, consumers: int) -> None:
        expires = self.settings.expires
        if expires is None:
            return
        if self._used or consumers:
            self._used_at = self._now
        self._used = bool(consumers)
        if consumers:
            return
        end = self._used_at + expires
        if self._now >= end:
            end = max(end, self._delete_again)
        if self._now >= end:
            self.outlived = True
            end = self._delete_again = self._now + DELETE_AGAIN
        self.due = min(self.due, end)

    def _judge(self, first: int, end: int) -> tuple[int, bool]:
        """See ``Dispatcher.judge``."""
        if first >= self._fresh:
            return end, False
        entry, base, size = self._state.index.find(first)
        end = min(end, base + size, self._fresh)
        messages = self._read(entry)
        age = self._now - messages.stamp
        ttl = self.settings.ttl
        if not messages.flags & EXPIRATION:
            return end, ttl is not None and age >= ttl
        lives = self._lives(entry, messages)
        late = age >= _lower(lives[first - base], ttl)
        stop = first + 1
        while stop < end and (age >= _lower(lives[stop - base], ttl)) is late:
            stop += 1
        return stop, late

    def _expiry(self, position: int) -> int:
        entry, base, _ = self._state.index.find(position)
        messages = self._read(entry)
        life = self._lives(entry, messages)[position - base] if messages.flags & EXPIRATION else None
        return messages.stamp + _lower(life, self.settings.ttl)

    def _lives(self, entry: int, messages: Messages) -> list[int | None]:
        """The expirations of an entry's messages."""
        found = self._expirations.get(entry)
        if found is None:
            found = [_expiration(header) for _, header, _ in split(*messages.slice(0, messages.count))]
            self._expirations[entry] = found
            if len(self._expirations) > 4:
                self._expirations.popitem(last=False)
        return found

    # -- dead letters ---------------------------------------------------------------------------------

    def take_letters(self) -> list[Letter]:
        """Messages that died and whose dead letters can be published now; see ``buried``."""
        letters: list[Letter] = []
        while self._refused:
            messages, first = self._refused.popleft()
            letters += [
                Letter(None, Settled.DROP, messages.stamp, *message)
                for message in split(*messages.slice(first, messages.count))
            ]
        while self._sends_letters:
            position = self._letters.popleft()
            death = self._state.dying.get(position)
            if death is None:
                continue
            entry, base, _ = self._state.index.find(position)
            message = split(*self._read(entry).slice(position - base, position - base + 1))[0]
            letters.append(Letter(position, *death, *message))
            self._under_way += 1
        return letters

    @property
    def letters(self) -> bool:
        """Whether ``take_letters`` has any."""
        return bool(self._refused) or self._sends_letters

    @property
    def _sends_letters(self) -> bool:
        room = self._under_way < LETTERS and self.settings.dead_letter_exchange is not None
        return room and bool(self._letters)

    def buried(self, positions: Iterable[int]) -> None:
        """The dead letters of these are safe, or have nowhere to go: the queue lets go of them."""
        buried = list(positions)
        self._under_way -= len(buried)
        self._let_go(buried)

    def _let_go(self, positions: Iterable[int]) -> None:
        for position in positions:
            death = self._state.dying.get(position)
            if death is not None:
                self.doomed.append((death.outcome, [(position, position + 1)]))

    def put_off(self, positions: list[int], wait: int) -> None:
        """The dead letters of these could not be published; they are tried again after ``wait``."""
        self._under_way -= len(positions)
        if positions:
            heappush(self._put_off, (self._now + wait, positions))


def _lower(life: int | None, ttl: int | None) -> int:
    lives = [value for value in (life, ttl) if value is not None]
    return min(lives, default=NEVER)


def _expiration(header: bytes) -> int | None:
    """The property ``expiration`` in milliseconds, checked when the message came in; None without one."""
    text = decode_properties(header).expiration
    return None if text is None else parse_expiration(text)
