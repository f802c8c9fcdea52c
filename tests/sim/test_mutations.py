"""The simulation finds planted bugs: a referee that whistles for nothing is no referee."""

from __future__ import annotations

import pytest

from tests.sim.mutations import PLANTS
from tests.sim.options import Options
from tests.sim.world import World

SEEDS = 120


@pytest.mark.parametrize("name", PLANTS)
def test_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug, faults = PLANTS[name]
    bug(monkeypatch)
    for seed in range(SEEDS):
        try:
            World(Options.of(seed, faults)).run()
        except (TypeError, AttributeError, NameError):
            raise
        except Exception:
            return
    pytest.fail(f"{SEEDS} seeds ran as if nothing was wrong")
