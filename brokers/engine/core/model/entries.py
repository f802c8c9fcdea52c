"""The entries of a queue's replicated log, and the messages inside them.

The layout stands in ``docs/architecture.md``. A publish entry holds a whole batch, so that consensus and
disk work per batch; a table of ends lets a reader find any message without parsing the ones before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

PUBLISH, SETTLE, RETURN, WATERMARK, DEAD, RETRY = 1, 2, 3, 4, 5, 6

_stamp = Struct(">BQI")
_batch = Struct(">QQIHI")
_settle = Struct(">BBqI")
_return = Struct(">BiQI")
_dead = Struct(">BBQI")
_retry = Struct(">BQI")
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
    LIMIT = 5


Run = tuple[int, int]
"""Positions [first, end)."""


class PublishHead(NamedTuple):
    """The fixed head of a publish entry; ``stamp`` is the leader's wall clock in milliseconds.

    Of the ``size`` messages the first ``taken`` are the queue's, the others were refused. ``flags`` are the
    first eight property flags (``expiration`` is the last) of all of them together, ``bodies`` is how many
    bytes their bodies take.
    """

    stamp: int
    taken: int
    origin: int
    serial: int
    size: int
    flags: int
    bodies: int


def message_prefix(route: bytes, header: bytes) -> bytes:
    """What stands before route, header and body of a message in a batch."""
    return _message.pack(len(route), len(header))


def encode_batch(
    origin: int, serial: int, ends: Sequence[int], parts: Sequence[bytes], flags: int = 0, bodies: int = 0
) -> bytes:
    """A batch of messages as an origin sends it to the leader; ``parts`` are the messages' bytes in order.

    For ``flags`` and ``bodies`` see ``PublishHead``.
    """
    count = len(ends)
    head = _batch.pack(origin, serial, count, flags, bodies)
    return b"".join((head, Struct(f">{count}I").pack(*ends), *parts))


def encode_publish(stamp: int, batch: bytes, taken: int | None = None) -> bytes:
    """The leader's entry for an origin's batch, stamped with its wall clock in milliseconds.

    ``taken``: how many of its messages the queue has room for; None for all.
    """
    if taken is None:
        taken = batch_identity(batch)[2]
    return _stamp.pack(PUBLISH, stamp, taken) + batch


def batch_identity(batch: bytes) -> tuple[int, int, int]:
    """(origin, serial, count) of a batch as an origin sent it."""
    origin, serial, count, _, _ = _batch.unpack_from(batch)
    return origin, serial, count


def publish_head(payload: bytes) -> PublishHead:
    """The fixed head of a publish entry."""
    _, stamp, taken = _stamp.unpack_from(payload)
    return PublishHead(stamp, taken, *_batch.unpack_from(payload, BATCH_OFFSET))


class Messages:
    """Reads messages out of a publish entry, those refused included."""

    __slots__ = ("count", "ends", "flags", "payload", "stamp", "start")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        head = publish_head(payload)
        self.stamp, self.count, self.flags = head.stamp, head.size, head.flags
        self.ends: tuple[int, ...] = Struct(f">{self.count}I").unpack_from(payload, TABLE_OFFSET)
        self.start = TABLE_OFFSET + 4 * self.count

    def slice(self, first: int, end: int) -> tuple[list[int], bytes]:
        """Messages [first, end): their ends, relative to the first one's start, and their raw bytes."""
        before = self.ends[first - 1] if first else 0
        ends = self.ends[first:end]
        data = self.payload[self.start + before : self.start + ends[-1]]
        return ([e - before for e in ends] if before else list(ends)), data

    def body_sizes(self, first: int, end: int) -> list[int]:
        """How many bytes the bodies of messages [first, end) take."""
        sizes = []
        at = self.ends[first - 1] if first else 0
        for stop in self.ends[first:end]:
            route, header = _message.unpack_from(self.payload, self.start + at)
            sizes.append(stop - at - MESSAGE_PREFIX - route - header)
            at = stop
        return sizes


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


def encode_settle(outcome: Settled, runs: Sequence[Run], bodies: int = -1) -> bytes:
    """Messages left the queue. ``bodies``: how many bytes their bodies took, where the leader counts that."""
    return _settle.pack(SETTLE, outcome, bodies, len(runs)) + encode_runs(runs)


def encode_return(runs: Sequence[Run], limit: int | None = None, stamp: int = 0) -> bytes:
    """Messages were given back unsettled; their delivery count rises. Those whose count gets above ``limit``
    die at ``stamp``.
    """
    return _return.pack(RETURN, -1 if limit is None else limit, stamp, len(runs)) + encode_runs(runs)


def encode_dead(outcome: Settled, stamp: int, runs: Sequence[Run]) -> bytes:
    """Messages are to be dead-lettered; they died at ``stamp`` and will be settled with ``outcome``."""
    return _dead.pack(DEAD, outcome, stamp, len(runs)) + encode_runs(runs)


def encode_retry(due: int, runs: Sequence[Run]) -> bytes:
    """Messages were rejected and are to be delivered again from ``due`` on (wall clock, milliseconds)."""
    return _retry.pack(RETRY, due, len(runs)) + encode_runs(runs)


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


def decode_settle(payload: bytes) -> tuple[Settled, int, list[Run]]:
    """What ``encode_settle`` wrote."""
    _, outcome, bodies, count = _settle.unpack_from(payload)
    return Settled(outcome), bodies, decode_runs(payload, _settle.size, count)


def decode_return(payload: bytes) -> tuple[int | None, int, list[Run]]:
    """What ``encode_return`` wrote: (limit, stamp, runs)."""
    _, limit, stamp, count = _return.unpack_from(payload)
    return (None if limit < 0 else limit), stamp, decode_runs(payload, _return.size, count)


def decode_dead(payload: bytes) -> tuple[Settled, int, list[Run]]:
    """What ``encode_dead`` wrote."""
    _, outcome, stamp, count = _dead.unpack_from(payload)
    return Settled(outcome), stamp, decode_runs(payload, _dead.size, count)


def decode_retry(payload: bytes) -> tuple[int, list[Run]]:
    """What ``encode_retry`` wrote."""
    _, due, count = _retry.unpack_from(payload)
    return due, decode_runs(payload, _retry.size, count)


def decode_watermark(payload: bytes) -> int:
    """What ``encode_watermark`` wrote."""
    position: int = _watermark.unpack_from(payload)[1]
    return position
