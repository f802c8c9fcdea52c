"""The node's log: what the rest of the engine sees of this package."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from brokers.engine.core.raft.records import Entry, GroupImage, Record, Snapshot
from brokers.engine.storage import format as fmt
from brokers.engine.storage.batch import item_size, small
from brokers.engine.storage.catalog import Catalog
from brokers.engine.storage.compact import Compactor, Live, Plan
from brokers.engine.storage.disk import Disk
from brokers.engine.storage.errors import FolderInUse
from brokers.engine.storage.groups import GroupLog
from brokers.engine.storage.losses import Damage
from brokers.engine.storage.reading import read_entries, read_snapshot
from brokers.engine.storage.reclaim import Reclaimer
from brokers.engine.storage.recovery import image, recover
from brokers.engine.storage.settings import LogSettings
from brokers.engine.storage.writer import Call, Writer


class LogStats(NamedTuple):
    """The log at a glance. Bytes, seconds."""

    segments: int
    bytes: int
    groups: int
    cached_bytes: int
    queued_calls: int
    queued_bytes: int
    syncs: int
    last_sync: float
    average_sync: float
    longest_sync: float
    full: bool
    """The disk is full; records wait for room."""
    failed: bool


def _raise(error: Exception) -> None:
    raise error


class Log:
    """One append-only log for all groups of a node (a ``LogReader``).

    Methods may be called from any thread; calls of ``append`` keep their order.
    """

    def __init__(
        self,
        folder: Path,
        lock: int,
        catalog: Catalog,
        writer: Writer,
        compactor: Compactor,
        damages: list[Damage],
    ) -> None:
        self._folder = folder
        self._lock = lock
        self._catalog = catalog
        self._writer = writer
        self._compactor = compactor
        self.damages = damages
        """What was found damaged on opening. One whose ``group`` is None may have cost any group something,
        one that is in no image included."""

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        settings: LogSettings,
        on_synced: Callable[[int], None],
        on_failure: Callable[[Exception], None] = _raise,
        disk: Disk | None = None,
    ) -> tuple[Log, list[GroupImage]]:
        """Open the log in ``folder`` (created when missing) and recover what it holds.

        ``on_synced(token)``: all calls of ``append`` up to the one with this token are durable.
        ``on_failure(error)``: a ``LogFull`` (it goes on by itself once there is room) or whatever made the
        log fail for good. Both are called by the writer thread.

        Raises ``FolderInUse`` when another process has it open, ``UnsupportedFormat`` when a newer release
        wrote it, ``OSError`` when the folder cannot be read or written.
        """
        disk = disk or Disk()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _lock(folder)
        try:
            catalog = Catalog(folder, settings)
            found = recover(folder, catalog, disk)
            writer = Writer(folder, catalog, disk, settings, found.highest + 1, on_synced, on_failure)
        except BaseException:
            os.close(lock)
            raise
        log = cls(folder, lock, catalog, writer, Compactor(folder, catalog, writer, disk), found.damages)
        images = [image(catalog, state) for state in list(catalog.groups.values())]
        with catalog.lock:
            hurt = [
                small(fmt.HURT, state.group, state.damaged)
                for state in catalog.groups.values()
                if state.damaged is not None and not state.hurt
            ]
            if hurt:
                size = sum(map(item_size, hurt))
                writer.push(Call(list(hurt), size, None, time.monotonic()))
        writer.start(Reclaimer(catalog, writer).reclaim)
        return log, sorted(images)

    def append(self, records: Sequence[Record], token: int) -> None:
        """Queue records, to be written together; returns at once, and ``read`` sees them at once.

        After a crash all records of a call are there or none. ``token`` must not fall from call to call.
        Entries that belong to an installed snapshot come before it or in the same call.

        Raises ``LogFailed`` after a failed write or sync, ``LogClosed``, and ``ValueError`` when a payload or
        the whole call is too large (nothing is appended then).
        """
        size = 0
        for record in records:
            length = fmt.RECORD_OVERHEAD
            if isinstance(record, Entry):
                length += len(record.payload)
            elif isinstance(record, Snapshot):
                length += len(record.membership) + len(record.state)
            if length > fmt.MAX_PAYLOAD:
                raise ValueError(f"a record of {length} bytes is larger than the log's {fmt.MAX_PAYLOAD}")
            size += length
        if size > fmt.MAX_CALL:
            raise ValueError(f"a call of {size} bytes is larger than the log's {fmt.MAX_CALL}; split it")
        now = time.monotonic()
        with self._catalog.lock:
            self._writer.check()
            items = self._catalog.add(records)
            self._writer.push(Call(items, size, token, now))

    def read(self, group: int, low: int, high: int, max_bytes: int) -> list[Entry]:
        """Entries of ``group`` from ``low`` to ``high``, both included, in order (see ``LogReader``).

        Stops at the first index that is missing. Raises ``LookupError`` when ``low`` is, ``DamagedRecord``
        when an entry's checksum fails.
        """
        return read_entries(self._catalog, group, low, high, max_bytes)

    def snapshot(self, group: int) -> Snapshot:
        """The group's last snapshot.

        Raises ``LookupError`` when there is none, ``DamagedRecord`` when its checksum fails.
        """
        return read_snapshot(self._catalog, group)

    def image(self, group: int) -> GroupImage | None:
        """The group as it is now, None when the log knows nothing of it."""
        with self._catalog.lock:
            state = self._catalog.groups.get(group)
        return None if state is None else image(self._catalog, state)

    def release(self, group: int, keep_from: int) -> None:
        """Entries of ``group`` below ``keep_from`` are no longer needed: a snapshot covers them.

        Deletes the segments nothing needs any more, in the background. Raises ``ValueError`` when the
        group's snapshot does not cover them, ``KeyError`` when the group is unknown.
        """
        with self._catalog.lock:
            state = self._catalog.groups[group]
            if keep_from > state.base[0] + 1:
                raise ValueError(
                    f"entries of group {group} below {keep_from} cannot go: its snapshot is at "
                    f"{state.base[0]}"
                )
            if keep_from > state.released:
                self._catalog.release(state, keep_from)
            if self._catalog.freed:
                self._writer.wake()

    def closed_segments(self) -> list[int]:
        """The segments that are no longer written, oldest first: candidates for compaction."""
        with self._catalog.lock:
            return sorted(number for number in self._catalog.segments if number != self._writer.current)

    def plan_compaction(self, number: int, live: Live) -> Plan | None:
        """What rewriting segment ``number`` would give back, None when it cannot be rewritten.

        ``live(group, index)`` is asked, with the log's lock held, for every entry up to its group's snapshot:
        will it be read again? Those above, and changes of membership, always stay.
        """
        return self._compactor.plan(number, live)

    def compact(self, plan: Plan) -> bool:
        """Rewrite a segment as planned; False when it has gone meanwhile or another one is being rewritten.

        Takes as long as copying the segment and blocks: not for an event loop's thread. Raises
        ``DamagedRecord`` when what is to be kept is damaged, ``OSError`` when there is no room (the old file
        stays), ``LogFailed``.
        """
        return self._compactor.compact(plan)

    def mark_repaired(self, group: int) -> None:
        """The group was repaired from its peers: older losses no longer matter.

        Call it after the records of the repair were appended; what was damaged may then be deleted.
        """
        with self._catalog.lock:
            state: GroupLog | None = self._catalog.groups.get(group)
            if state is not None:
                state.damaged = None
            self._writer.check()
            self._catalog.freed = True
            item = small(fmt.FIXED, group)
            self._writer.push(Call([item], item_size(item), None, time.monotonic()))

    def stalled_for(self, now: float) -> float:
        """Seconds the oldest call that isn't durable has been waiting at ``now`` (monotonic); 0: none."""
        with self._catalog.lock:
            since = self._writer.waiting_since()
        return 0.0 if since is None else max(0.0, now - since)

    def free_bytes(self) -> int:
        """Free bytes of the log's file system."""
        usage = os.statvfs(self._folder)
        return usage.f_bavail * usage.f_frsize

    def stats(self) -> LogStats:
        """Sizes and times."""
        with self._catalog.lock:
            calls, queued = self._writer.depth
            times = self._writer.times
            return LogStats(
                len(self._catalog.segments),
                sum(segment.size for segment in self._catalog.segments.values()),
                len(self._catalog.groups),
                self._catalog.tail_bytes,
                calls,
                queued,
                times.count,
                times.last,
                times.average,
                times.longest,
                self._writer.full,
                self._writer.failure is not None,
            )

    def close(self) -> None:
        """Write and sync what waits, then let go of the folder. Does nothing the second time."""
        if self._lock < 0:
            return
        self._writer.close()
        self._catalog.open.clear()
        os.close(self._lock)
        self._lock = -1


def _lock(folder: Path) -> int:
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise FolderInUse(folder) from None
    return fd
