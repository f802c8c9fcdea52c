"""Which messages a queue or exchange has seen before, by the ``x-deduplication-header`` they carry.

Part of the replicated state: time is the leader's stamp in the log, so that all replicas forget alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct

from brokers.engine.core.amqp.properties import decode_properties
from brokers.engine.core.model.arguments import Arguments
from brokers.engine.core.model.death import annotate

HEADER = "x-deduplication-header"
SWITCH = "x-message-deduplication"
"""The argument of a queue or exchange that drops repeated messages; ``x-cache-size`` and ``x-cache-ttl``
(milliseconds) set the window."""
WINDOW = "x-deduplication-window"
"""Tells the queues which window the exchange has that a message came through."""
MARKED = 0x0001
"""The flag of a batch with such messages: the bit that no property has (it would announce more flags)."""
HEADERS_FLAG = 0x2000
FLAGS_AT = 12
HEADER_FLAGS = Struct(">H")
DEFAULT_SIZE = 100_000
"""Keys remembered unless ``x-cache-size`` says otherwise."""


def deduplication_key(header: bytes) -> str | None:
    """The key that a content header carries; numbers count as their text."""
    value = (decode_properties(header).headers or {}).get(HEADER)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return None if value is None or isinstance(value, dict | list) else str(value)


def marked(header: bytes, window: SeenKeys) -> bytes | None:
    """``header`` of a message published through a deduplicating exchange, with the exchange's window for the
    queues to go by; None when it has no key."""
    if not HEADER_FLAGS.unpack_from(header, FLAGS_AT)[0] & HEADERS_FLAG or deduplication_key(header) is None:
        return None
    raw = f"{window.size},{window.ttl or 0}".encode()
    name = WINDOW.encode()
    field = bytes((len(name),)) + name + b"S" + len(raw).to_bytes(4, "big") + raw
    return annotate(header, {WINDOW: field})


def marked_window(header: bytes) -> tuple[int, int | None] | None:
    """(size, ttl) of the window that ``marked`` noted; None when the message went through no such exchange."""
    value = (decode_properties(header).headers or {}).get(WINDOW)
    if not isinstance(value, str):
        return None
    size, _, ttl = value.partition(",")
    return (int(size), int(ttl) or None) if size.isdigit() and ttl.isdigit() else None


def seen_keys(arguments: Arguments) -> SeenKeys | None:
    """The window that ``arguments`` ask for, None when they ask for none."""
    if arguments.get(SWITCH) is not True:
        return None
    size, ttl = arguments.get("x-cache-size"), arguments.get("x-cache-ttl")
    return SeenKeys(
        size if isinstance(size, int) and size > 0 else DEFAULT_SIZE,
        ttl if isinstance(ttl, int) and ttl > 0 else None,
    )


class SeenKeys:
    """The last ``size`` keys, each for ``ttl`` milliseconds (None: as long as there is room)."""

    __slots__ = ("_seen", "size", "ttl")

    def __init__(self, size: int = DEFAULT_SIZE, ttl: int | None = None) -> None:
        self.size = size
        self.ttl = ttl
        self._seen: dict[str, int] = {}
        """Key to the stamp of its first message, oldest first."""

    def __len__(self) -> int:
        return len(self._seen)

    def repeated(self, key: str, stamp: int) -> bool:
        """Note ``key`` at ``stamp`` (ms); whether it was there within the window.

        A repetition does not prolong the window: it begins with the first message.
        """
        seen = self._seen
        if self.ttl is not None:
            while seen:
                oldest = next(iter(seen))
                if stamp - seen[oldest] < self.ttl:
                    break
                del seen[oldest]
        if key in seen:
            return True
        while len(seen) >= self.size:
            del seen[next(iter(seen))]
        seen[key] = stamp
        return False

    def items(self) -> list[tuple[str, int]]:
        """Everything remembered, oldest first, for a snapshot."""
        return list(self._seen.items())

    def restore(self, items: Iterable[tuple[str, int]]) -> None:
        """What ``items`` gave."""
        self._seen = dict(items)
