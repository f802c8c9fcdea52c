"""A power cut for real processes: kill -9 leaves the page cache, so it never tests that anything was synced.

A node that runs with a ``TracingDisk`` writes down what it synced. When it has been killed, ``cut_power``
takes from its folder what a power cut could have taken: it shortens and garbles the bytes written after the
last sync of each file and gives files back the names they had before the last sync of their folder.

A trace is a file of JSON lines: ``["synced", name, length]``, ``["renamed", old, new]``,
``["folder", ""]``.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

from brokers.engine.storage.disk import Disk

SECTOR = 512


class TracingDisk(Disk):
    """A disk that appends to ``trace`` what is durable. Test mode: one more write for each sync."""

    def __init__(self, trace: Path) -> None:
        self._trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._written: dict[int, int] = {}

    def _note(self, *items: str | int) -> None:
        os.write(self._trace, json.dumps(items).encode() + b"\n")

    def open(self, path: Path, flags: int) -> int:
        fd = super().open(path, flags)
        self._written[fd] = 0
        return fd

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        written = super().pwritev(fd, buffers, offset)
        self._written[fd] = max(self._written[fd], offset + written)
        return written

    def truncate(self, fd: int, size: int) -> None:
        super().truncate(fd, size)
        self._written[fd] = min(self._written[fd], size)

    def sync(self, fd: int, path: Path) -> None:
        written = self._written[fd]
        super().sync(fd, path)
        self._note("synced", path.name, written)

    def sync_all(self, fd: int, path: Path) -> None:
        written = self._written[fd]
        super().sync_all(fd, path)
        self._note("synced", path.name, written)

    def sync_folder(self, folder: Path) -> None:
        super().sync_folder(folder)
        self._note("folder", "")

    def rename(self, old: Path, new: Path) -> None:
        self._note("renamed", old.name, new.name)
        super().rename(old, new)


def cut_power(folder: Path, trace: Path, rng: random.Random) -> None:
    """Do to the log in ``folder``, whose process is dead, what a power cut could have done."""
    synced: dict[str, int] = {}
    renamed: list[tuple[str, str]] = []
    for line in trace.read_bytes().splitlines():
        event, name, *rest = json.loads(line)
        if event == "synced":
            synced[name] = rest[0]
        elif event == "renamed":
            synced[rest[0]] = synced.get(name, 0)
            renamed.append((name, rest[0]))
        else:
            renamed.clear()
    for path in sorted(folder.glob("*.*")):
        path.write_bytes(_left(path.read_bytes(), synced.get(path.name, 0), rng))
    for old, new in reversed(renamed[rng.randint(0, len(renamed)) :]):
        if (folder / new).exists():
            (folder / new).rename(folder / old)


def _left(data: bytes, synced: int, rng: random.Random) -> bytes:
    """``data``, of which the first ``synced`` bytes are durable, after the cut."""
    written = len(data.rstrip(b"\0"))
    if written <= synced:
        return data
    left = bytearray(data[: rng.choice((len(data), rng.randint(synced, written)))])
    for at in range(synced - synced % SECTOR, len(left), SECTOR):
        start, end = max(at, synced), min(at + SECTOR, len(left), written)
        fate = rng.random()
        if start < end and fate < 0.3:
            left[start:end] = bytes(end - start) if fate < 0.2 else rng.randbytes(end - start)
    return bytes(left)
