"""The system calls the log makes, in one place: what tests fail on purpose and what a power cut undoes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

IOV_MAX = os.sysconf("SC_IOV_MAX") if hasattr(os, "sysconf") else 1024


class Disk:
    """Writing calls of the log. Every method raises ``OSError`` as the system call does."""

    def open(self, path: Path, flags: int) -> int:
        """A file descriptor; a new file gets mode 600, for message bodies are private."""
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def write(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        """Write all of ``buffers`` at ``offset``, in as many calls as IOV_MAX and short writes need."""
        start = 0
        while start < len(buffers):
            part = buffers[start : start + IOV_MAX]
            written = self.pwritev(fd, part, offset)
            offset += written
            if written == sum(map(len, part)):
                start += len(part)
                continue
            for buffer in part:
                if written < len(buffer):
                    break
                written -= len(buffer)
                start += 1
            if written:
                offset += self._rest(fd, buffers[start], written, offset)
                start += 1

    def _rest(self, fd: int, buffer: bytes, done: int, offset: int) -> int:
        view = memoryview(buffer)[done:]
        total = len(view)
        while view:
            written = self.pwritev(fd, (view,), offset)
            view = view[written:]
            offset += written
        return total

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        """One ``pwritev``; the number of bytes written, which may be short."""
        return os.pwritev(fd, buffers, offset)

    def sync(self, fd: int, path: Path) -> None:
        """``fdatasync``: the file's data, and the size needed to read it, are durable."""
        os.fdatasync(fd)

    def sync_all(self, fd: int, path: Path) -> None:
        """``fsync``: a shortened file's size is durable too."""
        os.fsync(fd)

    def sync_folder(self, folder: Path) -> None:
        """Make created, renamed and deleted names of ``folder`` durable."""
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def allocate(self, fd: int, size: int) -> None:
        """Reserve blocks for ``size`` bytes."""
        os.posix_fallocate(fd, 0, size)

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file to ``size`` bytes."""
        os.ftruncate(fd, size)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file its final name; durable after ``sync_folder``."""
        os.rename(old, new)

    def remove(self, path: Path) -> None:
        """Delete a file; durable after ``sync_folder``."""
        os.unlink(path)
