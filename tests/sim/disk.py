"""A node's disk: what was appended, what of it is durable, and what a crash leaves."""

from __future__ import annotations

from collections.abc import Sequence

from brokers.engine.core.raft.log import merge
from brokers.engine.core.raft.records import (
    KIND_CONFIG,
    Entry,
    GroupImage,
    HardState,
    Record,
    Removed,
    Snapshot,
)


class GroupStore:
    """A group's records, replayed. Entries may lie beyond a gap while a snapshot is on its way."""

    def __init__(self, group: int) -> None:
        self.group = group
        self.hard = HardState(group, 0, 0)
        self.snapshot: Snapshot | None = None
        self.entries: dict[int, Entry] = {}
        self.last = 0
        self.damaged: int | None = None

    def copy(self) -> GroupStore:
        """Another one that is equal."""
        other = GroupStore(self.group)
        other.hard, other.snapshot, other.last = self.hard, self.snapshot, self.last
        other.entries = dict(self.entries)
        other.damaged = self.damaged
        return other

    def apply(self, record: Record) -> None:
        """Append ``record``."""
        if isinstance(record, Entry):
            for index in range(record.index, self.last + 1):
                self.entries.pop(index, None)
            self.entries[record.index] = record
            self.last = record.index
        elif isinstance(record, HardState):
            self.hard = record
        elif isinstance(record, Snapshot):
            self._snapshot(record)

    def _snapshot(self, snapshot: Snapshot) -> None:
        if self.snapshot is not None and snapshot.index < self.snapshot.index:
            return
        here = self.entries.get(snapshot.index)
        if here is None or here.term != snapshot.term:
            self.entries = {i: e for i, e in self.entries.items() if i <= snapshot.index}
            self.last = snapshot.index
        self.snapshot = snapshot
        self.entries = {i: e for i, e in self.entries.items() if i >= snapshot.keep_from}

    @property
    def base(self) -> int:
        """What the snapshot covers."""
        return self.snapshot.index if self.snapshot is not None else 0

    def reaches(self, index: int) -> bool:
        """Is everything up to ``index`` here, in entries or in the snapshot?"""
        return index <= self.base or (index in self.entries and index - 1 >= 0)

    def image(self) -> GroupImage:
        """As recovered after a restart."""
        last = self.base
        while last + 1 in self.entries:
            last += 1
        present = sorted(index for index in self.entries if index <= last)
        first = present[0] if present else last + 1
        terms = merge([(index, self.entries[index].term) for index in present])
        configs = tuple(index for index in present if self.entries[index].kind == KIND_CONFIG)
        return GroupImage(self.group, self.hard, self.snapshot, first, last, terms, self.damaged, configs)


class Disk:
    """All groups of a node. ``appended`` is what ``read`` sees, ``durable`` what survives."""

    def __init__(self) -> None:
        self.appended: dict[int, GroupStore] = {}
        self.durable: dict[int, GroupStore] = {}
        self.queue: list[tuple[int, list[Record]]] = []

    @staticmethod
    def _apply(stores: dict[int, GroupStore], record: Record) -> None:
        if isinstance(record, Removed):
            stores.pop(record.group, None)
            return
        store = stores.get(record.group)
        if store is None:
            store = stores[record.group] = GroupStore(record.group)
        store.apply(record)

    def append(self, token: int, records: list[Record]) -> None:
        """Queue a batch for the next sync."""
        for record in records:
            self._apply(self.appended, record)
        self.queue.append((token, records))

    def sync(self, count: int) -> int:
        """The first ``count`` batches are durable now; returns the highest token among them."""
        token = 0
        for number, records in self.queue[:count]:
            token = max(token, number)
            for record in records:
                self._apply(self.durable, record)
        del self.queue[:count]
        return token

    def crash(self, kept: int) -> None:
        """Only the first ``kept`` records that were not synced survive, by luck."""
        for _, records in self.queue:
            for record in records[:kept]:
                self._apply(self.durable, record)
            kept -= len(records)
            if kept <= 0:
                break
        self.queue.clear()
        self.appended = {group: store.copy() for group, store in self.durable.items()}

    def unsynced(self) -> int:
        """How many records wait for a sync."""
        return sum(len(records) for _, records in self.queue)

    def read(self, group: int, low: int, high: int, max_bytes: int) -> list[Entry]:
        """See ``LogReader``."""
        store = self.appended.get(group)
        if store is None or low not in store.entries:
            raise LookupError(f"entry {low} of group {group} is not in the log")
        found: list[Entry] = []
        size = 0
        for index in range(low, high + 1):
            entry = store.entries.get(index)
            if entry is None:
                break
            size += len(entry.payload)
            if found and size > max_bytes:
                break
            found.append(entry)
        return found

    def snapshot(self, group: int) -> Snapshot:
        """See ``SnapshotReader``."""
        store = self.appended.get(group)
        if store is None or store.snapshot is None:
            raise LookupError(f"group {group} has no snapshot")
        return store.snapshot

    def images(self) -> Sequence[GroupImage]:
        """All groups as recovered."""
        return [store.image() for store in self.durable.values()]
