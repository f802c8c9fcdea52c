"""A log in a temporary folder, and what the tests say about it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from brokers.engine.core.raft.records import KIND_DATA, Entry, GroupImage, Record
from brokers.engine.storage.disk import Disk
from brokers.engine.storage.log import Log
from brokers.engine.storage.settings import LogSettings

SMALL = LogSettings(segment_bytes=8192, cache_bytes=0, batch_bytes=4096, mark_after=0.001, retry_after=0.01)


def entry(group: int, index: int, term: int = 1, size: int = 100) -> Entry:
    """An entry whose payload says which one it is."""
    text = f"{group}/{index}/{term}:".encode()
    return Entry(group, index, term, KIND_DATA, (text * (size // len(text) + 1))[:size])


class QuickDisk(Disk):
    """Does not wait for the disk."""

    def sync(self, fd: int, path: Path) -> None:
        pass

    def sync_all(self, fd: int, path: Path) -> None:
        pass

    def sync_folder(self, folder: Path) -> None:
        pass


class Opened:
    """A log under test: waits for tokens, keeps failures."""

    def __init__(self, folder: Path, settings: LogSettings = SMALL, disk: Disk | None = None) -> None:
        self.folder = folder
        self.failures: list[Exception] = []
        self.synced = 0
        self._token = 0
        self._changed = threading.Condition()
        self.log, images = Log.open(
            folder,
            settings=settings,
            on_synced=self._on_synced,
            on_failure=self._on_failure,
            disk=disk or QuickDisk(),
        )
        self.images: dict[int, GroupImage] = {image.group: image for image in images}

    def _on_synced(self, token: int) -> None:
        with self._changed:
            self.synced = token
            self._changed.notify_all()

    def _on_failure(self, error: Exception) -> None:
        with self._changed:
            self.failures.append(error)
            self._changed.notify_all()

    def append(self, *records: Record) -> int:
        """Append in one call; its token."""
        self._token += 1
        self.log.append(records, self._token)
        return self._token

    def write(self, *records: Record) -> None:
        """Append in one call and wait until it is durable."""
        token = self.append(*records)
        self.until(lambda: self.synced >= token)

    def write_each(self, records: Sequence[Record]) -> None:
        """Append each in a batch of its own."""
        for record in records:
            self.write(record)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what the writer thread does."""
        deadline = time.monotonic() + 20
        with self._changed:
            while not condition():
                self._changed.wait(0.005)
                assert time.monotonic() < deadline, (self.synced, self.failures)

    def payloads(self, group: int, low: int, high: int) -> list[Entry]:
        return self.log.read(group, low, high, 1 << 40)
