"""The log's state in memory, shared by the threads that append, write and read, under one lock.

Appending changes it at once (that is what makes records visible before they are written); writing adds where
the records came to lie. Both see the same order, for there is one queue.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from brokers.engine.core.raft.records import KIND_CONFIG, Entry, HardState, Record, Snapshot
from brokers.engine.storage import format as fmt
from brokers.engine.storage.batch import Item, Placed, Small, small, small_hard, small_snapshot, tabulate
from brokers.engine.storage.groups import GroupLog, Span
from brokers.engine.storage.segment import OpenSegments, Segment
from brokers.engine.storage.settings import LogSettings
from brokers.engine.storage.table import GroupSummary, SegmentTable


class Catalog:
    """Groups, segments and the tail cache. Every method expects the caller to hold ``lock``."""

    def __init__(self, folder: Path, settings: LogSettings) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self.groups: dict[int, GroupLog] = {}
        self.segments: dict[int, Segment] = {}
        self.open = OpenSegments(settings.open_segments)
        self._cache_limit = settings.cache_bytes
        self._tail: deque[Entry] = deque()
        self._tail_synced = 0
        self.tail_bytes = 0
        self.freed = True
        """Something changed that may allow a segment to go."""

    # Appending.

    def add(self, records: Sequence[Record]) -> list[Item]:
        """Take records into the state; what has to be written for them."""
        items: list[Item] = []
        for record in records:
            if isinstance(record, Entry):
                self._add_entry(record, items)
            elif isinstance(record, HardState):
                items.append(self._add_hard(record))
            elif isinstance(record, Snapshot):
                items.append(self._add_snapshot(record))
            else:
                group = self.groups.pop(record.group, None)
                if group is not None:
                    self._drop_spans(group.spans)
                items.append(small(fmt.GONE, record.group))
        return items

    def group(self, number: int) -> GroupLog:
        """The group's state, created when there is none."""
        group = self.groups.get(number)
        if group is None:
            group = self.groups[number] = GroupLog(number)
        return group

    def _add_entry(self, entry: Entry, items: list[Item]) -> None:
        group = self.groups.get(entry.group)
        if group is None:
            group = self.groups[entry.group] = GroupLog(entry.group)
        index = entry.index
        if index <= group.last:
            self.void_from(group, index)
            items.append(small(fmt.VOID, entry.group, index))
            if index <= group.base[0]:
                self._forsake_snapshot(group)
        items.append(entry)
        group.recent[index] = entry
        group.last = index
        if not group.terms or group.terms[-1][1] != entry.term:
            group.terms.append((index, entry.term))
        if entry.kind == KIND_CONFIG:
            group.configs.append(index)
        self._tail.append(entry)
        self.tail_bytes += len(entry.payload)

    @staticmethod
    def _forsake_snapshot(group: GroupLog) -> None:
        """A damaged member starts over below its snapshot: what the snapshot refers to is replaced."""
        group.base = (0, 0)
        group.snapshot, group.snapshot_segment = None, 0

    def _add_hard(self, record: HardState) -> Small:
        group = self.group(record.group)
        group.hard = record
        return small_hard(record, group)

    def _add_snapshot(self, record: Snapshot) -> Small:
        group = self.group(record.group)
        kind = 0
        if record.index > group.base[0] and group.term_at(record.index) != record.term:
            kind = fmt.SNAP_DISCARDS
            self.void_from(group, record.index + 1)
            group.last = record.index
        group.base = (record.index, record.term)
        group.waiting.append(record)
        return small_snapshot(record, group, kind)

    @staticmethod
    def renewed(group: GroupLog, snapshot: Snapshot) -> Small:
        """The group's snapshot, to be written again because its segment goes."""
        group.waiting.append(snapshot)
        return small_snapshot(snapshot, group)

    def void_from(self, group: GroupLog, index: int) -> None:
        """Entries of the group from ``index`` on are replaced."""
        spans = group.spans
        while spans and spans[-1].last >= index:
            span = spans[-1]
            if span.first >= index:
                self._drop_spans((spans.pop(),))
            else:
                span.last = index - 1
        if len(group.recent) < group.last - index:
            group.recent = {key: entry for key, entry in group.recent.items() if key < index}
        else:
            for key in range(index, group.last + 1):
                group.recent.pop(key, None)
        terms = group.terms
        while terms and terms[-1][0] >= index:
            terms.pop()
        while group.configs and group.configs[-1] >= index:
            group.configs.pop()
        group.last = min(group.last, index - 1)

    def release(self, group: GroupLog, keep_from: int) -> None:
        """Entries of the group below ``keep_from`` are no longer needed."""
        group.released = keep_from
        spans = group.spans
        count = 0
        while count < len(spans) and spans[count].last < keep_from:
            count += 1
        self._drop_spans(spans[:count])
        del spans[:count]
        if spans and spans[0].first < keep_from:
            spans[0].first = keep_from
        group.recent = {key: entry for key, entry in group.recent.items() if key >= keep_from}
        while len(group.terms) > 1 and group.terms[1][0] <= keep_from:
            del group.terms[0]
        while group.configs and group.configs[0] < keep_from:
            del group.configs[0]

    def _drop_spans(self, spans: Iterable[Span]) -> None:
        for span in spans:
            segment = self.segments[span.segment]
            segment.refs -= 1
            self.freed |= segment.refs == 0

    # Writing.

    def written(self, segment: Segment, table: SegmentTable, placed: list[Placed]) -> None:
        """A batch is durable in ``segment``, whose index is ``table``."""
        number = segment.number
        entries = 0
        for place in placed:
            tabulate(table, place)
            item = place.item
            if isinstance(item, Entry):
                entries += 1
                group = self.groups.get(item.group)
                if group is not None and group.recent.get(item.index) is item:
                    self.add_span(group, item.index, item.index, number)
            else:
                self._written_small(segment, table, item)
        self._tail_synced += entries
        self.evict()

    @staticmethod
    def _written_small(segment: Segment, table: SegmentTable, item: Small) -> None:
        frame, owner = item.frame, item.owner
        if frame.type == fmt.GONE:
            segment.gone.add(frame.group)
        elif frame.type == fmt.VOID or (frame.type == fmt.SNAP and frame.kind & fmt.SNAP_DISCARDS):
            segment.cuts.add(frame.group)
        elif frame.type == fmt.FIXED:
            segment.fixes.add(frame.group)
        if owner is not None and isinstance(item.record, HardState):
            owner.hard_written, owner.hard_segment = item.record, segment.number
        elif owner is not None and frame.type == fmt.SNAP:
            snapshot = owner.waiting.pop(0)
            if (snapshot.index, snapshot.term) <= owner.base:
                owner.snapshot, owner.snapshot_segment = table.tables[frame.group].snapshot, segment.number

    def add_span(self, group: GroupLog, first: int, last: int, number: int) -> None:
        """Entries ``first`` to ``last`` lie in segment ``number``, above all others written so far."""
        spans = group.spans
        if spans and spans[-1].segment == number and spans[-1].last == first - 1:
            spans[-1].last = last
            return
        spans.append(Span(first, last, number))
        self.segments[number].refs += 1

    def evict(self) -> None:
        """Let go of the oldest synced entries while the tail cache is over its limit."""
        while self.tail_bytes > self._cache_limit and self._tail_synced:
            entry = self._tail.popleft()
            self._tail_synced -= 1
            self.tail_bytes -= len(entry.payload)
            group = self.groups.get(entry.group)
            if group is not None and group.recent.get(entry.index) is entry:
                del group.recent[entry.index]

    # Recovery.

    def apply(self, segment: Segment, summary: GroupSummary) -> None:
        """Take over what a segment says of a group; segments come in ascending order."""
        if summary.fixed:
            segment.fixes.add(summary.group)
        if summary.gone:
            old = self.groups.pop(summary.group, None)
            if old is not None:
                self._drop_spans(old.spans)
            segment.gone.add(summary.group)
            if not summary.runs and summary.hard is None and summary.snapshot is None:
                return
        group = self.group(summary.group)
        if summary.cut is not None:
            self.void_from(group, summary.cut)
            if summary.cut <= group.base[0]:
                self._forsake_snapshot(group)
            segment.cuts.add(summary.group)
        for first, last in summary.runs:
            if first <= group.last:
                self.void_from(group, first)
            self.add_span(group, first, last, segment.number)
            group.last = last
        for item in summary.terms:
            if not group.terms or group.terms[-1][1] != item[1]:
                group.terms.append(item)
        group.configs.extend(summary.configs)
        if summary.fixed:
            group.damaged = None
        if summary.hurt is not None:
            group.damaged = summary.hurt
        if summary.hard is not None:
            group.hard = group.hard_written = HardState(summary.group, *summary.hard)
            group.hard_segment = segment.number
        if summary.snapshot is not None:
            place = summary.snapshot
            group.snapshot, group.snapshot_segment = place, segment.number
            group.base = (place.index, place.term)
            group.last = max(group.last, place.index)
