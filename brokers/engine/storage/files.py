"""Creating, closing and deleting segment files, in an order that survives a power cut at every step.

A file gets its final name only after its content was synced; a name counts only after its folder was synced.
So a segment that has its name has had a good header, and what is unreadable in it is damage.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

from brokers.engine.storage import format as fmt
from brokers.engine.storage.disk import Disk
from brokers.engine.storage.segment import Handle, Segment, log_path, sidecar_path
from brokers.engine.storage.sidecar import pack_sidecar
from brokers.engine.storage.table import SegmentTable

NEW = ".new"
"""Suffix of files that do not have their final name yet; left-overs are deleted at the next start."""

NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def write_file(disk: Disk, path: Path, data: bytes) -> None:
    """Write, sync and name a whole file; the folder is not synced yet."""
    new = path.with_name(path.name + NEW)
    fd = disk.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        disk.write(fd, (data,), 0)
        disk.sync_all(fd, new)
    finally:
        disk.close(fd)
    disk.rename(new, path)


def write_sidecar(disk: Disk, folder: Path, segment: Segment, table: SegmentTable) -> bool:
    """Write a closed segment's sidecar; False when there is no room (then the index stays in memory)."""
    path = sidecar_path(folder, segment.number)
    try:
        write_file(disk, path, pack_sidecar(table, segment.number, segment.salt, segment.size))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        path.with_name(path.name + NEW).unlink(missing_ok=True)
        return False
    return True


def create_segment(disk: Disk, folder: Path, number: int, existing: Iterable[int], reserve: int) -> Segment:
    """Create the segment to be written next; ``existing`` are the segments to list in it.

    ``reserve`` bytes are allocated when there is room for them. The folder is synced.
    """
    salt = secrets.randbits(32)
    path = log_path(folder, number)
    new = path.with_name(path.name + NEW)
    fd = disk.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        if reserve:
            _reserve(disk, fd, reserve)
        numbers = sorted({*existing, number})
        first = frame_list(numbers, salt)
        disk.write(fd, (fmt.pack_segment_header(number, salt), first), 0)
        disk.sync_all(fd, new)
        disk.rename(new, path)
        disk.sync_folder(folder)
    except OSError:
        disk.close(fd)
        new.unlink(missing_ok=True)
        raise
    table = SegmentTable()
    table.listed = numbers
    segment = Segment(number, path, salt, fmt.SEGMENT_HEADER + len(first), table)
    segment.handle = Handle(path, fd, salt, table)
    return segment


def _reserve(disk: Disk, fd: int, size: int) -> None:
    """Allocate blocks; without room for all of them the segment grows as it is written."""
    try:
        disk.allocate(fd, size)
    except OSError as error:
        if error.errno not in NO_ROOM and error.errno != errno.EOPNOTSUPP:
            raise
        disk.truncate(fd, 0)


def frame_list(numbers: Iterable[int], salt: int) -> bytes:
    """The first batch of a segment: the list of those that exist."""
    start = fmt.SEGMENT_HEADER
    payload = fmt.pack_list(numbers)
    header = fmt.pack_header(fmt.LIST, 0, 0, 0, 0, len(payload), start, crc32(payload), salt + start)
    end = start + fmt.HEADER + len(payload)
    return header + payload + fmt.pack_batch_record([start], [header], start, end, salt)


def finish_segment(disk: Disk, fd: int, path: Path, size: int, salt: int) -> int:
    """End a segment of ``size`` bytes: mark it complete, cut it there and sync it. Its size now."""
    end = fmt.pack_end(size, salt)
    disk.write(fd, (end,), size)
    size += len(end)
    disk.truncate(fd, size)
    disk.sync_all(fd, path)
    return size


def remove_segments(disk: Disk, folder: Path, numbers: Iterable[int]) -> None:
    """Delete segments and their sidecars."""
    for number in numbers:
        for path in (log_path(folder, number), sidecar_path(folder, number)):
            if path.exists():
                disk.remove(path)
    disk.sync_folder(folder)
