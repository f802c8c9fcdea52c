"""How a segment looks on disk. Integers are big-endian.

A segment file ``00000001.log`` starts with a header of ``SEGMENT_HEADER`` bytes that holds the same block
twice, 512 bytes apart, so that one bad sector does not cost the segment::

    8s magic | u32 version | u32 number | u32 salt | u32 crc32 of these

After it lie *batches*: what one write and one fdatasync brought to disk. A batch is a run of records and
ends with a record of type ``BATCH``. A record is a header of ``HEADER`` bytes and its payload::

    4s magic | u32 crc32(payload) | u32 length | u32 batch | u64 group | u64 index | u64 term
    u8 type | u8 kind | u16 zero | u32 crc32(all of these, seeded with salt + offset)

- The header's own checksum lets a reader step over a damaged payload. Seeded with the segment's random salt
  and the record's offset, it makes a header valid in one place only: neither a stale block nor a message
  body that looks like a record can pass for one.
- ``batch`` is the offset at which the record's batch starts. A batch is written only after everything
  before it was synced, so any valid header proves that all bytes below its ``batch`` had been synced. This
  is what tells damage from a torn tail; ``recovery`` reasons about it.
- The ``BATCH`` record's payload repeats every header of its batch (u32 offset, header): a flipped header is
  restored from it, and when a payload is lost too, we still know whose it was. Its index is the number of
  records before it.

What a type puts where:

====== ============ ================== ====== =======================================================
type   index        term               kind   payload
====== ============ ================== ====== =======================================================
ENTRY  index        term               kind   the entry's
HARD   vote         term
SNAP   index        term               flags  u64 keep_from, u32 length of membership, membership, state
GONE                                          (the group was removed)
HURT   index                                  (the group was found damaged from this index on)
FIXED                                         (the group was repaired from its peers: older losses are void)
VOID   index                                  (entries from this index on, and a snapshot at or above it, are
                                              replaced by what follows)
LIST                                          u32 number of every segment that exists up to the highest named
END                                           (the segment is complete: nothing was written after it)
BATCH  count        end of the records        (u32 offset, header) * count
====== ============ ================== ====== =======================================================
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from brokers.engine.storage.errors import UnsupportedFormat

VERSION = 1
SEGMENT_MAGIC = b"MQCLOG\r\n"
SEGMENT_HEADER = 1024
RECORD_MAGIC = b"\xf5MQr"
HEADER = 48
RECORD_OVERHEAD = HEADER * 2 + 4
"""What a record takes beside its payload: its header, and the header's copy."""
MAX_PAYLOAD = 1 << 30
"""The largest payload of one record."""
MAX_CALL = 3 << 30
"""The most one call of ``append`` may bring: offsets in a segment are 32 bits wide."""

ENTRY = 1
HARD = 2
SNAP = 3
GONE = 4
FIXED = 5
LIST = 6
BATCH = 7
VOID = 8
END = 9
HURT = 10
TYPES = frozenset((ENTRY, HARD, SNAP, GONE, FIXED, LIST, BATCH, VOID, END, HURT))

SNAP_DISCARDS = 1
"""A snapshot's kind: entries above it are void (it was installed over a log that did not contain it)."""

_SEGMENT = struct.Struct(">8sIII")
_HEAD = struct.Struct(">4sIIIQQQBBH")
_CRC = struct.Struct(">I")
_SNAP = struct.Struct(">QI")
_COPY = 4 + HEADER
_MASK = 0xFFFFFFFF


class Header(NamedTuple):
    """A record's header, decoded."""

    type: int
    kind: int
    group: int
    index: int  # type: ignore[assignment]  # the word of Raft, and nobody looks up values in a header
    term: int
    length: int
    batch: int
    payload_crc: int


class Framed(NamedTuple):
    """A record that is not an entry, ready to be written: its header's fields and its payload's parts."""

    type: int
    kind: int
    group: int
    index: int  # type: ignore[assignment]  # the word of Raft, and nobody looks up values in a header
    term: int
    parts: tuple[bytes, ...] = ()


