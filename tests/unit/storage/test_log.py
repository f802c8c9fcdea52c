"""Appending, reading back, restarting, overwriting."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from brokers.engine.core.raft.records import Entry, HardState, Removed, Snapshot
from brokers.engine.storage import format as fmt
from brokers.engine.storage.errors import FolderInUse, LogClosed, UnsupportedFormat
from brokers.engine.storage.settings import LogSettings
from tests.unit.storage.opened import SMALL, entry


def test_entries_are_read_back_from_memory_disk_and_after_a_restart(reopen):
    log = reopen()
    entries = [entry(7, index, term=1 + index // 20) for index in range(1, 61)]
    log.append(*entries[:5])
    assert log.payloads(7, 1, 60) == entries[:5]
    log.write_each(entries[5:])
    assert log.log.stats().segments > 1
    assert log.log.stats().cached_bytes == 0
    assert log.payloads(7, 1, 60) == entries
    assert log.payloads(7, 17, 33) == entries[16:33]
    log = reopen()
    image = log.images[7]
    assert (image.first, image.last, image.damaged) == (1, 60, None)
    assert image.terms == [(1, 1), (20, 2), (40, 3), (60, 4)]
    assert log.payloads(7, 1, 60) == entries


def test_a_restart_without_a_clean_end_or_sidecars_finds_the_same(reopen, tmp_path):
    log = reopen()
    entries = [entry(group, index) for index in range(1, 41) for group in (1, 2, 3)]
    log.write_each([HardState(2, 5, 3), *entries])
    log.log.close()
    for path in (tmp_path / "log").glob("*.idx"):
        path.unlink()
    log = reopen()
    assert log.images[2].hard == HardState(2, 5, 3)
    for group in (1, 2, 3):
        assert log.images[group].damaged is None
        assert log.payloads(group, 1, 40) == [item for item in entries if item.group == group]


def test_max_bytes_bounds_a_read_but_one_entry_always_comes(reopen):
    log = reopen()
    log.write(*[entry(1, index) for index in range(1, 10)])
    assert len(log.log.read(1, 1, 9, 350)) == 3
    assert len(log.log.read(1, 1, 9, 0)) == 1


def test_what_is_not_there_is_a_lookup_error(reopen):
    log = reopen()
    with pytest.raises(LookupError, match="no group 1"):
        log.payloads(1, 1, 1)
    log.write(entry(1, 1))
    with pytest.raises(LookupError, match="no entry 2"):
        log.payloads(1, 2, 2)


@pytest.mark.parametrize("between", [0, 100])
def test_a_lower_index_replaces_what_follows(reopen, between):
    log = reopen()
    log.write_each([entry(1, index) for index in range(1, 11)])
    log.write_each([entry(2, index) for index in range(1, between + 1)])
    log.write(entry(1, 6, term=2), entry(1, 7, term=2))
    expected = [entry(1, index) for index in range(1, 6)] + [entry(1, 6, 2), entry(1, 7, 2)]
    assert log.payloads(1, 1, 99) == expected
    for _ in range(2):
        log = reopen()
        assert log.images[1][3:6] == (1, 7, [(1, 1), (6, 2)])
        assert log.payloads(1, 1, 99) == expected


def test_an_overwrite_that_waits_hides_the_old_entries_at_once(reopen):
    log = reopen()
    log.write(*[entry(1, index) for index in range(1, 11)])
    log.append(entry(1, 3, term=2))
    log.append(entry(1, 2, term=3))
    assert [item.term for item in log.payloads(1, 1, 10)] == [1, 3]


def test_hard_states_and_snapshots_survive_and_the_last_one_counts(reopen):
    log = reopen()
    snapshot = Snapshot(4, 3, 2, b"members", b"state" * 100, 2)
    log.write(HardState(4, 1, 1), entry(4, 1), entry(4, 2), entry(4, 3, 2), HardState(4, 2, 9))
    log.append(Snapshot(4, 2, 1, b"", b"", 1))
    log.append(snapshot)
    assert log.log.snapshot(4) == snapshot
    log = reopen()
    assert log.images[4].hard == HardState(4, 2, 9)
    assert log.images[4].snapshot == snapshot
    assert log.log.snapshot(4) == snapshot
    assert log.log.image(4) == log.images[4]
    assert log.images[4][3:5] == (2, 3)
    with pytest.raises(LookupError, match="no snapshot of group 5"):
        log.log.snapshot(5)


def test_a_snapshot_over_a_log_that_lacks_its_index_voids_what_is_above(reopen):
    log = reopen()
    log.write(*[entry(1, index) for index in range(1, 11)])
    log.write(Snapshot(1, 5, 4, b"", b"", 6))
    with pytest.raises(LookupError):
        log.payloads(1, 6, 6)
    log = reopen()
    with pytest.raises(LookupError):
        log.payloads(1, 6, 6)
    assert log.images[1][3:7] == (6, 5, [], None)
    assert log.images[1].hard.term == 4


def test_a_snapshot_of_an_entry_in_the_log_keeps_what_is_above(reopen):
    log = reopen()
    log.write(*[entry(1, index) for index in range(1, 11)], Snapshot(1, 5, 1, b"", b"", 3))
    log = reopen()
    assert log.images[1][3:7] == (3, 10, [(3, 1)], None)


def test_an_installed_snapshot_comes_with_entries_over_a_gap(reopen):
    log = reopen()
    log.write(*[entry(1, index) for index in range(1, 4)])
    log.write(*[entry(1, index, 2) for index in range(8, 11)], Snapshot(1, 10, 2, b"", b"", 8))
    log.write(entry(1, 11, 2))
    log = reopen()
    assert log.images[1][3:7] == (8, 11, [(8, 2)], None)


def test_a_removed_group_is_gone_and_may_come_back(reopen):
    log = reopen()
    log.write(*[entry(1, index) for index in range(1, 4)], HardState(1, 1, 1), entry(2, 1))
    log.write(Removed(1))
    with pytest.raises(LookupError):
        log.payloads(1, 1, 1)
    log = reopen()
    assert list(log.images) == [2]
    log.write(entry(1, 1, 9))
    log = reopen()
    assert log.images[1][3:7] == (1, 1, [(1, 9)], None)
    assert log.images[1].hard.vote == 0


def test_a_record_larger_than_a_segment_gets_one_of_its_own(reopen):
    log = reopen()
    big = entry(1, 2, size=50_000)
    log.write_each([entry(1, 1), big, entry(1, 3)])
    assert log.log.stats().segments == 3
    assert reopen().payloads(1, 1, 3) == [entry(1, 1), big, entry(1, 3)]


def test_more_records_than_one_vector_takes_go_out_in_one_batch(reopen):
    log = reopen(LogSettings())
    entries = [entry(1, index, size=10) for index in range(1, 3001)]
    log.write(*entries)
    assert log.log.stats().syncs == 1
    assert reopen().payloads(1, 1, 3000) == entries


def test_an_unknown_record_type_and_a_payload_beyond_the_limit_are_refused(reopen, monkeypatch):
    log = reopen()
    monkeypatch.setattr(fmt, "MAX_PAYLOAD", 1000)
    with pytest.raises(ValueError, match="larger than the log's 1000"):
        log.append(entry(1, 1, size=2000))
    with pytest.raises(LookupError):
        log.payloads(1, 1, 1)


def test_a_closed_log_takes_nothing(reopen):
    log = reopen()
    log.log.close()
    log.log.close()
    with pytest.raises(LogClosed):
        log.append(entry(1, 1))


def test_only_one_process_may_open_a_folder(reopen, tmp_path):
    reopen()
    code = (
        "import sys; from pathlib import Path; from brokers.engine.storage.log import Log;"
        "from brokers.engine.storage.settings import LogSettings\n"
        "Log.open(Path(sys.argv[1]), settings=LogSettings(), on_synced=print)"
    )
    found = subprocess.run([sys.executable, "-c", code, tmp_path / "log"], capture_output=True, text=True)
    assert FolderInUse.__name__ in found.stderr
    assert "stop that node first" in found.stderr


def test_a_newer_format_is_refused_and_left_alone(reopen, tmp_path, monkeypatch):
    log = reopen()
    monkeypatch.setattr(fmt, "VERSION", fmt.VERSION + 1)
    log.write_each([entry(1, index) for index in range(1, 100)])
    log.log.close()
    monkeypatch.undo()
    before = {path: path.read_bytes() for path in (tmp_path / "log").iterdir()}
    with pytest.raises(UnsupportedFormat, match="format version 2, this release reads up to 1"):
        reopen()
    assert {path: path.read_bytes() for path in (tmp_path / "log").iterdir()} == before


def test_files_are_private(reopen, tmp_path: Path):
    reopen().write(entry(1, 1))
    for path in (tmp_path / "log").iterdir():
        assert os.stat(path).st_mode & 0o077 == 0


def test_restarts_do_not_pile_up_segments(reopen):
    log = reopen()
    log.write(entry(1, 1))
    for _ in range(5):
        log = reopen()
    assert log.log.stats().segments <= 3


def test_memory_holds_ranges_not_entries(reopen):
    log = reopen()
    log.write_each([Entry(1, index, 1, 2, b"") for index in range(1, 500)])
    with log.log._catalog.lock:
        state = log.log._catalog.groups[1]
        assert state.recent == {} or SMALL.cache_bytes == 0
        assert len(state.spans) <= len(log.log._catalog.segments)
