"""A short form of ``chaos``: a few seeds. ``python -m tests.cluster.chaos`` runs more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.chaos import chaos

SECONDS = 15.0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_is_lost_whatever_happens(tmp_path: Path, seed: int) -> None:
    chaos(tmp_path, seed, SECONDS)
