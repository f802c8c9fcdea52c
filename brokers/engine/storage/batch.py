"""Records on their way to the disk: how a batch is framed, and how its records enter a segment's table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

from brokers.engine.core.raft.records import Entry, HardState, Snapshot
from brokers.engine.storage import format as fmt
from brokers.engine.storage.groups import GroupLog
from brokers.engine.storage.table import SegmentTable, SnapshotPlace


@dataclass(frozen=True, slots=True)
class Small:
    """A record that is not an entry."""

    frame: fmt.Framed
    record: HardState | Snapshot | None = None
    owner: GroupLog | None = None
    """The group's state at the time; a group that was removed and came back has another."""


Item = Entry | Small


def small(type_: int, group: int, index: int = 0, payload: bytes = b"") -> Small:
    """A record of the log's own."""
    return Small(fmt.Framed(type_, 0, group, index, 0, (payload,) if payload else ()))


def small_hard(record: HardState, owner: GroupLog | None = None) -> Small:
    """A hard state."""
    return Small(fmt.Framed(fmt.HARD, 0, record.group, record.vote, record.term), record, owner)


def small_snapshot(record: Snapshot, owner: GroupLog | None = None, kind: int = 0) -> Small:
    """A snapshot."""
    parts = fmt.snapshot_parts(record.keep_from, record.membership, record.state)
    frame = fmt.Framed(fmt.SNAP, kind, record.group, record.index, record.term, parts)
    return Small(frame, record, owner)


def item_size(item: Item) -> int:
    """Bytes an item takes in the log, its header's copy included."""
    payload = len(item.payload) if isinstance(item, Entry) else sum(map(len, item.frame.parts))
    return fmt.RECORD_OVERHEAD + payload


class Placed(NamedTuple):
    """An item that was written at ``offset`` with ``length`` bytes of payload."""

    item: Item
    offset: int
    length: int


class Batch(NamedTuple):
    """A batch ready to be written: its bytes in parts, where each item will lie, and where it ends."""

    buffers: list[bytes]
    placed: list[Placed]
    end: int


def frame_batch(items: Iterable[Item], start: int, salt: int) -> Batch:
    """Frame ``items`` as the batch at ``start``. Payloads are not copied."""
    at = start
    buffers: list[bytes] = []
    headers: list[bytes] = []
    placed: list[Placed] = []
    for item in items:
        if isinstance(item, Entry):
            payload = item.payload
            length = len(payload)
            header = fmt.pack_header(
                fmt.ENTRY, item.kind, item.group, item.index, item.term,
                length, start, crc32(payload), salt + at,
            )  # fmt: skip
            buffers.append(header)
            buffers.append(payload)
        else:
            type_, kind, group, index, term, parts = item.frame
            length = crc = 0
            for part in parts:
                length += len(part)
                crc = crc32(part, crc)
            header = fmt.pack_header(type_, kind, group, index, term, length, start, crc, salt + at)
            buffers.append(header)
            buffers.extend(parts)
        headers.append(header)
        placed.append(Placed(item, at, length))
        at += fmt.HEADER + length
    tail = fmt.pack_batch_record([place.offset for place in placed], headers, start, at, salt)
    buffers.append(tail)
    return Batch(buffers, placed, at + len(tail))


def tabulate(table: SegmentTable, place: Placed) -> None:
    """Enter a written item into its segment's table."""
    item, offset, length = place
    if isinstance(item, Entry):
        table.entry(item.group, item.index, item.term, item.kind, offset, length)
        return
    frame = item.frame
    if frame.type == fmt.HARD:
        table.hard(frame.group, frame.term, frame.index)
    elif frame.type == fmt.SNAP and isinstance(item.record, Snapshot):
        found = SnapshotPlace(frame.index, frame.term, item.record.keep_from, offset, length)
        table.snapshot(frame.group, found, bool(frame.kind & fmt.SNAP_DISCARDS))
    elif frame.type == fmt.GONE:
        table.gone(frame.group)
    elif frame.type == fmt.VOID:
        table.void(frame.group, frame.index)
    elif frame.type == fmt.HURT:
        table.hurt(frame.group, frame.index)
    elif frame.type == fmt.FIXED:
        table.fixed(frame.group)
    elif frame.type == fmt.LIST:
        table.listed = fmt.unpack_list(frame.parts[0])
