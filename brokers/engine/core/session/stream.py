"""Reading a queue like a stream: from an offset on, taking nothing out of it.

A consumer with ``x-stream-offset`` sees every message that the queue retains, settled ones included, in
order; its acknowledgements only make room for more. Readers are the leader's, beside the dispatcher.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from brokers.engine.core.amqp.table import Timestamp
from brokers.engine.core.model import entries
from brokers.engine.core.model.death import annotate, long_field
from brokers.engine.core.model.delivery import UNBOUNDED, WINDOW_BYTES, ConsumerKey
from brokers.engine.core.model.entries import Messages
from brokers.engine.core.model.queue_state import QueueState
from brokers.engine.core.session import messages as m

OFFSET = "x-stream-offset"
READ_BYTES = 1 << 20
"""About how many bytes a reader is handed in one turn."""


class Start(IntEnum):
    """Where a reader begins; POSITION and TIME go with a value."""

    FIRST = 0
    LAST = 1
    NEXT = 2
    POSITION = 3
    TIME = 4


def parse_offset(value: object) -> tuple[Start, int]:
    """What a consumer's ``x-stream-offset`` asks for; times in milliseconds since 1970.

    Raises ``ValueError`` for anything but first, last, next, a position or a timestamp.
    """
    if isinstance(value, Timestamp):
        return Start.TIME, 1000 * int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Start.POSITION, value
    named = {"first": Start.FIRST, "last": Start.LAST, "next": Start.NEXT}
    if isinstance(value, str) and value in named:
        return named[value], 0
    raise ValueError(f"{OFFSET} is first, last, next, an offset or a timestamp, not {value!r:.80}")


class Reader:
    """One consumer. ``position`` is the next that it gets."""

    __slots__ = ("credit", "position", "room", "windowed")

    def __init__(self, position: int, credit: int, windowed: bool) -> None:
        self.position = position
        self.credit = credit
        self.windowed = windowed
        self.room = WINDOW_BYTES if windowed else UNBOUNDED


class Readers:
    """All readers of one queue, where it is led."""

    def __init__(self, state: QueueState, read: Callable[[int], Messages]) -> None:
        self._state = state
        self._read = read
        self._readers: dict[ConsumerKey, Reader] = {}
        self.delivered = 0

    def __len__(self) -> int:
        return len(self._readers)

    def __contains__(self, key: ConsumerKey) -> bool:
        return key in self._readers

    def add(self, key: ConsumerKey, message: m.Follow) -> int:
        """A reader joins; the position it begins at."""
        position = max(self._state.kept, self._find(Start(message.mode), message.value))
        self._readers[key] = Reader(position, message.credit, message.windowed)
        return position

    def remove(self, key: ConsumerKey) -> bool:
        """A reader leaves; whether there was one."""
        return self._readers.pop(key, None) is not None

    def remove_node(self, node: int) -> bool:
        """A node's readers are gone; whether there was any."""
        gone = [key for key in self._readers if key[0] == node]
        for key in gone:
            del self._readers[key]
        return bool(gone)

    def credit(self, key: ConsumerKey, amount: int, size: int) -> None:
        """A reader may have ``amount`` more messages, or ``size`` more bytes."""
        reader = self._readers[key]
        reader.credit += amount
        if reader.windowed:
            reader.room += size

    def limit(self, key: ConsumerKey, credit: int, windowed: bool) -> None:
        """A reader's prefetch limit is another now; it holds nothing under the former."""
        reader = self._readers[key]
        reader.credit, reader.windowed = credit, windowed
        reader.room = WINDOW_BYTES if windowed else UNBOUNDED

    def _find(self, start: Start, value: int) -> int:
        state = self._state
        if start is Start.FIRST:
            return state.kept
        if start is Start.LAST:
            return max(state.kept, state.next_position - 1)
        if start is Start.POSITION:
            return value
        if start is Start.TIME:
            return self._at_time(value)
        return state.next_position

    def _at_time(self, stamp: int) -> int:
        """The first position published at ``stamp`` (ms) or later."""
        state = self._state
        mark = state.marks.at_time(stamp)
        position = max(state.kept, mark.position if mark is not None else 0)
        while position < state.next_position:
            entry, base, size = state.index.find(position)
            if self._read(entry).stamp >= stamp:
                break
            position = base + size
        return position

    def pump(self) -> tuple[list[tuple[int, m.Message]], bool]:
        """Messages for the readers' nodes, and whether there is more than fits in one turn."""
        out: list[tuple[int, m.Message]] = []
        more = False
        for (node, consumer), reader in self._readers.items():
            pieces = self._take(reader)
            if pieces:
                out.append((node, m.Deliver(0, consumer, pieces)))
                more |= reader.credit > 0 and reader.room > 0
        return out, more and any(r.position < self._state.next_position for r in self._readers.values())

    def _take(self, reader: Reader) -> list[m.Piece]:
        state = self._state
        reader.position = max(reader.position, state.kept)
        pieces: list[m.Piece] = []
        size = 0
        while (
            reader.credit > 0
            and reader.room > 0
            and size < READ_BYTES
            and reader.position < state.next_position
        ):
            first = reader.position
            entry, base, count = state.index.find(first)
            end = min(base + count, first + reader.credit)
            ends, data = _with_offsets(first, *self._read(entry).slice(first - base, end - base))
            pieces.append((first, False, ends, data))
            size += len(data)
            reader.position = end
            reader.credit -= end - first
            if reader.windowed:
                reader.room -= len(data)
            self.delivered += end - first
        return pieces


def _with_offsets(first: int, ends: list[int], data: bytes) -> tuple[list[int], bytes]:
    """The messages from ``first`` on, each with its position in the header ``x-stream-offset``."""
    parts: list[bytes] = []
    stops: list[int] = []
    size = 0
    for position, (route, header, body) in enumerate(entries.split(ends, data), first):
        header = annotate(header, {OFFSET: long_field(OFFSET, position)})
        message = b"".join((entries.message_prefix(route, header), route, header, body))
        size += len(message)
        stops.append(size)
        parts.append(message)
    return stops, b"".join(parts)
