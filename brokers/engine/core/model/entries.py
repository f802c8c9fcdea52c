"""The entries of a queue's replicated log, and the messages inside them.

The layout stands in ``docs/architecture.md``. A publish entry holds a whole batch, so that consensus and
disk work per batch; a table of ends lets a reader find any message without parsing the ones before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

PUBLISH, SETTLE, RETURN, WATERMARK = 1, 2, 3, 4

_stamp = Struct(">BQ")
_batch = Struct(">QQI")
_settle = Struct(">BBI")
_return = Struct(">BI")
_watermark = Struct(">BQ")
_message = Struct(">HI")

MESSAGE_PREFIX = _message.size
BATCH_OFFSET = _stamp.size
TABLE_OFFSET = _stamp.size + _batch.size


class Settled(IntEnum):
    """Why messages left the queue."""

    ACK = 0
    REJECT = 1
    PURGE = 2
    EXPIRE = 3
    DROP = 4


Run = tuple[int, int]
"""Positions [first, end)."""


class PublishHead(NamedTuple):
    """The fixed head of a publish entry; ``stamp`` is the leader's wall clock in milliseconds."""

    stamp: int
    origin: int
    serial: int
    size: int


def message_prefix(route: bytes, header: bytes) -> bytes:
    """What stands before route, header and body of a message in a batch."""
    return _message.pack(len(route), len(header))


def encode_batch(origin: int, serial: int, ends: Sequence[int], parts: Sequence[bytes]) -> bytes:
    """A batch of messages as an origin sends it to the leader; ``parts`` are the messages' bytes in order."""
    count = len(ends)
    return b"".join((_batch.pack(origin, serial, count), Struct(f">{count}I").pack(*ends), *parts))


def encode_publish(stamp: int, batch: bytes) -> bytes:
    """The leader's entry for an origin's batch, stamped with its wall clock in milliseconds."""
    return _stamp.pack(PUBLISH, stamp) + batch


def batch_identity(batch: bytes) -> tuple[int, int, int]:
    """(origin, serial, count) of a batch as an origin sent it."""
    origin, serial, count = _batch.unpack_from(batch)
    return origin, serial, count


def publish_head(payload: bytes) -> PublishHead:
    """The fixed head of a publish entry."""
    return PublishHead(_stamp.unpack_from(payload)[1], *_batch.unpack_from(payload, BATCH_OFFSET))


def message_bytes(payload: bytes, count: int) -> int:
    """How many bytes the messages of a publish entry take."""
    return len(payload) - TABLE_OFFSET - 4 * count


class Messages:
    """Reads messages out of a publish entry."""

    __slots__ = ("count", "ends", "payload", "stamp", "start")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.stamp, _, _, self.count = publish_head(payload)
        self.ends: tuple[int, ...] = Struct(f">{self.count}I").unpack_from(payload, TABLE_OFFSET)
        self.start = TABLE_OFFSET + 4 * self.count

    def slice(self, first: int, end: int) -> tuple[list[int], bytes]:
        """Messages [first, end): their ends, relative to the first one's start, and their raw bytes."""
        before = self.ends[first - 1] if first else 0
        ends = self.ends[first:end]
        data = self.payload[self.start + before : self.start + ends[-1]]
        return ([e - before for e in ends] if before else list(ends)), data


def split(ends: Sequence[int], data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """(route, header, body) of each of the messages that ``Messages.slice`` gave."""
    found = []
    start = 0
    unpack = _message.unpack_from
    for end in ends:
        route_length, header_length = unpack(data, start)
        route = start + MESSAGE_PREFIX
        header = route + route_length
        body = header + header_length
        found.append((data[route:header], data[header:body], data[body:end]))
        start = end
    return found


def encode_settle(outcome: Settled, runs: Sequence[Run]) -> bytes:
    """Messages left the queue."""
    return _settle.pack(SETTLE, outcome, len(runs)) + encode_runs(runs)


def encode_return(runs: Sequence[Run]) -> bytes:
    """Messages were given back unsettled; their delivery count rises."""
    return _return.pack(RETURN, len(runs)) + encode_runs(runs)


def encode_watermark(position: int) -> bytes:
    """Positions below may be handed out from now on."""
    return _watermark.pack(WATERMARK, position)


def encode_runs(runs: Sequence[Run]) -> bytes:
    """Runs as pairs of u64."""
    return Struct(f">{2 * len(runs)}Q").pack(*(value for run in runs for value in run))


def decode_runs(data: bytes | memoryview, offset: int, count: int) -> list[Run]:
    """``count`` runs that start at ``offset``."""
    flat = Struct(f">{2 * count}Q").unpack_from(data, offset)
    return list(zip(flat[0::2], flat[1::2], strict=True))


def decode_settle(payload: bytes) -> tuple[Settled, list[Run]]:
    """What ``encode_settle`` wrote."""
    _, outcome, count = _settle.unpack_from(payload)
    return Settled(outcome), decode_runs(payload, _settle.size, count)


def decode_return(payload: bytes) -> list[Run]:
    """What ``encode_return`` wrote."""
    _, count = _return.unpack_from(payload)
    return decode_runs(payload, _return.size, count)


def decode_watermark(payload: bytes) -> int:
    """What ``encode_watermark`` wrote."""
    position: int = _watermark.unpack_from(payload)[1]
    return position
