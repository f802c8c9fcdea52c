"""Opening a log: from the files of a folder to the groups' images.

Segments are taken in ascending order. One with a good sidecar is not read; others are scanned (``scan`` tells
a torn tail from damage). The highest segment alone may have a torn tail, which is cut. It also holds the last
list of the segments that exist: one that isn't in it, but older than the newest that is, was about to be
deleted and goes; one that is listed but missing is damage. The log then goes on in a new segment: what was
recovered is synced first and never written again.

A gap between a group's entries that no damage explains is the trace of a snapshot whose data came ahead of it
and that never arrived: what lies above the gap is not part of the group's log yet, and is left out.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path

from brokers.engine.core.raft.records import GroupImage, HardState, Snapshot
from brokers.engine.storage import format as fmt
from brokers.engine.storage.catalog import Catalog
from brokers.engine.storage.disk import Disk
from brokers.engine.storage.errors import DamagedRecord
from brokers.engine.storage.files import NEW, finish_segment, remove_segments, write_sidecar
from brokers.engine.storage.groups import GroupLog
from brokers.engine.storage.losses import Damage, Losses
from brokers.engine.storage.reading import read_snapshot
from brokers.engine.storage.scan import Scan, scan
from brokers.engine.storage.segment import Segment, log_path, sidecar_path
from brokers.engine.storage.sidecar import Sidecar
from brokers.engine.storage.table import Index, SegmentTable


@dataclass(slots=True)
class Recovered:
    """What a folder holds."""

    highest: int = 0
    damages: list[Damage] = field(default_factory=list)


@dataclass(slots=True)
class _Loaded:
    segment: Segment
    index: Index
    losses: Losses
    listed: list[int] | None
    missing: bool = False


def recover(folder: Path, catalog: Catalog, disk: Disk) -> Recovered:
    """Fill ``catalog`` from the folder's files, cut the torn tail, delete left-overs.

    Raises ``UnsupportedFormat`` when a newer release wrote one of them, before anything is changed.
    """
    numbers = sorted(int(path.stem) for path in folder.glob("*.log"))
    for number in numbers:
        with log_path(folder, number).open("rb") as file:
            fmt.unpack_segment_header(file.read(fmt.SEGMENT_HEADER), log_path(folder, number))
    for path in folder.glob("*" + NEW):
        disk.remove(path)
    result = Recovered(max(numbers, default=0))
    loaded = {number: _load(folder, number, numbers[-1], disk, result.damages) for number in numbers}
    listed = loaded[numbers[-1]].listed if numbers else None
    if listed is not None:
        stale = [number for number in numbers if number < max(listed) and number not in listed]
        for number in stale:
            del loaded[number]
        if stale:
            remove_segments(disk, folder, stale)
        for number in set(listed) - set(numbers):
            loaded[number] = _missing(folder, number, result.damages)
    _apply(catalog, [loaded[number] for number in sorted(loaded)], disk, folder)
    return result


def _load(folder: Path, number: int, highest: int, disk: Disk, damages: list[Damage]) -> _Loaded:
    path = log_path(folder, number)
    size = path.stat().st_size
    with path.open("rb") as file:
        header = fmt.unpack_segment_header(file.read(fmt.SEGMENT_HEADER), path)
    sidecar = Sidecar.open(sidecar_path(folder, number), number)
    if sidecar is not None and header is not None and header[1] != sidecar.salt:
        sidecar = None
    if sidecar is not None and sidecar.size == size:
        segment = Segment(number, path, sidecar.salt, size, None)
        return _Loaded(segment, sidecar, Losses(), sidecar.listed)
    if header is None and sidecar is None:
        damages.append(Damage(path, 0, size, None, "the whole segment: both copies of its header"))
        losses = Losses()
        losses.lost_unknown()
        table = SegmentTable()
        return _Loaded(Segment(number, path, 0, size, table), table, losses, None)
    salt = header[1] if header is not None else sidecar.salt if sidecar is not None else 0
    found = _scan_file(path, salt, number == highest and sidecar is None, disk)
    damages.extend(found.damages)
    segment = Segment(number, path, salt, found.end, found.table)
    loaded = _Loaded(segment, found.table, found.losses, found.table.listed)
    if sidecar is not None and sidecar.size > size:
        _beyond_end(sidecar, path, size, loaded, damages)
    return loaded


def _scan_file(path: Path, salt: int, last: bool, disk: Disk) -> Scan:
    fd = disk.open(path, os.O_RDWR)
    try:
        if os.fstat(fd).st_size == 0:
            return scan(b"", path, salt, last=last)
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as data:
            found = scan(data, path, salt, last=last)
        for offset, header in found.restored:
            disk.write(fd, (header,), offset)
        if last and not found.complete:
            end = finish_segment(disk, fd, path, found.end, salt)
            return found._replace(end=end)
        if last or found.restored:
            disk.truncate(fd, found.end)
            disk.sync_all(fd, path)
        return found
    finally:
        disk.close(fd)


def _missing(folder: Path, number: int, damages: list[Damage]) -> _Loaded:
    """A segment that should exist: its sidecar may still say what was in it."""
    path = log_path(folder, number)
    table = SegmentTable()
    loaded = _Loaded(Segment(number, path, 0, 0, table), table, Losses(), None, missing=True)
    sidecar = Sidecar.open(sidecar_path(folder, number), number)
    if sidecar is None:
        damages.append(Damage(path, 0, 0, None, "the whole segment: the file is missing"))
        loaded.losses.lost_unknown()
    else:
        _beyond_end(sidecar, path, 0, loaded, damages)
    return loaded


def _beyond_end(sidecar: Sidecar, path: Path, size: int, loaded: _Loaded, damages: list[Damage]) -> None:
    """Records the sidecar knows beyond the segment's end are lost."""
    table = loaded.segment.table
    if table is None:
        return
    for group in sidecar.groups():
        summary = sidecar.summary(group)
        if summary.gone and not table.mentions(group):
            table.gone(group)
            loaded.losses.cleared(group)
        for first, last in summary.runs:
            for index in range(first, last + 1):
                offset, length = sidecar.place(group, index)
                if offset + fmt.HEADER + length > size:
                    table.lost(group, index)
                    loaded.losses.lost_entries(group, index, last)
                    damages.append(Damage(path, offset, length, group, f"entries {index} to {last}"))
                    break
        if summary.hard is not None:
            table.hard(group, *summary.hard)
        place = summary.snapshot
        if place is not None and place.offset + fmt.HEADER + place.length > size:
            loaded.losses.lost_snapshot(group, place.index)
            damages.append(Damage(path, place.offset, place.length, group, f"snapshot at {place.index}"))


