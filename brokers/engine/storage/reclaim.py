"""Giving back space: segments nothing needs any more are deleted.

Hard states and snapshots that are still the latest of their groups, but lie in such a segment, are written
again first (a checkpoint), in one call with a new list of the segments that remain. The call is queued behind
everything appended so far, so once it is durable, so is all that made the segment unneeded; then it goes. A
crash in between leaves a segment that the list does not name, which the next start deletes.

The record of a removal stays as long as an older segment mentions the group, for else the group would be back
after a restart. It is not written again: the group may have come back since.
"""

from __future__ import annotations

import threading
import time

from brokers.engine.storage import format as fmt
from brokers.engine.storage.catalog import Catalog, Item, Small
from brokers.engine.storage.reading import read_snapshot
from brokers.engine.storage.segment import Segment
from brokers.engine.storage.writer import Call, Writer

MOVED_SHARE = 0.5
"""A segment is not worth deleting when more than this share of it has to be written again."""


class Reclaimer:
    """Finds segments that can go, and sees to it that they do."""

    def __init__(self, catalog: Catalog, writer: Writer) -> None:
        self._catalog = catalog
        self._writer = writer
        self._running = threading.Lock()

    def reclaim(self) -> None:
        """Start deleting what can go; returns before it is gone.

        Reads the snapshots that have to be moved. One call at a time does anything; the next ``release``
        comes back to what one had to leave.
        """
        if not self._running.acquire(blocking=False):
            return
        started = False
        try:
            started = self._start()
        finally:
            if not started:
                self._running.release()

    def _start(self) -> bool:
        catalog = self._catalog
        with catalog.lock:
            doomed = self._doomed()
            if not doomed:
                return False
            wanted = [
                (group, place)
                for group in catalog.groups.values()
                if group.snapshot_segment in doomed and not group.waiting and (place := group.snapshot)
            ]
        snapshots = [(group, place, read_snapshot(catalog, group.group)) for group, place in wanted]
        with catalog.lock:
            items: list[Item] = [
                catalog.renewed(group, snapshot)
                for group, place, snapshot in snapshots
                if group.snapshot is place and not group.waiting
                and catalog.groups.get(group.group) is group
            ]  # fmt: skip
            items += [
                catalog.renewed(group, None)
                for group in catalog.groups.values()
                if group.hard_segment in doomed and group.hard is group.hard_written
            ]
            remaining = [number for number in catalog.segments if number not in doomed]
            items.append(Small(fmt.Framed(fmt.LIST, 0, 0, 0, 0, (fmt.pack_list(remaining),)), None, None))
            size = sum(_size(item) for item in items)
            self._writer.queue(Call(items, size, None, time.monotonic(), lambda: self._finish(doomed)))
        return True

    def _finish(self, doomed: set[int]) -> None:
        try:
            self._writer.remove(sorted(doomed))
        finally:
            self._running.release()

    def _doomed(self) -> set[int]:
        """The segments that can go now."""
        catalog = self._catalog
        candidates = {
            segment.number: segment
            for segment in catalog.segments.values()
            if segment.refs == 0 and not segment.damaged and segment.number != self._writer.current
        }
        if not candidates:
            return set()
        moved = dict.fromkeys(candidates, 0)
        for group in catalog.groups.values():
            if group.hard_segment in moved:
                moved[group.hard_segment] += fmt.HEADER
            if group.snapshot_segment in moved and group.snapshot is not None:
                moved[group.snapshot_segment] += fmt.HEADER + group.snapshot.length
        doomed: set[int] = set()
        for number in sorted(candidates):
            segment = candidates[number]
            if moved[number] <= segment.size * MOVED_SHARE and self._removals_void(segment, doomed):
                doomed.add(number)
        return doomed

    def _removals_void(self, segment: Segment, doomed: set[int]) -> bool:
        """Whether no older segment that stays mentions a group whose removal ``segment`` records."""
        if not segment.gone:
            return True
        catalog = self._catalog
        for number, older in catalog.segments.items():
            if number >= segment.number or number in doomed or older.size == 0:
                continue
            index = catalog.open.get(older).index
            if any(index.mentions(group) for group in segment.gone):
                return False
        return True


def _size(item: Item) -> int:
    frame = item.frame if isinstance(item, Small) else None
    return fmt.HEADER * 2 + 4 + (sum(map(len, frame.parts)) if frame is not None else 0)
