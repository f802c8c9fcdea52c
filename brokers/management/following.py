"""Long operations run by a command itself, with a progress bar where somebody looks on."""

from __future__ import annotations

from typing import Any, Final

from brokers.models import Operation
from brokers.operations import worker

WIDTH: Final = 30
"""Characters of a progress bar."""


def follow(operation: Operation, output: Any = None) -> Operation:
    """Run ``operation`` to its end in this process; the row as it is then.

    ``output`` (a command's ``stderr``) gets a progress bar when it is a terminal. An operator may pause or
    cancel it from the page: a paused one is left to whoever resumes it.
    """
    drawn = output is not None and output.isatty()

    def told(row: Operation) -> None:
        if drawn:
            filled = WIDTH * row.progress // 100
            bar = "#" * filled + "." * (WIDTH - filled)
            output.write(f"\r[{bar}] {row.progress:3} %  {row.step[:60]:<60}", ending="")

    while worker.work(operation.pk, told=told):
        continue
    if drawn:
        output.write("")
    operation.refresh_from_db()
    return operation
