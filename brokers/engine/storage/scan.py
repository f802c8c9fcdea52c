"""Reading a segment record by record, when it has no sidecar or was the last one written.

Torn tail or damage? One thread writes one batch at a time and starts the next only when fdatasync has said
that the one before is on disk. Every header names the offset ``batch`` at which its batch starts, so a valid
header anywhere proves that all bytes below its ``batch`` were synced. The highest ``batch`` found is the
*watermark*: what fails its checksum below is damage and never cut; at or above lies only the last batch,
which counts as a whole: it is complete, or nobody was told that any of it was durable, and it is cut. (An
idle log ends with an empty batch for this purpose alone: it lifts the watermark over the last real one.)
A segment that has a successor was ended and synced before the successor was created, so all of it lies below
the watermark, and where the record that ends it is missing, the file was cut.

Damage is read around. A damaged payload is stepped over, for the header has its own checksum. A damaged
header is restored from the copy that ends its batch. When there is no copy either, the next valid header is
searched for, and all groups count as damaged: nothing tells whose record it was.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from brokers.engine.storage import format as fmt
from brokers.engine.storage.losses import Damage, Losses, note_record
from brokers.engine.storage.table import SegmentTable, SnapshotPlace

Buffer = mmap.mmap | bytes


class Scan(NamedTuple):
    """What a segment holds."""

    table: SegmentTable
    losses: Losses
    damages: list[Damage]
    end: int
    """Where the segment's good records end; what lies beyond is a torn tail."""
    complete: bool
    """Whether the segment was ended: nothing is missing after its last record."""
    restored: list[tuple[int, bytes]]
    """(offset, header) of headers to be written back from their copies."""


class _Found(NamedTuple):
    offset: int
    header: fmt.Header
    good: bool


def scan(data: Buffer, path: Path, salt: int, *, last: bool) -> Scan:
    """Read a segment; ``last`` says that it has no successor, so that its end may be torn."""
    found, gaps = _walk(data, salt)
    end = len(data)
    if last:
        end = _end_of_synced(found)
        found = [item for item in found if item.offset < end]
        gaps = [(a, min(b, end)) for a, b in gaps if a < end]
    restored, unknown = _restore(data, salt, found, gaps)
    found = sorted(found + restored)
    complete = any(
        item.header.type == fmt.END and _ends_at(item) + fmt.batch_record_size(1) == end
        for item in found[-2:]
    )
    if not last and not complete:
        unknown.append((end, end))
    back = [(item.offset, fmt.repack(item.header, salt + item.offset)) for item in restored if item.good]
    table, losses, damages = _interpret(data, path, found, unknown)
    return Scan(table, losses, damages, end, complete, back)


def _ends_at(item: _Found) -> int:
    return item.offset + fmt.HEADER + item.header.length


def _walk(data: Buffer, salt: int) -> tuple[list[_Found], list[tuple[int, int]]]:
    """All records with valid headers, and the stretches between them."""
    found: list[_Found] = []
    gaps: list[tuple[int, int]] = []
    at, size = fmt.SEGMENT_HEADER, len(data)
    while at < size:
        header = fmt.unpack_header(data[at : at + fmt.HEADER], 0, salt + at)
        if header is None:
            following = _next_header(data, at + 1, salt)
            gaps.append((at, following))
            at = following
            continue
        found.append(_Found(at, header, _payload_good(data, at, header)))
        at += fmt.HEADER + header.length
    return found, gaps


def _next_header(data: Buffer, at: int, salt: int) -> int:
    """The next offset with a valid header, the end when there is none."""
    while True:
        at = data.find(fmt.RECORD_MAGIC, at)
        if at < 0:
            return len(data)
        if fmt.unpack_header(data[at : at + fmt.HEADER], 0, salt + at) is not None:
            return at
        at += 1


def _payload_good(data: Buffer, at: int, header: fmt.Header) -> bool:
    start = at + fmt.HEADER
    if start + header.length > len(data):
        return False
    with memoryview(data) as view, view[start : start + header.length] as payload:
        return crc32(payload) == header.payload_crc


def _end_of_synced(found: list[_Found]) -> int:
    """Where the last complete batch ends."""
    watermark = max((item.header.batch for item in found), default=fmt.SEGMENT_HEADER)
    at, count = watermark, 0
    for item in found:
        if item.offset < watermark:
            continue
        if item.offset != at or not item.good:
            return watermark
        at = _ends_at(item)
        if item.header.type == fmt.BATCH:
            return at if item.header.index == count else watermark
        count += 1
    return watermark


