"""Bits flip, files are cut or vanish: what was durable is found, or its loss is."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from brokers.engine.core.raft.records import HardState, Record, Removed, Snapshot
from brokers.engine.storage import format as fmt
from brokers.engine.storage.errors import DamagedRecord
from tests.unit.storage.model import GroupModel, State, apply
from tests.unit.storage.opened import SMALL, Opened, entry

_made: dict[bool, tuple[dict[str, bytes], State]] = {}


def _written(folder: Path, *, clean: bool) -> State:
    """Some segments with three groups; their state. ``clean``: closed, with all sidecars."""
    if clean not in _made:
        state = _write(folder, clean=clean)
        _made[clean] = {path.name: path.read_bytes() for path in folder.glob("*.*")}, state
    files, state = _made[clean]
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return state


def _write(folder: Path, *, clean: bool) -> State:
    log = Opened(folder)
    rng = random.Random(1)
    state: State = {}
    for turn in range(1, 25):
        call: list[Record] = [entry(group, turn, 1 + turn // 10, rng.randint(0, 300)) for group in (1, 2, 3)]
        if turn % 7 == 0:
            call.append(HardState(1 + turn % 3, 1 + turn // 10, turn))
        if turn == 15:
            call.append(Snapshot(2, 12, 2, b"members", b"state", 10))
        log.write(*call)
        state = apply(state, call)
    assert len(list(folder.glob("*.log"))) >= 3
    if clean:
        log.log.close()
    else:
        log.until(lambda: _marked(folder))
        shutil.copytree(folder, folder.with_name("copy"))
        log.log.close()
        shutil.rmtree(folder)
        folder.with_name("copy").rename(folder)
    return state


def _hard(number: int, group: GroupModel) -> HardState:
    """The hard state on disk, raised to the term of the last entry."""
    hard = group.hard or HardState(number, 0, 0)
    return hard if hard.term >= group.term else HardState(number, group.term, 0)


def _marked(folder: Path) -> bool:
    """Whether the log ends with an empty batch."""
    path = max(folder.glob("*.log"))
    data = path.read_bytes()
    found = fmt.unpack_segment_header(data, path)
    assert found
    at, last = fmt.SEGMENT_HEADER, None
    while header := fmt.unpack_header(data, at, found[1] + at):
        at += fmt.HEADER + header.length
        last = header
    return last is not None and last.type == fmt.BATCH and last.index == 0


def _check(folder: Path, state: State) -> str:
    """Open the log: nothing may be lost in silence. Says what became of the damage."""
    log = Opened(folder)
    outcome = "nothing lost"
    try:
        for number, group in state.items():
            image = log.images.get(number)
            if image is None:
                assert any(damage.group is None for damage in log.log.damages)
                outcome = "known"
                continue
            intact = image.last if image.damaged is None else image.damaged - 1
            if image.damaged is None:
                assert image.last == group.last
                assert image.hard == _hard(number, group)
                assert image.snapshot == group.snapshot
            else:
                outcome = "known"
            for index in range(max(image.first, min(group.entries)), intact + 1):
                try:
                    assert log.payloads(number, index, index) == [group.entries[index]]
                except DamagedRecord:
                    outcome = "found on reading"
            if image.damaged is None:
                assert image.first == min(group.entries)
        return outcome
    finally:
        log.log.close()


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_no_flipped_bit_loses_anything_in_silence(tmp_path, clean, seed):
    folder = tmp_path / "log"
    state = _written(folder, clean=clean)
    rng = random.Random(seed)
    for path in sorted(folder.glob("*.*")):
        copy = tmp_path / "damaged"
        shutil.copytree(folder, copy)
        data = bytearray((copy / path.name).read_bytes())
        at = rng.randrange(len(bytes(data).rstrip(b"\0")))
        data[at] ^= 1 << rng.randrange(8)
        (copy / path.name).write_bytes(data)
        outcome = _check(copy, state)
        if path.suffix == ".idx":
            assert outcome == "nothing lost"
        if outcome == "known":
            assert _check(copy, state) == "known", "a second start forgot the damage"
        shutil.rmtree(copy)


def _locate(folder: Path, type_: int, nth: int) -> tuple[Path, int, fmt.Header]:
    """Where the ``nth`` record of a type lies."""
    for path in sorted(folder.glob("*.log")):
        data = path.read_bytes()
        found = fmt.unpack_segment_header(data, path)
        assert found
        at = fmt.SEGMENT_HEADER
        while header := fmt.unpack_header(data, at, found[1] + at):
            if header.type == type_:
                nth -= 1
                if nth < 0:
                    return path, at, header
            at += fmt.HEADER + header.length
    raise LookupError(type_)


def _flip_copies(path: Path, at: int) -> None:
    """Damage the copies of the headers of the batch whose record lies at ``at``."""
    data = path.read_bytes()
    found = fmt.unpack_segment_header(data, path)
    assert found
    while header := fmt.unpack_header(data, at, found[1] + at):
        at += fmt.HEADER
        if header.type == fmt.BATCH:
            return _flip(path, at)
        at += header.length
    raise LookupError(path)


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def _without_sidecars(folder: Path) -> None:
    for path in folder.glob("*.idx"):
        path.unlink()


def test_a_damaged_payload_costs_its_entry_alone(tmp_path):
    state = _written(tmp_path / "log", clean=False)
    _without_sidecars(tmp_path / "log")
    path, at, header = _locate(tmp_path / "log", fmt.ENTRY, 9)
    _flip(path, at + fmt.HEADER)
    log = Opened(tmp_path / "log")
    damaged = {number: image.damaged for number, image in log.images.items()}
    assert damaged == {**dict.fromkeys(state), header.group: header.index}
    assert [(item.group, item.offset) for item in log.log.damages] == [(header.group, at)]
    with pytest.raises(LookupError):
        log.payloads(header.group, header.index, header.index)
    after = log.payloads(header.group, header.index + 1, header.index + 1)
    assert after == [state[header.group].entries[header.index + 1]]
    log.log.close()


def test_a_damaged_header_is_restored_from_its_copy(tmp_path):
    state = _written(tmp_path / "log", clean=False)
    _without_sidecars(tmp_path / "log")
    for nth in (0, 7, 20):
        path, at, _ = _locate(tmp_path / "log", fmt.ENTRY, nth)
        for byte in (0, 9, 20, fmt.HEADER - 1):
            _flip(path, at + byte)
            assert _check(tmp_path / "log", state) == "nothing lost"
            _without_sidecars(tmp_path / "log")
            path.write_bytes(path.read_bytes())
            _flip(path, at + byte)


def test_when_nothing_tells_whose_record_it_was_all_groups_are_damaged(tmp_path):
    state = _written(tmp_path / "log", clean=False)
    _without_sidecars(tmp_path / "log")
    path, at, _ = _locate(tmp_path / "log", fmt.ENTRY, 3)
    _flip_copies(path, at)
    _flip(path, at)
    log = Opened(tmp_path / "log")
    assert all(image.damaged is not None for image in log.images.values())
    assert [item.group for item in log.log.damages] == [None]
    log.log.close()
    assert set(state) == set(log.images)


def test_both_copies_of_a_segments_header_are_needed_to_lose_it(tmp_path):
    state = _written(tmp_path / "log", clean=False)
    _without_sidecars(tmp_path / "log")
    path = sorted((tmp_path / "log").glob("*.log"))[1]
    _flip(path, 3)
    assert _check(tmp_path / "log", state) == "nothing lost"
    path.with_suffix(".idx").unlink()
    _flip(path, 515)
    assert _check(tmp_path / "log", state) == "known"


@pytest.mark.parametrize("sidecar", [True, False])
@pytest.mark.parametrize("size", [None, 0, 3000])
def test_a_segment_that_vanished_or_was_cut_is_damage(tmp_path, sidecar, size):
    state = _written(tmp_path / "log", clean=True)
    path = sorted((tmp_path / "log").glob("*.log"))[1]
    if size is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:size])
    if not sidecar:
        path.with_suffix(".idx").unlink()
    for _ in range(2):
        assert _check(tmp_path / "log", state) == "known"


def test_damage_that_was_replaced_before_it_was_found_is_none(tmp_path):
    log = Opened(tmp_path / "log")
    log.write(*[entry(1, index) for index in range(1, 6)])
    log.write(entry(1, 3, 2), entry(1, 4, 2))
    log.log.close()
    _without_sidecars(tmp_path / "log")
    path, at, header = _locate(tmp_path / "log", fmt.ENTRY, 3)
    assert header.index == 4
    _flip(path, at + fmt.HEADER)
    log = Opened(tmp_path / "log")
    assert log.images[1][3:7] == (1, 4, [(1, 1), (3, 2)], None)
    log.log.close()


def test_a_member_that_starts_over_below_its_snapshot_loses_the_snapshot(tmp_path):
    log = Opened(tmp_path / "log")
    log.write(*[entry(1, index) for index in range(1, 11)], Snapshot(1, 8, 1, b"", b"", 5))
    log.log.close()
    _without_sidecars(tmp_path / "log")
    path, at, _ = _locate(tmp_path / "log", fmt.ENTRY, 5)
    _flip(path, at + fmt.HEADER)
    log = Opened(tmp_path / "log")
    assert log.images[1].damaged == 6
    log.write(entry(1, 1, 3))
    with pytest.raises(LookupError):
        log.log.snapshot(1)
    for _ in range(2):
        log.log.close()
        log = Opened(tmp_path / "log")
        assert log.images[1].snapshot is None
        assert log.images[1][3:7] == (1, 1, [(1, 3)], 6)
    log.write(*[entry(1, index, 3) for index in range(2, 9)])
    log.log.mark_repaired(1)
    log.log.close()
    log = Opened(tmp_path / "log")
    assert log.images[1][3:7] == (1, 8, [(1, 3)], None)
    log.log.close()


def test_damage_ends_with_the_repair_not_with_what_replaces_it(tmp_path):
    _written(tmp_path / "log", clean=False)
    _without_sidecars(tmp_path / "log")
    path, at, header = _locate(tmp_path / "log", fmt.ENTRY, 9)
    _flip(path, at + fmt.HEADER)
    log = Opened(tmp_path / "log")
    log.write(*[entry(header.group, index, 9) for index in range(header.index, 30)])
    for _ in range(2):
        log.log.close()
        log = Opened(tmp_path / "log")
        assert log.images[header.group].damaged == header.index
    log.log.mark_repaired(header.group)
    log.log.close()
    log = Opened(tmp_path / "log")
    assert log.images[header.group].damaged is None
    assert log.images[header.group].last == 29
    log.log.close()


def test_a_repaired_group_is_no_longer_damaged_and_its_segment_may_go(tmp_path):
    _written(tmp_path / "log", clean=True)
    path = sorted((tmp_path / "log").glob("*.log"))[0]
    path.unlink()
    path.with_suffix(".idx").unlink()
    log = Opened(tmp_path / "log")
    assert {image.damaged is None for image in log.images.values()} == {False}
    log.write(Removed(1))
    for group, first in ((2, 13), (3, 1)):
        log.write(*[entry(group, first + step, 9) for step in range(5)], HardState(group, 9, 0))
        log.log.mark_repaired(group)
    log.log.mark_repaired(1)
    log.write(entry(4, 1))
    log.log.mark_repaired(4)
    log.write(entry(4, 2))
    log.log.close()
    log = Opened(tmp_path / "log")
    assert {number: image.damaged for number, image in log.images.items()} == {2: None, 3: None, 4: None}
    log.until(lambda: log.log.stats().segments <= 3)
    log.log.close()
    log = Opened(tmp_path / "log")
    assert not log.log.damages
    assert {number: image.damaged for number, image in log.images.items()} == {2: None, 3: None, 4: None}
    assert log.payloads(3, 1, 9) == [entry(3, index, 9) for index in range(1, 6)]
    log.log.close()


def test_a_lost_hard_state_keeps_the_member_from_voting(tmp_path):
    log = Opened(tmp_path / "log")
    log.write(HardState(1, 5, 2), entry(1, 1, 5))
    log.write(entry(1, 2, 5))
    log.until(lambda: _marked(tmp_path / "log"))
    log.log.close()
    _without_sidecars(tmp_path / "log")
    path, at, _ = _locate(tmp_path / "log", fmt.HARD, 0)
    _flip_copies(path, at)
    _flip(path, at)
    log = Opened(tmp_path / "log")
    assert log.images[1].damaged is not None
    assert log.images[1].hard == HardState(1, 5, 0)
    log.log.close()


def test_a_body_that_looks_like_a_record_is_not_taken_for_one(tmp_path):
    log = Opened(tmp_path / "log")
    log.write(entry(1, 1))
    path = max((tmp_path / "log").glob("*.log"))
    _, at, _ = _locate(tmp_path / "log", fmt.ENTRY, 0)
    forged = path.read_bytes()[at : at + 148]
    log.write(entry(1, 2)._replace(payload=forged * 3), entry(1, 3))
    log.write(entry(1, 4))
    log.log.close()
    _without_sidecars(tmp_path / "log")
    path, at, _ = _locate(tmp_path / "log", fmt.ENTRY, 1)
    _flip(path, at)
    log = Opened(tmp_path / "log")
    assert log.images[1].damaged is None
    assert log.payloads(1, 2, 2)[0].payload == forged * 3
    log.log.close()


def test_damage_found_on_reading_is_known_after_the_next_start(tmp_path):
    _written(tmp_path / "log", clean=True)
    path, at, header = _locate(tmp_path / "log", fmt.ENTRY, 0)
    _flip(path, at + fmt.HEADER)
    log = Opened(tmp_path / "log")
    assert log.images[header.group].damaged is None
    for _ in range(2):
        with pytest.raises(DamagedRecord, match="has to be repaired from its peers"):
            log.payloads(header.group, header.index, header.index)
        with log.log._catalog.lock:
            log.log._catalog.open.clear()
    log.log.close()
    log = Opened(tmp_path / "log")
    assert log.images[header.group].damaged == header.index
    log.log.close()


def test_a_damaged_snapshot_found_at_the_start_makes_the_group_damaged(tmp_path):
    log = Opened(tmp_path / "log", SMALL)
    log.write(*[entry(1, index) for index in range(1, 6)], Snapshot(1, 5, 1, b"m", b"state", 6))
    log.log.close()
    path, at, _ = _locate(tmp_path / "log", fmt.SNAP, 0)
    _flip(path, at + fmt.HEADER + 14)
    log = Opened(tmp_path / "log")
    assert log.images[1].damaged == 1
    assert log.images[1].snapshot is None
    log.log.close()
