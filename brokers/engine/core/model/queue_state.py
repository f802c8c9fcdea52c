"""The replicated state of a queue: a function of its log, equal on every replica.

Message bytes stay in the log; the state knows which positions exist, which are settled and where they lie.
Who holds which unsettled message is *not* here: that is the leader's (``delivery.py``), fenced by the
watermark.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from brokers.engine.core.model import entries
from brokers.engine.core.model.arguments import Arguments
from brokers.engine.core.model.deduplication import (
    MARKED,
    SeenKeys,
    deduplication_key,
    marked_window,
    seen_keys,
)
from brokers.engine.core.model.entries import Run, Settled
from brokers.engine.core.model.intervals import IntervalSet
from brokers.engine.core.model.lanes import HEADERS_FLAG, Lanes, priority_of
from brokers.engine.core.model.positions import PositionIndex
from brokers.engine.core.model.retention import Marks

MAX_ORIGINS = 256
"""How many origins are remembered. An origin is a node's life; the ones silent for longest are forgotten."""
MAX_PRIORITY = 255
MAX_REFUSALS = 1024
"""How many batches with refused messages are remembered of each origin, far more than are ever under way."""


class Published(NamedTuple):
    """A batch became messages. ``size`` is 0 for a batch that was applied before; ``refused`` is how many of
    its last messages the queue had no room for.
    """

    origin: int
    serial: int
    base: int
    size: int
    refused: int = 0


class SettledRuns(NamedTuple):
    """Messages left the queue; ``size`` of them had not left before, and ``died`` of these were dying.

    ``bodies`` is as in ``entries.encode_settle``.
    """

    outcome: Settled
    runs: list[Run]
    size: int
    died: int = 0
    bodies: int = -1


class Died(NamedTuple):
    """Messages are to be dead-lettered: ``positions`` are new among those, of the ``asked`` that the entry
    named.
    """

    positions: list[int]
    asked: int


class Returned(NamedTuple):
    """Messages were given back; ``died`` are those that have used up their deliveries."""

    runs: list[Run]
    died: list[int]


class Postponed(NamedTuple):
    """Rejected messages are to be delivered again from ``due`` on."""

    runs: list[Run]
    due: int


class Death(NamedTuple):
    """A message died at ``stamp`` and is settled with ``outcome`` once its dead letter is safe."""

    outcome: Settled
    stamp: int


class Retry(NamedTuple):
    """A message was rejected ``attempts`` times and may be delivered again from ``due`` on."""

    attempts: int
    due: int


class OutOfOrder(NamedTuple):
    """A batch came before one that its origin had numbered earlier; it was not taken."""

    origin: int
    expected: int