def _restore(
    data: Buffer, salt: int, found: list[_Found], gaps: list[tuple[int, int]]
) -> tuple[list[_Found], list[tuple[int, int]]]:
    """Records in the gaps that a copy of their header names, and the stretches nothing accounts for."""
    if not gaps:
        return [], []
    copies: dict[int, fmt.Header] = {}
    for item in found:
        if item.header.type == fmt.BATCH and item.good:
            start = item.offset + fmt.HEADER
            copies.update(fmt.unpack_copies(data[start : start + item.header.length], salt))
    restored: list[_Found] = []
    unknown: list[tuple[int, int]] = []
    for start, end in gaps:
        at = start
        while at < end and at in copies:
            header = copies[at]
            restored.append(_Found(at, header, _payload_good(data, at, header)))
            at += fmt.HEADER + header.length
        if at < end and not _is_batch_record(at, end, found + restored):
            unknown.append((at, end))
    return restored, unknown


def _is_batch_record(start: int, end: int, found: list[_Found]) -> bool:
    """Whether the stretch is a ``BATCH`` record, whose loss loses nothing.

    It is when its length is what the records before it, all of one batch from its start on, make it, and
    when the next batch starts at its end.
    """
    before = sorted(item for item in found if item.offset < start)
    after = [item for item in found if item.offset >= end]
    if after and min(after).header.batch != end:
        return False
    at, count, batch = start, 0, start
    for item in reversed(before):
        if _ends_at(item) != at or item.header.type == fmt.BATCH:
            break
        at, batch = item.offset, item.header.batch
        count += 1
    return at == batch and end - start == fmt.batch_record_size(count)


def _interpret(
    data: Buffer, path: Path, found: list[_Found], unknown: list[tuple[int, int]]
) -> tuple[SegmentTable, Losses, list[Damage]]:
    """Replay the records in order."""
    table, losses = SegmentTable(), Losses()
    damages: list[Damage] = []
    stretches = list(reversed(unknown))
    for offset, header, good in found:
        while stretches and stretches[-1][0] < offset:
            _lose_unknown(losses, damages, path, stretches.pop())
        if good:
            note_record(losses, header)
            _take(data, table, losses, offset, header)
        elif header.type != fmt.BATCH:
            damages.append(_lose(table, losses, path, offset, header))
    for stretch in reversed(stretches):
        _lose_unknown(losses, damages, path, stretch)
    return table, losses, damages


def _take(data: Buffer, table: SegmentTable, losses: Losses, offset: int, header: fmt.Header) -> None:
    group, start = header.group, offset + fmt.HEADER
    if header.type == fmt.ENTRY:
        table.entry(group, header.index, header.term, header.kind, offset, header.length)
    elif header.type == fmt.HARD:
        table.hard(group, header.term, header.index)
    elif header.type == fmt.SNAP:
        keep_from, _, _ = fmt.unpack_snapshot(data[start : start + header.length])
        discards = bool(header.kind & fmt.SNAP_DISCARDS)
        if discards:
            losses.voided(group, header.index + 1)
        losses.snapshot(group, keep_from)
        place = SnapshotPlace(header.index, header.term, keep_from, offset, header.length)
        table.snapshot(group, place, discards)
    elif header.type == fmt.GONE:
        table.gone(group)
    elif header.type == fmt.VOID:
        table.void(group, header.index)
    elif header.type == fmt.HURT:
        table.hurt(group, header.index)
    elif header.type == fmt.FIXED:
        table.fixed(group)
    elif header.type == fmt.LIST:
        table.listed = fmt.unpack_list(data[start : start + header.length])


def _lose(table: SegmentTable, losses: Losses, path: Path, offset: int, header: fmt.Header) -> Damage:
    group, what = header.group, f"record of type {header.type}"
    if header.type == fmt.ENTRY:
        what = f"entry {header.index}"
        table.lost(group, header.index)
        losses.lost_entries(group, header.index, header.index)
    elif header.type == fmt.SNAP:
        what = f"snapshot at {header.index}"
        if header.kind & fmt.SNAP_DISCARDS:
            table.void(group, header.index + 1)
            losses.voided(group, header.index + 1)
        losses.lost_snapshot(group, header.index)
    return Damage(path, offset, fmt.HEADER + header.length, group, what)


def _lose_unknown(losses: Losses, damages: list[Damage], path: Path, stretch: tuple[int, int]) -> None:
    losses.lost_unknown()
    damages.append(Damage(path, stretch[0], stretch[1] - stretch[0], None, "unknown records"))
