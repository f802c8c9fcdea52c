"""Giving back space: segments nothing needs any more are deleted.

Hard states and snapshots that are still the latest of their groups, but lie in such a segment, are written
again first (a checkpoint), in one call with a new list of the segments that remain. The call is queued behind
everything appended so far, so once it is durable, so is all that made the segment unneeded; then it goes. A
crash in between leaves a segment that the list does not name, which the next start deletes.

So is what entries they replaced, where an older segment that stays has some: as the record that nothing lies
above the group's last entry.

A segment with damage stays until the groups that lost something are repaired, and what records the end of the
repair stays as long as that segment does. The mark of a damaged group is written again like a hard state.

The record of a removal stays as long as an older segment mentions the group, for else the group would be back
after a restart. It is not written again: the group may have come back since.
"""

from __future__ import annotations

import time

from brokers.engine.core.raft.records import Snapshot
from brokers.engine.storage import format as fmt
from brokers.engine.storage.batch import Item, item_size, small, small_hard
from brokers.engine.storage.catalog import Catalog
from brokers.engine.storage.errors import DamagedRecord
from brokers.engine.storage.groups import GroupLog
from brokers.engine.storage.reading import read_snapshot
from brokers.engine.storage.segment import Segment
from brokers.engine.storage.table import SnapshotPlace
from brokers.engine.storage.writer import Call, Writer

MOVED_SHARE = 0.5
"""A segment is not worth deleting when more than this share of it has to be written again."""


class Reclaimer:
    """Finds segments that can go, and sees to it that they do. Works in the writer's thread."""

    def __init__(self, catalog: Catalog, writer: Writer) -> None:
        self._catalog = catalog
        self._writer = writer
        self._running = False

    def reclaim(self) -> None:
        """Queue what has to be written before the segments that can go are deleted."""
        if self._running:
            return
        catalog = self._catalog
        with catalog.lock:
            catalog.freed = False
            doomed = self._doomed()
            wanted = [
                (group, group.snapshot)
                for group in catalog.groups.values()
                if group.snapshot_segment in doomed and not group.waiting and group.snapshot is not None
            ]
        snapshots = [(group, place, self._read(group, doomed)) for group, place in wanted]
        with catalog.lock:
            if doomed:
                self._running = True
                items = self._checkpoint(doomed, snapshots)
                size = sum(map(item_size, items))
                self._writer.push(Call(items, size, None, time.monotonic(), lambda: self._finish(doomed)))

    def _read(self, group: GroupLog, doomed: set[int]) -> Snapshot | None:
        """The snapshot to be moved; when it is damaged, its segment stays and so does the damage."""
        try:
            return read_snapshot(self._catalog, group.group)
        except DamagedRecord:
            with self._catalog.lock:
                self._catalog.segments[group.snapshot_segment].lossy = True
                doomed.discard(group.snapshot_segment)
                group.damaged = 1
        except LookupError:  # removed meanwhile
            pass
        return None

    def _checkpoint(
        self, doomed: set[int], snapshots: list[tuple[GroupLog, SnapshotPlace, Snapshot | None]]
    ) -> list[Item]:
        """What has to be written before the segments ``doomed`` go."""
        catalog = self._catalog
        items: list[Item] = [
            catalog.renewed(group, snapshot)
            for group, place, snapshot in snapshots
            if snapshot is not None
            and group.snapshot is place
            and not group.waiting
            and catalog.groups.get(group.group) is group
        ]
        items += [
            small_hard(group.hard, group)
            for group in catalog.groups.values()
            if group.hard is not None and group.hard_segment in doomed and group.hard is group.hard_written
        ]
        items += [
            small(fmt.VOID, number, catalog.groups[number].last + 1)
            for number in sorted(self._replaced(doomed))
        ]
        items += [
            small(fmt.HURT, group.group, group.damaged)
            for group in catalog.groups.values()
            if group.damaged is not None
        ]
        remaining = [number for number in catalog.segments if number not in doomed]
        items.append(small(fmt.LIST, 0, payload=fmt.pack_list(remaining)))
        return items

    def _finish(self, doomed: set[int]) -> None:
        self._writer.remove(sorted(doomed))
        self._running = False
        with self._catalog.lock:
            self._catalog.freed = True

    def _doomed(self) -> set[int]:
        """The segments that can go now."""
        catalog = self._catalog
        lossy = [segment.number for segment in catalog.segments.values() if segment.lossy]
        pinned = lossy and any(group.damaged is not None for group in catalog.groups.values())
        candidates = {
            segment.number: segment
            for segment in catalog.segments.values()
            if segment.refs == 0
            and segment.number != self._writer.current
            and not (segment.lossy and pinned)
            and not (segment.fixes and any(number < segment.number for number in lossy))
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

    def _replaced(self, doomed: set[int]) -> set[int]:
        """Groups of which only a doomed segment says that entries in one that stays were replaced."""
        return {
            group
            for number in doomed
            for group in self._catalog.segments[number].cuts
            if group in self._catalog.groups and self._mentioned_before(number, {group}, doomed)
        }

    def _removals_void(self, segment: Segment, doomed: set[int]) -> bool:
        """Whether no older segment that stays mentions a group that ``segment`` removes or repairs."""
        return not self._mentioned_before(segment.number, segment.gone | segment.fixes, doomed)

    def _mentioned_before(self, number: int, groups: set[int], doomed: set[int]) -> bool:
        """Whether a segment older than ``number`` that stays mentions one of ``groups``."""
        if not groups:
            return False
        catalog = self._catalog
        return any(
            older.size and any(map(catalog.open.get(older).index.mentions, groups))
            for earlier, older in catalog.segments.items()
            if earlier < number and earlier not in doomed
        )
