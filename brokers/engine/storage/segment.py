"""A segment as the node holds it: its file, and the index of what lies where in it.

Files of closed segments are opened when read and kept open in a bounded set. A reader holds the ``Handle``
itself, so a segment that is deleted or rewritten meanwhile stays readable until the reader lets go: the
descriptor is closed with the last reference.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

from brokers.engine.storage.errors import StorageError
from brokers.engine.storage.sidecar import Sidecar
from brokers.engine.storage.table import Index, SegmentTable


def log_path(folder: Path, number: int) -> Path:
    """The file of segment ``number``."""
    return folder / f"{number:08d}.log"


def sidecar_path(folder: Path, number: int) -> Path:
    """The index file of segment ``number``."""
    return folder / f"{number:08d}.idx"


class Handle:
    """An open segment: descriptor and index. Closed when nothing refers to it any more."""

    __slots__ = ("fd", "index", "path", "salt")

    def __init__(self, path: Path, fd: int, salt: int, index: Index) -> None:
        self.path = path
        self.fd = fd
        self.salt = salt
        self.index = index

    def __del__(self) -> None:
        os.close(self.fd)


class Segment:
    """One segment of the log."""

    __slots__ = ("damaged", "gone", "handle", "number", "path", "refs", "salt", "size", "table")

    def __init__(self, number: int, path: Path, salt: int, size: int, table: SegmentTable | None) -> None:
        self.number = number
        self.path = path
        self.salt = salt
        self.size = size
        """Bytes written so far."""
        self.table = table
        """The index in memory: of the segment being written, and of one without a usable sidecar."""
        self.handle: Handle | None = None
        """Kept open while the segment is being written."""
        self.refs = 0
        """Runs of entries, over all groups, that are still needed."""
        self.gone: set[int] = set()
        """Groups whose removal is recorded here."""
        self.damaged = False
        """Records of it are lost and not all groups that lost some are repaired: it may not go."""


class OpenSegments:
    """The bounded set of open closed segments. Callers hold the catalog's lock."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: OrderedDict[int, Handle] = OrderedDict()

    def get(self, segment: Segment) -> Handle:
        """The segment's open file and index.

        Raises ``OSError`` when it cannot be opened, ``StorageError`` when its sidecar was damaged since the
        log was opened.
        """
        if segment.handle is not None:
            return segment.handle
        handle = self._open.get(segment.number)
        if handle is not None:
            self._open.move_to_end(segment.number)
            return handle
        index: Index | None = segment.table
        if index is None:
            path = segment.path.with_suffix(".idx")
            index = Sidecar.open(path, segment.number)
            if index is None or index.salt != segment.salt:
                raise StorageError(
                    f"{path} was damaged since the log was opened; restart the node to rebuild it"
                )
        fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
        handle = self._open[segment.number] = Handle(segment.path, fd, segment.salt, index)
        if len(self._open) > self._limit:
            self._open.popitem(last=False)
        return handle

    def drop(self, number: int) -> None:
        """Forget a segment that was deleted or rewritten."""
        self._open.pop(number, None)

    def clear(self) -> None:
        """Forget all."""
        self._open.clear()
