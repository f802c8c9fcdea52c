"""A disk that loses power: what was not synced may be there, in part, or garbled, or not at all.

Bytes that were synced stay as they are, also in a sector that later bytes share. Names become durable with
their folder; until then a prefix of the changes may have happened.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

from brokers.engine.storage.disk import Disk

SECTOR = 512


class PowerCut(Exception):
    """The power is off."""


class _File:
    def __init__(self, content: bytes = b"") -> None:
        self.durable = content
        self.content = content


class PowerDisk(Disk):
    """Cuts the power at the ``cut_at``-th call that changes something."""

    def __init__(self, folder: Path, rng: random.Random, cut_at: int) -> None:
        self._folder = folder
        self._rng = rng
        self._left = cut_at
        self.off = False
        self._names = {path: _File(path.read_bytes()) for path in folder.glob("*.*")}
        self._durable = dict(self._names)
        self._pending: list[tuple[Path, _File | None]] = []
        self._open: dict[int, _File] = {}

    def _step(self) -> bool:
        """Whether the power goes with this call."""
        if self.off:
            raise PowerCut
        self._left -= 1
        self.off = self._left < 0
        return self.off

    def _change(self, path: Path, file: _File | None) -> None:
        self._pending.append((path, file))
        if file is None:
            self._names.pop(path, None)
        else:
            self._names[path] = file

    def open(self, path: Path, flags: int) -> int:
        if self._step():
            raise PowerCut
        if flags & os.O_TRUNC or path not in self._names:
            self._change(path, _File())
        fd = super().open(path, flags)
        self._open[fd] = self._names[path]
        return fd

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        data = b"".join(bytes(buffer) for buffer in buffers)
        last = self._step()
        if last or self._rng.random() < 0.1:
            data = data[: self._rng.randint(1, len(data))]
        written = os.pwrite(fd, data, offset)
        self._look(fd)
        if last:
            raise PowerCut
        return written

    def _look(self, fd: int) -> None:
        self._open[fd].content = os.pread(fd, os.fstat(fd).st_size, 0)

    def sync(self, fd: int, path: Path) -> None:
        last = self._step()
        if not last or self._rng.random() < 0.5:
            self._open[fd].durable = self._open[fd].content
        if last:
            raise PowerCut

    sync_all = sync

    def sync_folder(self, folder: Path) -> None:
        last = self._step()
        if not last or self._rng.random() < 0.5:
            self._durable = dict(self._names)
            self._pending.clear()
        if last:
            raise PowerCut

    def allocate(self, fd: int, size: int) -> None:
        if self._step():
            raise PowerCut
        super().allocate(fd, size)
        self._look(fd)

    def truncate(self, fd: int, size: int) -> None:
        if self._step():
            raise PowerCut
        super().truncate(fd, size)
        self._look(fd)

    def rename(self, old: Path, new: Path) -> None:
        if self._step():
            raise PowerCut
        super().rename(old, new)
        file = self._names[old]
        self._change(old, None)
        self._change(new, file)

    def remove(self, path: Path) -> None:
        if self._step():
            raise PowerCut
        super().remove(path)
        self._change(path, None)

    def leave(self) -> None:
        """Put into the folder what the power cut left of it."""
        names = dict(self._durable)
        for path, file in self._pending[: self._rng.randint(0, len(self._pending))]:
            if file is None:
                names.pop(path, None)
            else:
                names[path] = file
        for path in self._folder.glob("*.*"):
            path.unlink()
        for path, file in names.items():
            path.write_bytes(self._mixed(file))

    def _mixed(self, file: _File) -> bytes:
        """The synced bytes, and of the others what the disk made of them."""
        old, new, rng = file.durable, file.content, self._rng
        size = rng.choice((len(old), len(new), rng.randint(*sorted((len(old), len(new))))))
        old, new = old.ljust(size, b"\0"), new.ljust(size, b"\0")
        result = bytearray(old[:size])
        for at in range(0, size, SECTOR):
            end = min(at + SECTOR, size)
            fate = rng.random()
            if fate < 0.6:
                result[at:end] = new[at:end]
            elif fate < 0.7:
                for byte in range(at, end):
                    if old[byte] != new[byte]:
                        result[byte] = rng.randrange(256)
        return bytes(result)
