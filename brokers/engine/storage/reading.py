"""Reading entries and snapshots back: from the tail cache, else from disk with their checksums verified."""

from __future__ import annotations

import os
from zlib import crc32

from brokers.engine.core.raft.records import Entry, Snapshot
from brokers.engine.storage import format as fmt
from brokers.engine.storage.catalog import Catalog
from brokers.engine.storage.errors import DamagedRecord
from brokers.engine.storage.segment import Handle
from brokers.engine.storage.table import SnapshotPlace

Place = tuple[Handle, int, int]
"""An open segment, a record's offset in it and its payload's length."""


def read_entries(catalog: Catalog, group: int, low: int, high: int, max_bytes: int) -> list[Entry]:
    """See ``Log.read``."""
    with catalog.lock:
        plan = _plan(catalog, group, low, high, max_bytes)
    return [
        item if isinstance(item, Entry) else read_place(item, group, low + step)
        for step, item in enumerate(plan)
    ]


def _plan(catalog: Catalog, group: int, low: int, high: int, max_bytes: int) -> list[Entry | Place]:
    """Where the entries are; nothing is read while the lock is held."""
    state = catalog.groups.get(group)
    if state is None:
        raise LookupError(f"the log has no group {group}")
    plan: list[Entry | Place] = []
    total = 0
    span = None
    handle: Handle | None = None
    for index in range(low, min(high, state.last) + 1):
        item: Entry | Place | None = state.recent.get(index)
        if isinstance(item, Entry):
            length = len(item.payload)
        else:
            if span is None or handle is None or not span.first <= index <= span.last:
                span = state.span_of(index)
                if span is None:
                    break
                handle = catalog.open.get(catalog.segments[span.segment])
            try:
                offset, length = handle.index.place(group, index)
            except KeyError:  # its index was rebuilt after damage, without this entry
                raise DamagedRecord(group, index, handle.path, 0) from None
            item = (handle, offset, length)
        total += length
        if plan and total > max_bytes:
            break
        plan.append(item)
    if not plan:
        raise LookupError(
            f"the log of group {group} has no entry {low}: it holds {state.lowest()} to {state.last}"
        )
    return plan


def read_place(place: Place, group: int, index: int) -> Entry:
    """The entry at a place; raises ``DamagedRecord`` when it is not there in good order."""
    header, payload = _read_record(place, group, index)
    if header.type != fmt.ENTRY or header.group != group or header.index != index:
        raise _damaged(place[0], group, index, place[1])
    return Entry(group, index, header.term, header.kind, payload)


def _damaged(handle: Handle, group: int, index: int, offset: int) -> DamagedRecord:
    """The error, after the sidecar went: the next start scans the segment and sees what it lost."""
    handle.path.with_suffix(".idx").unlink(missing_ok=True)
    return DamagedRecord(group, index, handle.path, offset)


def _read_record(place: Place, group: int, index: int) -> tuple[fmt.Header, bytes]:
    handle, offset, length = place
    data = os.pread(handle.fd, fmt.HEADER + length, offset)
    header = fmt.unpack_header(data, 0, handle.salt + offset)
    payload = data[fmt.HEADER :]
    if header is None or header.length != len(payload) or header.payload_crc != crc32(payload):
        raise _damaged(handle, group, index, offset)
    return header, payload


def read_snapshot(catalog: Catalog, group: int) -> Snapshot:
    """See ``Log.snapshot``."""
    with catalog.lock:
        state = catalog.groups.get(group)
        if state is not None and state.waiting and state.waiting[-1][1:3] == state.base:
            return state.waiting[-1]
        if state is None or state.snapshot is None:
            raise LookupError(f"the log has no snapshot of group {group}")
        found = state.snapshot
        handle = catalog.open.get(catalog.segments[state.snapshot_segment])
    return read_snapshot_place(handle, group, found)


def read_snapshot_place(handle: Handle, group: int, place: SnapshotPlace) -> Snapshot:
    """The snapshot at a place; raises ``DamagedRecord`` when it is not there in good order."""
    header, payload = _read_record((handle, place.offset, place.length), group, place.index)
    if header.type != fmt.SNAP or header.group != group:
        raise _damaged(handle, group, place.index, place.offset)
    keep_from, membership, state = fmt.unpack_snapshot(payload)
    return Snapshot(group, header.index, header.term, membership, state, keep_from)