def _apply(catalog: Catalog, loaded: list[_Loaded], disk: Disk, folder: Path) -> None:
    losses = Losses()
    sidecars = False
    for item in loaded:
        segment = item.segment
        catalog.segments[segment.number] = segment
        for group in item.index.groups():
            summary = item.index.summary(group)
            losses.superseded_by(summary)
            catalog.apply(segment, summary)
        losses.add(item.losses)
        segment.lossy = bool(item.losses) or item.missing
        if segment.table is not None and not segment.lossy:
            if write_sidecar(disk, folder, segment, segment.table):
                segment.table = None
            sidecars = True
    if sidecars:
        disk.sync_folder(folder)
    for number in losses.groups():
        catalog.group(number)
    for state in catalog.groups.values():
        state.last = max(state.last, state.base[0])
        state.hurt = state.damaged is not None
        found = [index for index in (state.damaged, losses.first_lost(state)) if index is not None]
        state.damaged = min(found, default=None)
        hole = state.hole(state.base[0] + 1, state.last)
        if hole is not None and state.damaged is None:
            catalog.void_from(state, hole)
        if state.snapshot is not None and state.snapshot.keep_from > state.released:
            catalog.release(state, state.snapshot.keep_from)


def image(catalog: Catalog, state: GroupLog) -> GroupImage:
    """What consensus gets to know of a group."""
    snapshot: Snapshot | None = None
    try:
        snapshot = read_snapshot(catalog, state.group)
    except LookupError:
        snapshot = None
    except DamagedRecord:
        state.damaged, state.hurt = 1, False
        state.snapshot, state.snapshot_segment, state.base = None, 0, (0, 0)
    hard = state.hard or HardState(state.group, 0, 0)
    first = state.lowest()
    terms = [(max(first, index), term) for index, term in state.terms if index <= state.last]
    while len(terms) > 1 and terms[1][0] <= first:
        del terms[0]
    if first > state.last:
        terms = []
    highest = max(hard.term, terms[-1][1] if terms else 0, snapshot.term if snapshot is not None else 0)
    if highest > hard.term:
        hard = HardState(state.group, highest, 0)
    return GroupImage(
        state.group, hard, snapshot, first, state.last, terms, state.damaged, tuple(state.configs)
    )
