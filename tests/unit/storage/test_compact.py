"""Sparse segments shrink and keep what is live."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from brokers.engine.core.raft.records import KIND_CONFIG, KIND_NOOP, Entry, HardState, Removed, Snapshot
from brokers.engine.storage.compact import Plan
from brokers.engine.storage.errors import DamagedRecord, StorageError
from tests.unit.storage.model import State, apply, difference, random_call
from tests.unit.storage.opened import SMALL, Opened, entry
from tests.unit.storage.power import PowerCut, PowerDisk


def _odd(group: int, index: int) -> bool:
    return index % 2 == 1


def _plan(log: Opened, number: int, live=_odd) -> Plan:
    plan = log.log.plan_compaction(number, live)
    assert plan is not None
    return plan


def _stub(item: Entry) -> Entry:
    return item._replace(kind=KIND_NOOP, payload=b"")


def test_dead_entries_become_stubs_and_all_else_stays(reopen):
    log = reopen()
    config = entry(1, 4)._replace(kind=KIND_CONFIG)
    entries = [config if index == 4 else entry(1, index, 1 + index // 6, 700) for index in range(1, 21)]
    log.write(HardState(2, 3, 1), HardState(3, 1, 1), *[entry(3, index) for index in range(1, 4)])
    log.write_each(entries)
    log.write(entry(3, 2, 2), Removed(9), Snapshot(1, 18, 4, b"m", b"s", 1), Snapshot(3, 2, 2, b"", b"x", 1))
    log.write_each([entry(4, index, 1, 900) for index in range(1, 20)])
    expected = [
        _stub(item) if item.index % 2 == 0 and item.index <= 18 and item.index != 4 else item
        for item in entries
    ]
    before = log.log.stats().bytes
    for number in log.log.closed_segments():
        assert log.log.compact(_plan(log, number))
    assert log.log.stats().bytes < before - 4000
    for _ in range(2):
        assert log.payloads(1, 1, 20) == expected
        assert log.payloads(3, 1, 9) == [entry(3, 1), _stub(entry(3, 2, 2))]
        assert log.payloads(4, 1, 19) == [entry(4, index, 1, 900) for index in range(1, 20)]
        assert log.log.snapshot(1) == Snapshot(1, 18, 4, b"m", b"s", 1)
        log = reopen()
        assert log.images[2].hard == HardState(2, 3, 1)
        assert {image.damaged for image in log.images.values()} == {None}
        assert log.images[1].configs == (4,)
        assert sorted(log.images) == [1, 2, 3, 4]


def test_a_plan_says_what_it_saves(reopen):
    log = reopen()
    log.write_each([entry(1, index, 1, 900) for index in range(1, 30)])
    log.write(Snapshot(1, 29, 1, b"", b"", 1))
    number = log.log.closed_segments()[0]
    plan = _plan(log, number)
    size = (log.folder / f"{number:08d}.log").stat().st_size
    assert plan.size == size
    assert log.log.compact(plan)
    saved = size - (log.folder / f"{number:08d}.log").stat().st_size
    assert abs(saved - plan.saved) < 500
    assert _plan(log, number).saved < 500
    assert log.log.plan_compaction(max(log.log.closed_segments()) + 1, _odd) is None


def test_a_segment_that_went_meanwhile_stays_gone(reopen):
    log = reopen()
    log.write_each([entry(1, index, 1, 900) for index in range(1, 30)])
    log.write(Snapshot(1, 29, 1, b"", b"", 30))
    number = log.log.closed_segments()[0]
    plan = _plan(log, number)
    log.log.release(1, 30)
    log.until(lambda: number not in log.log.closed_segments())
    assert not log.log.compact(plan)
    assert not list(log.folder.glob(f"{number:08d}.*"))


def test_damage_stops_a_compaction_and_leaves_the_segment(reopen):
    log = reopen()
    log.write_each([entry(1, index, 1, 900) for index in range(1, 30)])
    log.write(Snapshot(1, 29, 1, b"", b"", 1))
    number = log.log.closed_segments()[0]
    path = log.folder / f"{number:08d}.log"
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedRecord):
        log.log.compact(_plan(log, number))
    assert path.read_bytes() == bytes(data)
    assert not list(log.folder.glob("*.new"))


@pytest.mark.parametrize("seed", range(15))
def test_power_cuts_during_compaction(seed: int, tmp_path: Path):
    rng = random.Random(seed)
    folder = tmp_path / "log"
    log = Opened(folder)
    state: State = {}
    for _ in range(60):
        call = random_call(state, rng)
        log.write(*call)
        state = apply(state, call)
    log.log.close()
    disk = PowerDisk(folder, rng, rng.randint(5, 60))
    with contextlib.suppress(PowerCut, StorageError):
        log = Opened(folder, SMALL, disk)
        for number in log.log.closed_segments():
            plan = log.log.plan_compaction(number, lambda group, index: True)
            if plan is not None:
                log.log.compact(plan)
    disk.off = True
    log.log.close()
    disk.leave()
    log = Opened(folder)
    assert log.log.damages == []
    assert difference(log, state) is None
    log.log.close()