class QueueState:
    """What a queue's log amounts to.

    ``redelivered_below``: unsettled positions below it may have been handed out by an earlier leader.
    ``watermark``: only positions below it may be handed out. ``counts``: how often a message was given back.
    ``dying``: messages that nobody gets any more and that stay until their dead letters are safe.
    ``retries``: messages that were rejected under a retry policy.
    """

    __slots__ = (
        "applied",
        "bytes",
        "counts",
        "dying",
        "flags",
        "index",
        "kept",
        "lanes",
        "marks",
        "messages",
        "next_position",
        "origins",
        "published",
        "redelivered_below",
        "refusals",
        "retain_from",
        "retries",
        "seen",
        "settled",
        "settled_total",
        "through",
        "watermark",
    )

    def __init__(self) -> None:
        self.applied = 0
        self.next_position = 0
        self.settled = IntervalSet()
        self.messages = 0
        self.bytes = 0
        """Bytes of the bodies of unsettled messages. Near where their sizes differ, as settling takes off the
        average, unless the leader says how much it is (it does where the queue has a limit of bytes)."""
        self.flags = 0
        """Property flags of what is and was there since the queue was last empty."""
        self.index = PositionIndex()
        self.origins: dict[int, int] = {}
        """Last serial applied of each origin, the one that published last at the end."""
        self.watermark = 0
        self.redelivered_below = 0
        self.counts: dict[int, int] = {}
        self.dying: dict[int, Death] = {}
        self.retries: dict[int, Retry] = {}
        self.refusals: dict[int, dict[int, int]] = {}
        """By origin and serial: how many messages of a batch were taken, where that is not all of them."""
        self.published = 0
        self.settled_total = 0
        self.marks = Marks()
        self.retain_from: int | None = None
        """Settled messages from this position on are to stay readable; None: none. Each replica's own."""
        self.kept = 0
        """The log of this replica still has everything from this position on."""
        self.lanes: Lanes | None = None
        """Set for a priority queue."""
        self.seen: SeenKeys | None = None
        """Set for a queue that drops repeated messages."""
        self.through: dict[str, SeenKeys] = {}
        """By deduplicating exchange: the keys that came through it."""

    @classmethod
    def founded(cls, arguments: Arguments) -> QueueState:
        """The state that a queue declared with ``arguments`` begins with, the same on all its replicas."""
        state = cls()
        highest = arguments.get("x-max-priority")
        if isinstance(highest, int) and highest > 0:
            state.lanes = Lanes(min(highest, MAX_PRIORITY))
        state.seen = seen_keys(arguments)
        return state

    def open_term(self, index: int) -> None:
        """A new leader's first entry: what its predecessors may have handed out is fenced off."""
        self.applied = index
        self.redelivered_below = max(self.redelivered_below, min(self.watermark, self.next_position))

    def apply(self, index: int, payload: bytes) -> Applied:
        """Apply a KIND_DATA entry; an int is the new watermark."""
        self.applied = index
        kind = payload[0]
        if kind == entries.PUBLISH:
            return self._publish(index, payload)
        if kind == entries.SETTLE:
            outcome, bodies, runs = entries.decode_settle(payload)
            size, died = self._settle(runs, bodies)
            return SettledRuns(outcome, runs, size, died, bodies)
        if kind == entries.RETURN:
            return self._give_back(*entries.decode_return(payload))
        if kind == entries.WATERMARK:
            self.watermark = max(self.watermark, entries.decode_watermark(payload))
            return self.watermark
        if kind == entries.DEAD:
            outcome, stamp, runs = entries.decode_dead(payload)
            return Died(self._die(runs, Death(outcome, stamp)), sum(end - first for first, end in runs))
        if kind == entries.RETRY:
            due, runs = entries.decode_retry(payload)
            return self._postpone(runs, due)
        raise ValueError(f"queue entry {index} is of unknown kind {kind}; was it written by a newer version?")

    def _publish(self, index: int, payload: bytes) -> Published | OutOfOrder:
        stamp, taken, origin, serial, size, flags, bodies = entries.publish_head(payload)
        last = self.origins.get(origin, 0)
        base = self.next_position
        if serial <= last:
            return Published(origin, serial, base, 0)
        if serial != last + 1:
            return OutOfOrder(origin, last + 1)
        self.origins.pop(origin, None)
        if len(self.origins) >= MAX_ORIGINS:
            forgotten = next(iter(self.origins))
            del self.origins[forgotten]
            self.refusals.pop(forgotten, None)
        self.origins[origin] = serial
        if taken < size:
            bodies = sum(entries.Messages(payload).body_sizes(0, taken))
            self._refuse(origin, serial, taken)
        if taken:
            self.index.append(base, index, taken)
            self.marks.publish(base, len(payload), stamp)
            self.flags = self.flags | flags if self.messages else flags
        self.next_position = base + taken
        self.messages += taken
        self.published += taken
        self.bytes += bodies
        if taken and (self.lanes is not None or self.seen is not None or flags & MARKED):
            self._look_into(entries.Messages(payload), base, taken)
        return Published(origin, serial, base, taken, size - taken)

    def _look_into(self, messages: entries.Messages, base: int, taken: int) -> None:
        """Note priorities and keys, where the queue was declared to mind them."""
        found = entries.split(*messages.slice(0, taken))
        if self.lanes is not None:
            highest = self.lanes.highest
            self.lanes.publish(base, [priority_of(header, highest) for _, header, _ in found])
        if not messages.flags & HEADERS_FLAG or (self.seen is None and not messages.flags & MARKED):
            return
        for position, (route, header, body) in enumerate(found, base):
            key = deduplication_key(header)
            if key is not None and self._repeated(key, route, header, messages.stamp):
                self._settle([(position, position + 1)], len(body))

    def _repeated(self, key: str, route: bytes, header: bytes, stamp: int) -> bool:
        """Whether the queue, or the exchange that the message came through, has seen ``key`` in its window."""
        known = self.seen is not None and self.seen.repeated(key, stamp)
        window = marked_window(header)
        if window is None:
            return known
        exchange = route[1 : 1 + route[0]].decode()
        through = self.through.get(exchange)
        if through is None or (through.size, through.ttl) != window:
            through = self.through[exchange] = SeenKeys(*window)
        return through.repeated(key, stamp) or known

    def _refuse(self, origin: int, serial: int, taken: int) -> None:
        refusals = self.refusals.setdefault(origin, {})
        if len(refusals) >= MAX_REFUSALS:
            del refusals[next(iter(refusals))]
        refusals[serial] = taken

    def _settle(self, runs: Iterable[Run], bodies: int) -> tuple[int, int]:
        settled = self.settled
        new = died = 0
        for first, end in runs:
            new += settled.add(first, min(end, self.next_position))
            if self.counts:
                _forget(self.counts, first, end)
            if self.retries:
                _forget(self.retries, first, end)
            if self.dying:
                died += _forget(self.dying, first, end)
        if new:
            self.bytes -= min(self.bytes, bodies) if bodies >= 0 else self.bytes * new // self.messages
            self.messages -= new
            if not self.messages:
                self.bytes = 0
            self.settled_total += new
        return new, died

    def _live(self, runs: Iterable[Run]) -> Iterator[int]:
        """Those of the positions that are neither settled nor dying."""
        for first, end in runs:
            for low, high in self.settled.gaps(first, min(end, self.next_position)):
                for position in range(low, high):
                    if position not in self.dying:
                        yield position

    def _give_back(self, limit: int | None, stamp: int, runs: list[Run]) -> Returned:
        died = []
        for position in self._live(runs):
            count = self.counts[position] = self.counts.get(position, 0) + 1
            if limit is not None and count - self._attempts(position) > limit:
                died.append(position)
        for position in died:
            self.dying[position] = Death(Settled.LIMIT, stamp)
        return Returned(runs, died)

    def _attempts(self, position: int) -> int:
        retry = self.retries.get(position)
        return 0 if retry is None else retry.attempts

    def _die(self, runs: Iterable[Run], death: Death) -> list[int]:
        positions = list(self._live(runs))
        self.dying.update(dict.fromkeys(positions, death))
        return positions

    def _postpone(self, runs: list[Run], due: int) -> Postponed:
        for position in self._live(runs):
            self.counts[position] = self.counts.get(position, 0) + 1
            self.retries[position] = Retry(self._attempts(position) + 1, due)
        return Postponed(runs, due)

    def keep_from(self) -> int:
        """The oldest log index whose bytes an unsettled or retained message needs (applied + 1: none)."""
        floor = self.settled.floor
        if self.retain_from is not None:
            floor = max(self.kept, min(floor, self.retain_from))
        self.kept = floor
        self.index.trim(floor)
        self.marks.forget_below(floor)
        if self.lanes is not None:
            self.lanes.forget(self.settled)
        if floor >= self.next_position:
            return self.applied + 1
        return self.index.find(floor).entry

    def is_live(self, index: int, base: int, count: int) -> bool:
        """Whether any of the positions [base, base + count) of the entry at ``index`` is unsettled."""
        if self.retain_from is not None and base + count > self.retain_from:
            return True
        low, high = self.settled.next_gap(base, base + count)
        return low < high

    def dump(self) -> bytes:
        """The state as bytes: a JSON head, then packed integers."""
        head = {
            "version": 1,
            "applied": self.applied,
            "next_position": self.next_position,
            "messages": self.messages,
            "bytes": self.bytes,
            "watermark": self.watermark,
            "redelivered_below": self.redelivered_below,
            "published": self.published,
            "settled_total": self.settled_total,
            "floor": self.settled.floor,
            "origins": list(self.origins.items()),
            "flags": self.flags,
            "refusals": [[origin, list(found.items())] for origin, found in self.refusals.items()],
            "kept": self.kept,
            "marked": self.marks.total,
            "lanes": None if self.lanes is None else self.lanes.flat(),
            "seen": None if self.seen is None else [self.seen.size, self.seen.ttl, self.seen.items()],
            "through": [[name, s.size, s.ttl, s.items()] for name, s in self.through.items()],
        }
        columns = [
            array("Q", (value for stretch in self.settled.stretches() for value in stretch)),
            array("Q", self.index.flat()),
            array("Q", (value for item in sorted(self.counts.items()) for value in item)),
            array("Q", (value for p, death in sorted(self.dying.items()) for value in (p, *death))),
            array("Q", (value for p, retry in sorted(self.retries.items()) for value in (p, *retry))),
            array("Q", self.marks.flat()),
        ]
        head["columns"] = [len(column) for column in columns]
        text = json.dumps(head).encode()
        return b"".join((len(text).to_bytes(4, "big"), text, *(column.tobytes() for column in columns)))

    @classmethod
    def load(cls, data: bytes) -> QueueState:
        """The state that ``dump`` wrote. Raises ``ValueError`` for another version."""
        if not data:
            return cls()
        size = int.from_bytes(data[:4], "big")
        head = json.loads(data[4 : 4 + size])
        if head["version"] != 1:
            raise ValueError(f"queue snapshot of version {head['version']}; this program reads version 1")
        columns = []
        at = 4 + size
        for length in head["columns"]:
            column = array("Q", data[at : at + 8 * length])
            columns.append(column.tolist())
            at += 8 * length
        stretches, flat, counts, dying, retries, marks = columns
        state = cls()
        for name in (
            "applied",
            "next_position",
            "messages",
            "bytes",
            "watermark",
            "redelivered_below",
            "published",
            "settled_total",
            "flags",
        ):
            setattr(state, name, head[name])
        state.settled = IntervalSet(head["floor"], zip(stretches[0::2], stretches[1::2], strict=True))
        state.index = PositionIndex(flat)
        state.kept = head["kept"]
        state.marks = Marks.load(marks, head["marked"])
        state.counts = dict(zip(counts[0::2], counts[1::2], strict=True))
        state.origins = dict(head["origins"])
        if head["lanes"] is not None:
            state.lanes = Lanes.load(head["lanes"])
        if head["seen"] is not None:
            cache_size, ttl, items = head["seen"]
            state.seen = SeenKeys(cache_size, ttl)
            state.seen.restore((key, stamp) for key, stamp in items)
        for name, cache_size, ttl, items in head["through"]:
            state.through[name] = SeenKeys(cache_size, ttl)
            state.through[name].restore((key, stamp) for key, stamp in items)
        state.refusals = {origin: dict(found) for origin, found in head["refusals"]}
        for position, outcome, stamp in zip(dying[0::3], dying[1::3], dying[2::3], strict=True):
            state.dying[position] = Death(Settled(outcome), stamp)
        for position, attempts, due in zip(retries[0::3], retries[1::3], retries[2::3], strict=True):
            state.retries[position] = Retry(attempts, due)
        return state


Applied = Published | SettledRuns | OutOfOrder | Died | Returned | Postponed | int
"""What came of an entry."""

Value = TypeVar("Value")


def _forget(table: dict[int, Value], first: int, end: int) -> int:
    """Take the positions [first, end) out of ``table``; how many there were."""
    if end - first <= len(table):
        known = [p for p in range(first, end) if p in table]
    else:
        known = [p for p in table if first <= p < end]
    for position in known:
        del table[position]
    return len(known)
