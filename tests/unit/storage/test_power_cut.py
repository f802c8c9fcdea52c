"""Whatever was called durable is there after a power cut, and nothing but whole calls in their order.

``STORAGE_SEEDS`` sets how many histories are played (default 20).
"""

from __future__ import annotations

import contextlib
import os
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from brokers.engine.storage.errors import StorageError
from tests.unit.storage.model import State, apply, difference, random_call
from tests.unit.storage.opened import SMALL, Opened
from tests.unit.storage.power import PowerCut, PowerDisk


@pytest.mark.parametrize("seed", range(int(os.environ.get("STORAGE_SEEDS", "20"))))
def test_power_cuts(seed: int, tmp_path: Path):
    rng = random.Random(seed)
    folder = tmp_path / "log"
    folder.mkdir()
    settings = replace(SMALL, preallocate=rng.random() < 0.5, segment_bytes=rng.choice((3000, 8192)))
    state: State = {}
    for _ in range(4):
        states, acknowledged = _run_until_cut(folder, settings, rng, state)
        state = _reopened(folder, settings, states[acknowledged:], seed)


def _synced_or_off(log: Opened, disk: PowerDisk, token: int) -> bool:
    return log.synced >= token or disk.off


def _run_until_cut(folder: Path, settings, rng: random.Random, state: State) -> tuple[list[State], int]:
    """Append until the power goes: the states after each call, and how many calls were called durable."""
    disk = PowerDisk(folder, rng, rng.randint(0, 150))
    states = [state]
    try:
        log = Opened(folder, settings, disk)
    except PowerCut:
        disk.leave()
        return states, 0
    try:
        for _ in range(60):
            call = random_call(states[-1], rng)
            try:
                token = log.append(*call)
            except StorageError:
                break
            states.append(apply(states[-1], call))
            if rng.random() < 0.5:
                log.until(partial(_synced_or_off, log, disk, token))
            if rng.random() < 0.3:
                _release(log, states[-1])
        log.until(lambda: log.synced == len(states) - 1 or disk.off)
        disk.off = True
        log.log.close()
    finally:
        disk.leave()
    return states, log.synced


def _release(log: Opened, state: State) -> None:
    for number, group in state.items():
        if group.snapshot is not None:
            with contextlib.suppress(StorageError):
                log.log.release(number, group.snapshot.keep_from)


def _reopened(folder: Path, settings, possible: list[State], seed: int) -> State:
    """The state a restart finds, which has to be one of those that are possible."""
    log = Opened(folder, settings)
    try:
        assert not log.log.damages, (seed, log.log.damages)
        found = [difference(log, state) for state in possible]
        assert None in found, (seed, found)
        return possible[found.index(None)]
    finally:
        log.log.close()
