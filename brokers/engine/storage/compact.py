"""Rewriting a sparse segment: entries nobody will read again lose their payloads, what is void goes.

An entry below its group's snapshot that is no longer live becomes a stub: same index and term, kind
``KIND_NOOP``, no payload. So a group's entries stay dense, and a replica that is rebuilt from this one finds
all of them. The new file takes the old one's name once it is synced, in the writer's thread, where segments
are deleted too. Readers of the old file go on undisturbed.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from brokers.engine.core.raft.records import KIND_CONFIG, KIND_NOOP, Entry
from brokers.engine.storage import format as fmt
from brokers.engine.storage.batch import (
    Item,
    frame_batch,
    item_size,
    small,
    small_hard,
    small_snapshot,
    tabulate,
)
from brokers.engine.storage.catalog import Catalog
from brokers.engine.storage.disk import Disk
from brokers.engine.storage.errors import LogFailed
from brokers.engine.storage.files import NEW, finish_segment
from brokers.engine.storage.groups import GroupLog
from brokers.engine.storage.reading import read_place, read_snapshot_place
from brokers.engine.storage.segment import Handle, Segment, sidecar_path
from brokers.engine.storage.sidecar import pack_sidecar
from brokers.engine.storage.table import SegmentTable
from brokers.engine.storage.writer import Call, Writer

CHUNK = 4 << 20
"""Bytes that are held in memory at once."""

Live = Callable[[int, int], bool]
"""Whether an entry (group, index) will still be read."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What rewriting a segment would do."""

    number: int
    dead: frozenset[tuple[int, int]]
    """(group, index) of the entries that become stubs."""
    size: int
    """Bytes of the segment now."""
    saved: int
    """Bytes the rewriting would give back."""


