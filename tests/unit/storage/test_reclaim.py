"""Space comes back, and nothing that is still needed goes with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from brokers.engine.core.raft.records import Entry, HardState, Removed, Snapshot
from brokers.engine.storage.segment import log_path
from tests.unit.storage.opened import SMALL, Opened, entry


def _numbers(log: Opened) -> list[int]:
    return sorted(int(path.stem) for path in log.folder.glob("*.log"))


def _fill(log: Opened, group: int, low: int, high: int, term: int = 1) -> None:
    log.write_each([entry(group, index, term, 900) for index in range(low, high + 1)])


def test_segments_go_when_a_snapshot_covers_them(reopen):
    log = reopen()
    _fill(log, 1, 1, 40)
    before = _numbers(log)
    assert len(before) > 4
    log.write(Snapshot(1, 38, 1, b"", b"", 39))
    log.log.release(1, 39)
    log.until(lambda: len(_numbers(log)) <= 2)
    assert before[0] not in _numbers(log)
    assert not log_path(log.folder, before[0]).with_suffix(".idx").exists()
    assert log.payloads(1, 39, 40) == [entry(1, 39, 1, 900), entry(1, 40, 1, 900)]
    with pytest.raises(LookupError, match="it holds 39 to 40"):
        log.payloads(1, 38, 38)
    log = reopen()
    assert log.images[1][3:7] == (39, 40, [(39, 1)], None)


def test_the_middle_goes_too_while_an_idle_group_holds_the_oldest_segment(reopen):
    log = reopen()
    log.write(HardState(7, 3, 2), entry(7, 1))
    _fill(log, 1, 1, 40)
    log.write(Snapshot(1, 40, 1, b"", b"", 41))
    log.log.release(1, 41)
    log.until(lambda: len(_numbers(log)) <= 3)
    assert _numbers(log)[0] == 1
    log = reopen()
    assert log.log.damages == []
    assert log.images[7].hard == HardState(7, 3, 2)
    assert log.payloads(7, 1, 1) == [entry(7, 1)]
    assert log.images[1][3:7] == (41, 40, [], None)


def test_hard_states_and_snapshots_of_idle_groups_are_moved(reopen):
    log = reopen()
    snapshots = [Snapshot(group, 5, 2, b"m", b"state", 6) for group in range(10, 20)]
    for group, snapshot in zip(range(10, 20), snapshots, strict=True):
        log.write(HardState(group, 4, 3), snapshot)
    _fill(log, 1, 1, 40)
    first = _numbers(log)[0]
    log.write(Snapshot(1, 40, 1, b"", b"", 41))
    log.log.release(1, 41)
    log.until(lambda: first not in _numbers(log))
    assert [log.log.snapshot(group) for group in range(10, 20)] == snapshots
    log = reopen()
    assert [log.log.snapshot(group) for group in range(10, 20)] == snapshots
    assert [log.images[group].hard for group in range(10, 20)] == [HardState(n, 4, 3) for n in range(10, 20)]
    assert [log.images[group].last for group in range(10, 20)] == [5] * 10


def test_a_removal_outlives_the_records_it_removed(reopen):
    log = reopen()
    log.write(entry(7, 1), HardState(1, 1, 1), entry(1, 1))
    _fill(log, 2, 1, 10)
    log.write(Removed(1))
    _fill(log, 2, 11, 40)
    log.write(Snapshot(2, 40, 1, b"", b"", 41))
    log.log.release(2, 41)
    log.until(lambda: len(_numbers(log)) <= 3)
    for _ in range(3):
        log = reopen()
        assert sorted(log.images) == [2, 7]
    log.write(Removed(7), entry(2, 41))
    log.until(lambda: 1 not in _numbers(log))
    log = reopen()
    assert sorted(log.images) == [2]


def test_replaced_entries_do_not_come_back(reopen):
    log = reopen()
    log.write(entry(7, 1), *[entry(1, index) for index in range(1, 8)])
    _fill(log, 2, 1, 10)
    log.write(entry(1, 3, 2))
    log.write(Snapshot(1, 3, 2, b"", b"", 4))
    log.log.release(1, 4)
    _fill(log, 2, 11, 30)
    log.write(Snapshot(2, 30, 1, b"", b"", 31))
    log.log.release(2, 31)
    log.until(lambda: len(_numbers(log)) <= 3)
    log = reopen()
    assert log.images[1][3:7] == (4, 3, [], None)


def test_release_beyond_the_snapshot_is_refused(reopen):
    log = reopen()
    _fill(log, 1, 1, 5)
    with pytest.raises(ValueError, match="below 3 cannot go: its snapshot is at 0"):
        log.log.release(1, 3)
    with pytest.raises(KeyError):
        log.log.release(2, 1)


def test_an_endless_queue_takes_bounded_space(reopen):
    log = reopen()
    for turn in range(1, 300):
        log.append(entry(1, turn, 1, 900))
        if turn % 10 == 0:
            log.append(Snapshot(1, turn, 1, b"", b"state" * 10, turn - 4))
            log.log.release(1, turn - 4)
    log.append(Snapshot(1, 299, 1, b"", b"", 300))
    log.log.release(1, 300)
    log.until(lambda: len(_numbers(log)) <= 2)
    assert log.log.stats().segments <= 2


def test_a_reader_keeps_what_is_deleted_under_it(reopen):
    log = reopen()
    _fill(log, 1, 1, 40)
    catalog = log.log._catalog
    with catalog.lock:
        handle = catalog.open.get(catalog.segments[1])
    log.write(Snapshot(1, 40, 1, b"", b"", 41))
    log.log.release(1, 41)
    log.until(lambda: 1 not in _numbers(log))
    offset, length = handle.index.place(1, 1)
    assert length == 900
    assert offset > 0
    assert handle.fd > 0


def test_more_segments_than_may_be_open(reopen):
    log = reopen(replace(SMALL, open_segments=2))
    _fill(log, 1, 1, 60)
    assert log.payloads(1, 1, 60) == [entry(1, index, 1, 900) for index in range(1, 61)]


def test_empty_payloads_take_up_no_more_than_their_header(reopen):
    log = reopen()
    log.write(*[Entry(1, index, 1, 0, b"") for index in range(1, 4)])
    assert reopen().payloads(1, 1, 3) == [Entry(1, index, 1, 0, b"") for index in range(1, 4)]
