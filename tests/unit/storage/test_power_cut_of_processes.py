"""The power cut that is done to the folder of a killed process."""

from __future__ import annotations

import random
import shutil
import threading
from pathlib import Path

import pytest

from brokers.engine.storage.powercut import TracingDisk, cut_power
from tests.unit.storage.model import State, apply, difference, random_call
from tests.unit.storage.opened import SMALL, Opened


class GatedTracingDisk(TracingDisk):
    """Stops before a sync, once it is told to."""

    def __init__(self, trace: Path) -> None:
        super().__init__(trace)
        self.stop = threading.Event()
        self.stopped = threading.Event()
        self.go_on = threading.Event()

    def sync(self, fd: int, path: Path) -> None:
        if self.stop.is_set():
            self.stopped.set()
            self.go_on.wait()
        super().sync(fd, path)


@pytest.mark.parametrize("seed", range(12))
def test_what_was_synced_is_there_and_the_rest_is_whole_calls(seed: int, tmp_path: Path):
    rng = random.Random(seed)
    disk = GatedTracingDisk(tmp_path / "trace")
    log = Opened(tmp_path / "log", SMALL, disk)
    states: list[State] = [{}]

    def append() -> int:
        call = random_call(states[-1], rng)
        states.append(apply(states[-1], call))
        return log.append(*call)

    for _ in range(rng.randint(1, 30)):
        token = append()
    log.until(lambda: log.synced == token)
    disk.stop.set()
    for _ in range(4):
        append()
    assert disk.stopped.wait(20)
    acknowledged = log.synced
    shutil.copytree(tmp_path / "log", tmp_path / "copy")
    shutil.copy(tmp_path / "trace", tmp_path / "copied-trace")
    disk.go_on.set()
    log.log.close()
    cut_power(tmp_path / "copy", tmp_path / "copied-trace", rng)
    log = Opened(tmp_path / "copy")
    assert log.log.damages == []
    assert None in [difference(log, state) for state in states[acknowledged:]]
    log.log.close()


def test_a_disk_that_only_says_it_synced_is_found_out(tmp_path: Path):
    class LyingDisk(TracingDisk):
        def sync(self, fd: int, path: Path) -> None:
            pass

    found = []
    for seed in range(10):
        rng = random.Random(seed)
        folder = tmp_path / str(seed)
        log = Opened(folder, SMALL, LyingDisk(tmp_path / f"trace{seed}"))
        state: State = {}
        for _ in range(5):
            call = random_call(state, rng)
            state = apply(state, call)
            log.write(*call)
        shutil.copytree(folder, tmp_path / f"copy{seed}")
        shutil.copy(tmp_path / f"trace{seed}", tmp_path / f"copied-trace{seed}")
        log.log.close()
        cut_power(tmp_path / f"copy{seed}", tmp_path / f"copied-trace{seed}", rng)
        log = Opened(tmp_path / f"copy{seed}")
        found.append(difference(log, state))
        log.log.close()
    assert any(found)
