"""The replicated state of a queue: a function of its log, equal on every replica.

Message bytes stay in the log; the state knows which positions exist, which are settled and where they lie.
Who holds which unsettled message is *not* here: that is the leader's (``delivery.py``), fenced by the
watermark.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from typing import NamedTuple

from brokers.engine.core.model import entries
from brokers.engine.core.model.entries import Run, Settled
from brokers.engine.core.model.intervals import IntervalSet
from brokers.engine.core.model.positions import PositionIndex

MAX_ORIGINS = 256
"""How many origins are remembered. An origin is a node's life; the ones silent for longest are forgotten."""


class Published(NamedTuple):
    """A batch became messages. ``size`` is 0 for a batch that was applied before."""

    origin: int
    serial: int
    base: int
    size: int


class SettledRuns(NamedTuple):
    """Messages left the queue; ``size`` of them had not left before."""

    outcome: Settled
    runs: list[Run]
    size: int


class OutOfOrder(NamedTuple):
    """A batch came before one that its origin had numbered earlier; it was not taken."""

    origin: int
    expected: int


class QueueState:
    """What a queue's log amounts to.

    ``redelivered_below``: unsettled positions below it may have been handed out by an earlier leader.
    ``watermark``: only positions below it may be handed out. ``counts``: how often a message was given back.
    """

    __slots__ = (
        "applied",
        "bytes",
        "counts",
        "index",
        "messages",
        "next_position",
        "origins",
        "published",
        "redelivered_below",
        "settled",
        "settled_total",
        "watermark",
    )

    def __init__(self) -> None:
        self.applied = 0
        self.next_position = 0
        self.settled = IntervalSet()
        self.messages = 0
        self.bytes = 0
        """Bytes of unsettled messages; near where their sizes differ, as settling takes off the average."""
        self.index = PositionIndex()
        self.origins: dict[int, int] = {}
        """Last serial applied of each origin, the one that published last at the end."""
        self.watermark = 0
        self.redelivered_below = 0
        self.counts: dict[int, int] = {}
        self.published = 0
        self.settled_total = 0

    def open_term(self, index: int) -> None:
        """A new leader's first entry: what its predecessors may have handed out is fenced off."""
        self.applied = index
        self.redelivered_below = max(self.redelivered_below, min(self.watermark, self.next_position))

    def apply(self, index: int, payload: bytes) -> Published | SettledRuns | OutOfOrder | list[Run] | int:
        """Apply a KIND_DATA entry. Runs are what RETURN gave back, an int is the new watermark."""
        self.applied = index
        kind = payload[0]
        if kind == entries.PUBLISH:
            return self._publish(index, payload)
        if kind == entries.SETTLE:
            outcome, runs = entries.decode_settle(payload)
            return SettledRuns(outcome, runs, self._settle(runs))
        if kind == entries.RETURN:
            return self._give_back(entries.decode_return(payload))
        if kind == entries.WATERMARK:
            self.watermark = max(self.watermark, entries.decode_watermark(payload))
            return self.watermark
        raise ValueError(f"queue entry {index} is of unknown kind {kind}; was it written by a newer version?")

    def _publish(self, index: int, payload: bytes) -> Published | OutOfOrder:
        _, origin, serial, count = entries.publish_head(payload)
        last = self.origins.get(origin, 0)
        base = self.next_position
        if serial <= last:
            return Published(origin, serial, base, 0)
        if serial != last + 1:
            return OutOfOrder(origin, last + 1)
        self.origins.pop(origin, None)
        if len(self.origins) >= MAX_ORIGINS:
            del self.origins[next(iter(self.origins))]
        self.origins[origin] = serial
        self.index.append(base, index, count)
        self.next_position = base + count
        self.messages += count
        self.published += count
        self.bytes += entries.message_bytes(payload, count)
        return Published(origin, serial, base, count)

    def _settle(self, runs: Iterable[Run]) -> int:
        settled = self.settled
        new = 0
        for first, end in runs:
            new += settled.add(first, min(end, self.next_position))
            if self.counts:
                for position in self._counted(first, end):
                    del self.counts[position]
        if new:
            self.bytes -= self.bytes * new // self.messages
            self.messages -= new
            self.settled_total += new
        return new

    def _counted(self, first: int, end: int) -> list[int]:
        if end - first <= len(self.counts):
            return [p for p in range(first, end) if p in self.counts]
        return [p for p in self.counts if first <= p < end]

    def _give_back(self, runs: list[Run]) -> list[Run]:
        for first, end in runs:
            for low, high in self.settled.gaps(first, min(end, self.next_position)):
                for position in range(low, high):
                    self.counts[position] = self.counts.get(position, 0) + 1
        return runs

    def keep_from(self) -> int:
        """The oldest log index whose bytes an unsettled message still needs (applied + 1: none)."""
        floor = self.settled.floor
        self.index.trim(floor)
        if floor >= self.next_position:
            return self.applied + 1
        return self.index.find(floor).entry

    def is_live(self, index: int, base: int, count: int) -> bool:
        """Whether any of the positions [base, base + count) of the entry at ``index`` is unsettled."""
        low, high = self.settled.next_gap(base, base + count)
        return low < high

    def dump(self) -> bytes:
        """The state as bytes: a JSON head, then packed integers."""
        self.index.trim(self.settled.floor)
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
        }
        columns = [
            array("Q", (value for stretch in self.settled.stretches() for value in stretch)),
            array("Q", self.index.flat()),
            array("Q", (value for item in sorted(self.counts.items()) for value in item)),
        ]
        head["columns"] = [len(column) for column in columns]
        text = json.dumps(head).encode()
        return b"".join((len(text).to_bytes(4, "big"), text, *(column.tobytes() for column in columns)))

    @classmethod
    def load(cls, data: bytes) -> QueueState:
        """The state that ``dump`` wrote. Raises ``ValueError`` for another version."""
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
        stretches, flat, counts = columns
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
        ):
            setattr(state, name, head[name])
        state.settled = IntervalSet(head["floor"], zip(stretches[0::2], stretches[1::2], strict=True))
        state.index = PositionIndex(flat)
        state.counts = dict(zip(counts[0::2], counts[1::2], strict=True))
        state.origins = dict(head["origins"])
        return state
