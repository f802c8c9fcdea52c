"""Hundreds of simulated lives of a cluster. ``python -m tests.sim.run`` runs more, or one of them again."""

from __future__ import annotations

import pytest

from tests.sim.options import Options
from tests.sim.world import World

CHUNK = 25


@pytest.mark.parametrize("chunk", range(16))
def test_promises_hold(chunk: int) -> None:
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        options = Options.of(seed)
        try:
            World(options).run()
        except Exception as error:
            error.add_note(f"seed {seed}: {options}")
            raise


def test_runs_do_something() -> None:
    confirmed = proposed = 0
    for seed in range(1000, 1020):
        world = World(Options.of(seed))
        world.run()
        confirmed += len(world.checks.confirmed)
        proposed += world.serial
    assert confirmed > proposed / 2 > 500


def test_a_seed_is_a_life() -> None:
    lives = []
    for _ in range(2):
        world = World(Options.of(7))
        world.run()
        lives.append((world.clock.now, world.clock.events, world.checks.leaders, world.checks.confirmed))
    assert lives[0] == lives[1]
