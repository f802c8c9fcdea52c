"""The one thread that writes: group commit, new segments, deletion of old ones.

Everything appended since the last write goes out as one vectored write and one fdatasync; what is appended
meanwhile forms the next batch. A call of ``append`` is never split over two batches, and a batch counts as a
whole after a crash, so a call is on disk completely or not at all.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from brokers.engine.storage.batch import Item, Placed, frame_batch
from brokers.engine.storage.catalog import Catalog
from brokers.engine.storage.disk import Disk
from brokers.engine.storage.errors import LogClosed, LogFailed, LogFull
from brokers.engine.storage.files import (
    NO_ROOM,
    create_segment,
    finish_segment,
    remove_segments,
    write_sidecar,
)
from brokers.engine.storage.segment import Handle, Segment
from brokers.engine.storage.settings import LogSettings
from brokers.engine.storage.table import SegmentTable


class Call(NamedTuple):
    """What one call of ``append`` brought."""

    items: list[Item]
    size: int
    token: int | None
    at: float
    done: Callable[[], None] | None = None
    """Run by the writer once the call is durable."""


@dataclass(slots=True)
class SyncTimes:
    """How long write + fdatasync took, in seconds."""

    last: float = 0.0
    average: float = 0.0
    """Exponentially weighted, the last one counting an eighth."""
    longest: float = 0.0
    count: int = 0

    def note(self, took: float) -> None:
        """Count one."""
        self.last = took
        self.average += (took - self.average) / 8 if self.count else took
        self.longest = max(self.longest, took)
        self.count += 1


class Writer:
    """The writer thread and its queue."""

    def __init__(
        self,
        folder: Path,
        catalog: Catalog,
        disk: Disk,
        settings: LogSettings,
        number: int,
        on_synced: Callable[[int], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._folder = folder
        self._catalog = catalog
        self._disk = disk
        self._settings = settings
        self._on_synced = on_synced
        self._on_failure = on_failure
        self._wake = threading.Condition(catalog.lock)
        self._queue: deque[Call] = deque()
        self._queued_bytes = 0
        self._sleeping = False
        self._closing = False
        self._marked = True
        self._ended = False
        self._next_number = number
        self._busy_since: float | None = None
        self.full = False
        self.failure: Exception | None = None
        self.times = SyncTimes()
        self._segment, self._table, self._handle = self._create()
        catalog.segments[self._segment.number] = self._segment
        self._tidy: Callable[[], None] = self.check
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

    def start(self, tidy: Callable[[], None]) -> None:
        """Start the thread; it calls ``tidy`` when a segment may go."""
        self._tidy = tidy
        self._thread.start()

    # Called by other threads, with the catalog's lock held.

    def push(self, call: Call) -> None:
        """Take a call."""
        self._queue.append(call)
        self._queued_bytes += call.size
        self.wake()

    def wake(self) -> None:
        """There is something to do."""
        if self._sleeping:
            self._sleeping = False
            self._wake.notify()

    def check(self) -> None:
        """Raises ``LogFailed`` or ``LogClosed`` when nothing can be appended any more."""
        if self.failure is not None:
            raise LogFailed(self.failure)
        if self._closing:
            raise LogClosed

    def waiting_since(self) -> float | None:
        """When the oldest call that isn't durable yet was appended."""
        if self._busy_since is not None:
            return self._busy_since
        return self._queue[0].at if self._queue else None

    @property
    def depth(self) -> tuple[int, int]:
        """(calls, bytes) that wait for the next batch."""
        return len(self._queue), self._queued_bytes

    @property
    def current(self) -> int:
        """The number of the segment being written."""
        return self._segment.number

    def close(self) -> None:
        """Write what waits, mark the end, close the segment. Not with the lock held."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    # The thread.

    def _run(self) -> None:
        try:
            while True:
                batch = self._next_batch()
                if batch is None:
                    break
                if batch:
                    self._commit(batch)
                elif not self._marked:
                    self._mark()
                if self._catalog.freed:
                    self._tidy()
            self._finish()
        except Exception as error:  # whatever it is: nothing more may be claimed durable
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        with self._wake:
            self.failure = error
        self._on_failure(error)

    def _next_batch(self) -> list[Call] | None:
        """The calls of the next batch; empty: the log is idle; None: it is being closed."""
        limit = self._settings.batch_bytes
        with self._wake:
            self._busy_since = None
            while not self._queue:
                if self._closing:
                    return None
                if self._catalog.freed:
                    return []
                self._sleeping = True
                woken = self._wake.wait(None if self._marked else self._settings.mark_after)
                self._sleeping = False
                if not woken and not self._queue:
                    return []
            self._busy_since = self._queue[0].at
            batch: list[Call] = []
            size = 0
            room = self._settings.segment_bytes - self._segment.size
            while self._queue:
                call = self._queue[0]
                if batch and (size + call.size > limit or size + call.size > room):
                    break
                batch.append(self._queue.popleft())
                size += call.size
            self._queued_bytes -= size
        return batch

    def _commit(self, batch: list[Call]) -> None:
        size = sum(call.size for call in batch)
        started = time.monotonic()
        while True:
            try:
                if self._segment.size + size > self._settings.segment_bytes and self._table.tables:
                    self._roll()
                placed, end = self._write([item for call in batch for item in call.items])
                break
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                self._wait_for_room(error)
        self._disk.sync(self._handle.fd, self._segment.path)
        self.times.note(time.monotonic() - started)
        with self._wake:
            self.full = False
            self._segment.size = end
            self._catalog.written(self._segment, self._table, placed)
        self._marked = False
        tokens = [call.token for call in batch if call.token is not None]
        if tokens:
            self._on_synced(max(tokens))
        for call in batch:
            if call.done is not None:
                call.done()

    def _mark(self) -> None:
        """An empty batch: its header says that everything before was synced."""
        try:
            _, end = self._write([])
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self._marked = True
            return
        self._disk.sync(self._handle.fd, self._segment.path)
        with self._wake:
            self._segment.size = end
        self._marked = True

    def _write(self, items: list[Item]) -> tuple[list[Placed], int]:
        """Write a batch; without room for it the segment is cut back to where it was."""
        start = self._segment.size
        batch = frame_batch(items, start, self._segment.salt)
        try:
            self._disk.write(self._handle.fd, batch.buffers, start)
        except OSError as error:
            if error.errno in NO_ROOM:
                self._disk.truncate(self._handle.fd, start)
            raise
        return batch.placed, batch.end

    def _wait_for_room(self, cause: OSError) -> None:
        """Report a full disk once, then wait a little; raises it when the log is being closed."""
        with self._wake:
            first, self.full = not self.full, True
        if first:
            self._on_failure(LogFull(self._folder, cause))
        with self._wake:
            if self._closing:
                raise LogFull(self._folder, cause)
            self._wake.wait(self._settings.retry_after)

    # Segments.

    def _create(self) -> tuple[Segment, SegmentTable, Handle]:
        number, reserve = self._next_number, 0
        if self._settings.preallocate:
            reserve = self._settings.segment_bytes
        with self._catalog.lock:
            existing = list(self._catalog.segments)
        segment = create_segment(self._disk, self._folder, number, existing, reserve)
        self._next_number += 1
        table, handle = segment.table, segment.handle
        if table is None or handle is None:
            raise ValueError(f"segment {number} was created without a table or file")
        return segment, table, handle

    def _roll(self) -> None:
        """Close the segment and go on in a new one."""
        self._close_segment()
        created = self._create()
        self._ended = False
        with self._catalog.lock:
            self._segment, self._table, self._handle = created
            self._catalog.segments[self._segment.number] = self._segment
            self._catalog.freed = True

    def _close_segment(self) -> None:
        """End the segment, once: a full disk may stop us before the next one is there."""
        if self._ended:
            return
        segment = self._segment
        segment.size = finish_segment(self._disk, self._handle.fd, segment.path, segment.size, segment.salt)
        self._ended = True
        if write_sidecar(self._disk, self._folder, segment, self._table):
            self._disk.sync_folder(self._folder)
            with self._catalog.lock:
                segment.table = None
                segment.handle = None

    def _finish(self) -> None:
        self._close_segment()

    def remove(self, numbers: list[int]) -> None:
        """Delete segments nothing needs any more; the list on disk no longer names them."""
        with self._catalog.lock:
            for number in numbers:
                del self._catalog.segments[number]
                self._catalog.open.drop(number)
        remove_segments(self._disk, self._folder, numbers)