def pack_segment_header(number: int, salt: int) -> bytes:
    """The ``SEGMENT_HEADER`` bytes a segment starts with."""
    block = _SEGMENT.pack(SEGMENT_MAGIC, VERSION, number, salt)
    block += _CRC.pack(crc32(block))
    return block.ljust(SEGMENT_HEADER // 2, b"\0") * 2


def unpack_segment_header(data: bytes, path: Path) -> tuple[int, int] | None:
    """(number, salt) from either copy of a segment's header; None when both are damaged.

    Raises ``UnsupportedFormat`` when a newer release wrote it.
    """
    for start in (0, SEGMENT_HEADER // 2):
        block = data[start : start + _SEGMENT.size + 4]
        if len(block) < _SEGMENT.size + 4 or _CRC.unpack(block[-4:])[0] != crc32(block[:-4]):
            continue
        magic, version, number, salt = _SEGMENT.unpack(block[:-4])
        if magic != SEGMENT_MAGIC:
            continue
        if version > VERSION:
            raise UnsupportedFormat(path, version, VERSION)
        return number, salt
    return None


def pack_header(
    type_: int,
    kind: int,
    group: int,
    index: int,
    term: int,
    length: int,
    batch: int,
    payload_crc: int,
    seed: int,
) -> bytes:
    """A record's header; ``seed`` is the segment's salt plus the record's offset."""
    body = _HEAD.pack(RECORD_MAGIC, payload_crc, length, batch, group, index, term, type_, kind, 0)
    return body + _CRC.pack(crc32(body, seed & _MASK))


def repack(header: Header, seed: int) -> bytes:
    """A header's bytes again."""
    return pack_header(
        header.type,
        header.kind,
        header.group,
        header.index,
        header.term,
        header.length,
        header.batch,
        header.payload_crc,
        seed,
    )


def unpack_header(data: bytes, at: int, seed: int) -> Header | None:
    """The record header at ``at`` of ``data``, None when there is no valid one."""
    body = data[at : at + HEADER]
    if len(body) < HEADER or body[:4] != RECORD_MAGIC:
        return None
    if _CRC.unpack_from(body, HEADER - 4)[0] != crc32(body[:-4], seed & _MASK):
        return None
    _, payload_crc, length, batch, group, index, term, type_, kind, _ = _HEAD.unpack_from(body)
    return Header(type_, kind, group, index, term, length, batch, payload_crc)


def snapshot_parts(keep_from: int, membership: bytes, state: bytes) -> tuple[bytes, bytes, bytes]:
    """A snapshot's payload, in parts."""
    return _SNAP.pack(keep_from, len(membership)), membership, state


def unpack_snapshot(payload: bytes) -> tuple[int, bytes, bytes]:
    """(keep_from, membership, state) of a snapshot's payload."""
    keep_from, length = _SNAP.unpack_from(payload)
    start = _SNAP.size + length
    return keep_from, payload[_SNAP.size : start], payload[start:]


def pack_list(numbers: Iterable[int]) -> bytes:
    """The payload of a ``LIST`` record."""
    return b"".join(_CRC.pack(number) for number in sorted(numbers))


def unpack_list(payload: bytes) -> list[int]:
    """The segment numbers of a ``LIST`` record."""
    return [number for (number,) in _CRC.iter_unpack(payload)]


def pack_copies(offsets: Sequence[int], headers: Sequence[bytes]) -> bytes:
    """The payload of a ``BATCH`` record."""
    parts: list[bytes] = []
    for offset, header in zip(offsets, headers, strict=True):
        parts.append(_CRC.pack(offset))
        parts.append(header)
    return b"".join(parts)


def pack_batch_record(
    offsets: Sequence[int], headers: Sequence[bytes], batch: int, at: int, salt: int
) -> bytes:
    """The ``BATCH`` record that ends a batch, to be written at ``at``."""
    payload = pack_copies(offsets, headers)
    return (
        pack_header(BATCH, 0, 0, len(headers), at, len(payload), batch, crc32(payload), salt + at) + payload
    )


def pack_end(at: int, salt: int) -> bytes:
    """The batch that ends a segment at ``at``."""
    header = pack_header(END, 0, 0, 0, 0, 0, at, 0, salt + at)
    return header + pack_batch_record([at], [header], at, at + HEADER, salt)


def unpack_copies(payload: bytes, salt: int) -> list[tuple[int, Header]]:
    """(offset, header) of every record of a batch, from its ``BATCH`` record."""
    found: list[tuple[int, Header]] = []
    for start in range(0, len(payload) - _COPY + 1, _COPY):
        (offset,) = _CRC.unpack_from(payload, start)
        header = unpack_header(payload, start + 4, salt + offset)
        if header is not None:
            found.append((offset, header))
    return found


def batch_record_size(count: int) -> int:
    """Bytes of the ``BATCH`` record that ends a batch of ``count`` records."""
    return HEADER + count * _COPY