class Compactor:
    """Plans and carries out the rewriting of closed segments."""

    def __init__(self, folder: Path, catalog: Catalog, writer: Writer, disk: Disk) -> None:
        self._folder = folder
        self._catalog = catalog
        self._writer = writer
        self._disk = disk
        self._running = threading.Lock()

    def plan(self, number: int, live: Live) -> Plan | None:
        """See ``Log.plan_compaction``."""
        catalog = self._catalog
        with catalog.lock:
            segment = catalog.segments.get(number)
            if segment is None or segment.lossy or number == self._writer.current:
                return None
            index = catalog.open.get(segment).index
            kept = fmt.SEGMENT_HEADER
            dead: set[tuple[int, int]] = set()
            for group in map(catalog.groups.get, index.groups()):
                if group is None:
                    continue
                kept += 2 * fmt.RECORD_OVERHEAD
                if group.snapshot_segment == number and group.snapshot is not None:
                    kept += group.snapshot.length
                configs = set(group.configs)
                for entry, length in self._entries(group, number, index.place):
                    kept += fmt.RECORD_OVERHEAD
                    settled = length and entry <= group.base[0] and entry not in configs
                    if settled and not live(group.group, entry):
                        dead.add((group.group, entry))
                    else:
                        kept += length
            return Plan(number, frozenset(dead), segment.size, segment.size - kept)

    @staticmethod
    def _entries(
        group: GroupLog, number: int, place: Callable[[int, int], tuple[int, int]]
    ) -> Iterator[tuple[int, int]]:
        for span in group.spans:
            if span.segment == number:
                for entry in range(span.first, span.last + 1):
                    yield entry, place(group.group, entry)[1]

    def compact(self, plan: Plan) -> bool:
        """See ``Log.compact``."""
        if not self._running.acquire(blocking=False):
            return False
        try:
            return self._rewrite(plan)
        finally:
            self._running.release()

    def _rewrite(self, plan: Plan) -> bool:
        with self._catalog.lock:
            old = self._catalog.segments.get(plan.number)
            if old is None:
                return False
            handle = self._catalog.open.get(old)
        new = old.path.with_name(old.path.name + NEW)
        sidecar = sidecar_path(self._folder, plan.number)
        fd = self._disk.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            segment = self._copy(plan, handle, fd, new, old.path)
            if segment.table is None:
                raise ValueError(f"segment {plan.number} was rewritten without a table")
            self._write_new(sidecar, pack_sidecar(segment.table, plan.number, segment.salt, segment.size))
        except BaseException:
            for path in (new, sidecar.with_name(sidecar.name + NEW)):
                path.unlink(missing_ok=True)
            raise
        finally:
            self._disk.close(fd)
        swapped = threading.Event()
        call = Call([], 0, None, time.monotonic(), lambda: self._swap(old, segment, swapped))
        with self._catalog.lock:
            self._writer.check()
            self._writer.push(call)
        while not swapped.wait(0.1):
            if self._writer.failure is not None:
                raise LogFailed(self._writer.failure)
        return old.salt == segment.salt

    def _write_new(self, path: Path, data: bytes) -> None:
        new = path.with_name(path.name + NEW)
        fd = self._disk.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            self._disk.write(fd, (data,), 0)
            self._disk.sync_all(fd, new)
        finally:
            self._disk.close(fd)

    def _copy(self, plan: Plan, handle: Handle, fd: int, new: Path, path: Path) -> Segment:
        """Write the new file."""
        salt = secrets.randbits(32)
        table = SegmentTable()
        self._disk.write(fd, (fmt.pack_segment_header(plan.number, salt),), 0)
        at, chunk, size = fmt.SEGMENT_HEADER, list[Item](), 0
        for item in self._items(plan, handle):
            chunk.append(item)
            size += item_size(item)
            if size > CHUNK:
                at = self._put(fd, chunk, at, salt, table)
                chunk, size = [], 0
        at = self._put(fd, chunk, at, salt, table)
        return Segment(plan.number, path, salt, finish_segment(self._disk, fd, new, at, salt), table)

    def _put(self, fd: int, items: list[Item], at: int, salt: int, table: SegmentTable) -> int:
        batch = frame_batch(items, at, salt)
        self._disk.write(fd, batch.buffers, at)
        for place in batch.placed:
            tabulate(table, place)
        return batch.end

    def _items(self, plan: Plan, handle: Handle) -> Iterator[Item]:
        """What the new file holds, group by group."""
        catalog, number = self._catalog, plan.number
        for group in handle.index.groups():
            summary = handle.index.summary(group)
            if summary.gone:
                yield small(fmt.GONE, group)
            if summary.cut is not None:
                yield small(fmt.VOID, group, summary.cut)
            with catalog.lock:
                state = catalog.groups.get(group)
                spans = [(s.first, s.last) for s in state.spans if s.segment == number] if state else []
                hard = state.hard_written if state and state.hard_segment == number else None
                snapshot = state.snapshot if state and state.snapshot_segment == number else None
            for first, last in spans:
                for index in range(first, last + 1):
                    yield self._entry(plan, handle, group, index)
            if snapshot is not None:
                yield small_snapshot(read_snapshot_place(handle, group, snapshot))
            if hard is not None:
                yield small_hard(hard)
            if summary.fixed:
                yield small(fmt.FIXED, group)
            if summary.hurt is not None:
                yield small(fmt.HURT, group, summary.hurt)

    @staticmethod
    def _entry(plan: Plan, handle: Handle, group: int, index: int) -> Entry:
        offset, length = handle.index.place(group, index)
        entry = read_place((handle, offset, length), group, index)
        if (group, index) in plan.dead and entry.kind != KIND_CONFIG:
            return entry._replace(kind=KIND_NOOP, payload=b"")
        return entry

    def _swap(self, old: Segment, new: Segment, swapped: threading.Event) -> None:
        """Put the new file in the old one's place. In the writer's thread."""
        catalog, number = self._catalog, old.number
        sidecar = sidecar_path(self._folder, number)
        files = [(path.with_name(path.name + NEW), path) for path in (old.path, sidecar)]
        with catalog.lock:
            here = catalog.segments.get(number) is old
        if not here:
            for path, _ in files:
                self._disk.remove(path)
            swapped.set()
            return
        for path, name in files:
            self._disk.rename(path, name)
        self._disk.sync_folder(self._folder)
        with catalog.lock:
            old.salt, old.size, old.table = new.salt, new.size, None
            catalog.open.drop(number)
            index = new.table
            for group in catalog.groups.values():
                if group.snapshot_segment == number and index is not None:
                    group.snapshot = index.summary(group.group).snapshot
        swapped.set()
