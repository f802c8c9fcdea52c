"""The index of a closed segment, ``00000001.idx``: a ``SegmentTable`` in a file that is mapped, not loaded.

Derived data: it is rebuilt by a scan when it is missing, damaged, or does not belong to the segment's file
(another salt or size). Big-endian::

    8s magic | u32 version | u32 number | u32 salt | u64 size of the segment | u32 groups | u32 runs
    u32 terms | u32 configs | u32 places | u32 listed | u32 crc32 of the whole file, this field left out
    groups, ascending: u64 group | u8 flags | u64 hurt | u64 cut | u64 hard term | u64 vote
                       u64 snapshot index | u64 term | u64 keep_from | u32 offset | u32 length
                       u32 first run | u32 runs | u32 first term | u32 terms
                       u32 first config | u32 configs
    runs:              u64 first index | u32 count | u32 first place
    terms:             u64 first index | u64 term
    configs:           u64 index
    places:            u32 offset | u32 payload length
    listed:            u32 segment number
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from zlib import crc32

from brokers.engine.storage.table import GroupSummary, SegmentTable, SnapshotPlace

MAGIC = b"MQCIDX\r\n"
VERSION = 1

_GONE, _FIXED, _CUT, _HARD, _SNAP, _HURT = 1, 2, 4, 8, 16, 32
_HEAD = struct.Struct(">8sIIIQIIIIII")
_CRC = struct.Struct(">I")
_GROUP = struct.Struct(">QBQQQQQQQIIIIIIII")
_RUN = struct.Struct(">QII")
_TERM = struct.Struct(">QQ")
_PLACE = struct.Struct(">II")
_KEY = struct.Struct(">Q")


def pack_sidecar(table: SegmentTable, number: int, salt: int, size: int) -> bytes:
    """The sidecar's bytes for a segment of ``size`` bytes."""
    groups: list[bytes] = []
    runs: list[bytes] = []
    terms: list[bytes] = []
    configs: list[bytes] = []
    places: list[bytes] = []
    for group in table.groups():
        entry = table.tables[group]
        flags = _GONE * entry.gone | _FIXED * entry.fixed
        term = vote = 0
        if entry.hard is not None:
            flags |= _HARD
            term, vote = entry.hard
        snapshot = SnapshotPlace(0, 0, 0, 0, 0)
        if entry.snapshot is not None:
            flags |= _SNAP
            snapshot = entry.snapshot
        if entry.cut is not None:
            flags |= _CUT
        if entry.hurt is not None:
            flags |= _HURT
        groups.append(
            _GROUP.pack(
                group, flags, entry.hurt or 0, entry.cut or 0, term, vote, *snapshot,
                len(runs), len(entry.runs), len(terms), len(entry.terms),
                len(configs), len(entry.configs),
            )
        )  # fmt: skip
        terms.extend(_TERM.pack(*item) for item in entry.terms)
        configs.extend(map(_KEY.pack, entry.configs))
        for run in entry.runs:
            runs.append(_RUN.pack(run.first, len(run.offsets), len(places)))
            places.extend(map(_PLACE.pack, run.offsets, run.lengths))
    listed = [_CRC.pack(item) for item in table.listed or []]
    counts = len(groups), len(runs), len(terms), len(configs), len(places), len(listed)
    head = _HEAD.pack(MAGIC, VERSION, number, salt, size, *counts)
    body = b"".join(groups + runs + terms + configs + places + listed)
    return head + _CRC.pack(crc32(body, crc32(head))) + body


class Sidecar:
    """A mapped sidecar (an ``Index``)."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self._data = data
        _, _, _, self.salt, self.size, self._count, *counts = _HEAD.unpack_from(data)
        runs, terms, configs, places, listed = counts
        self._groups = _HEAD.size + _CRC.size
        self._runs = self._groups + self._count * _GROUP.size
        self._terms = self._runs + runs * _RUN.size
        self._configs = self._terms + terms * _TERM.size
        self._places = self._configs + configs * _KEY.size
        self._listed = self._places + places * _PLACE.size
        self._end = self._listed + listed * _CRC.size

    @classmethod
    def open(cls, path: Path, number: int) -> Sidecar | None:
        """Map the sidecar of segment ``number``; None when it is missing, damaged or of another version."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if os.fstat(fd).st_size < _HEAD.size + _CRC.size:
                return None
            data = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
        start = _HEAD.size + _CRC.size
        with memoryview(data) as view:
            crc = crc32(view[start:], crc32(view[: _HEAD.size]))
        if _CRC.unpack_from(data, _HEAD.size)[0] != crc:
            return None
        magic, version, named, *_ = _HEAD.unpack_from(data)
        if magic != MAGIC or named != number or version != VERSION:
            return None
        sidecar = cls(data)
        return sidecar if sidecar._end == len(data) else None

    @property
    def listed(self) -> list[int] | None:
        """The segments that exist, as last listed in this one."""
        found = [item for (item,) in _CRC.iter_unpack(self._data[self._listed : self._end])]
        return found or None

    def groups(self) -> list[int]:
        step = _GROUP.size
        return [_KEY.unpack_from(self._data, at)[0] for at in range(self._groups, self._runs, step)]

    def mentions(self, group: int) -> bool:
        return self._find(group) is not None

    def summary(self, group: int) -> GroupSummary:
        found = self._find(group)
        if found is None:
            raise KeyError(group)
        _, flags, hurt, cut, term, vote, *rest = found
        snapshot = SnapshotPlace(*rest[:5])
        runs_at, runs, terms_at, terms, configs_at, configs = rest[5:]
        return GroupSummary(
            group,
            bool(flags & _GONE),
            bool(flags & _FIXED),
            hurt if flags & _HURT else None,
            cut if flags & _CUT else None,
            (term, vote) if flags & _HARD else None,
            snapshot if flags & _SNAP else None,
            [(first, first + count - 1) for first, count, _ in self._run_items(runs_at, runs)],
            [
                (first, value)
                for first, value in _TERM.iter_unpack(self._slice(self._terms, terms_at, terms, _TERM.size))
            ],
            [
                index
                for (index,) in _KEY.iter_unpack(self._slice(self._configs, configs_at, configs, _KEY.size))
            ],
        )

    def place(self, group: int, index: int) -> tuple[int, int]:
        found = self._find(group)
        if found is None:
            raise KeyError(group)
        runs_at, runs = found[11], found[12]
        for first, count, place in self._run_items(runs_at, runs):
            if first <= index < first + count:
                at = self._places + (place + index - first) * _PLACE.size
                offset, length = _PLACE.unpack_from(self._data, at)
                return offset, length
        raise KeyError(index)

    def _slice(self, base: int, at: int, count: int, step: int) -> bytes:
        return self._data[base + at * step : base + (at + count) * step]

    def _run_items(self, at: int, count: int) -> list[tuple[int, int, int]]:
        return list(_RUN.iter_unpack(self._slice(self._runs, at, count, _RUN.size)))

    def _find(self, group: int) -> tuple[int, ...] | None:
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            at = self._groups + middle * _GROUP.size
            (key,) = _KEY.unpack_from(self._data, at)
            if key == group:
                return _GROUP.unpack_from(self._data, at)
            if key < group:
                low = middle + 1
            else:
                high = middle
        return None
