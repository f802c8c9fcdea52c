"""A segment as the node holds it: its file, and the index of what lies where in it.

Files of closed segments are opened when read and kept open in a bounded set. A reader holds the ``Handle``
itself, so a segment that is deleted or rewritten meanwhile stays readable until the reader lets go: the
descriptor is closed with the last reference.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

from brokers.engine.storage.scan import scan
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

    __slots__ = (
        "cuts",
        "fixes",
        "gone",
        "handle",
        "lossy",
        "number",
        "path",
        "refs",
        "salt",
        "size",
        "table",
    )

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
        self.cuts: set[int] = set()
        """Groups that had entries replaced here."""
        self.fixes: set[int] = set()
        """Groups of which the end of a repair is recorded here."""
        self.lossy = False
        """Records of it were lost to damage."""


class OpenSegments:
    """The bounded set of open closed segments. Callers hold the catalog's lock."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: OrderedDict[int, Handle] = OrderedDict()

    def get(self, segment: Segment) -> Handle:
        """The segment's open file and index.

        Raises ``OSError`` when it cannot be opened. A sidecar that was damaged since the log was opened is
        made up for by a scan.
        """
        if segment.handle is not None:
            return segment.handle
        handle = self._open.get(segment.number)
        if handle is not None:
            self._open.move_to_end(segment.number)
            return handle
        index: Index | None = segment.table
        if index is None:
            sidecar = Sidecar.open(segment.path.with_suffix(".idx"), segment.number)
            if sidecar is not None and sidecar.salt == segment.salt:
                index = sidecar
            else:
                index = segment.table = _rebuilt(segment)
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


def _rebuilt(segment: Segment) -> SegmentTable:
    return scan(segment.path.read_bytes(), segment.path, segment.salt, last=False).table
