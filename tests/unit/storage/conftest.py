"""A log in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brokers.engine.storage.disk import Disk
from brokers.engine.storage.settings import LogSettings
from tests.unit.storage.opened import SMALL, Opened


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Opens the log in the temporary folder, closing the one opened before."""
    opened: list[Opened] = []

    def open_again(settings: LogSettings = SMALL, disk: Disk | None = None) -> Opened:
        for log in opened:
            log.log.close()
        opened.append(Opened(tmp_path / "log", settings, disk))
        return opened[-1]

    yield open_again
    for log in opened:
        log.log.close()
