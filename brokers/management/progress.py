"""Runs a long operation in a command: with a bar on a terminal, a result for people or programs."""

from __future__ import annotations

import json
import time

from django.core.management.base import BaseCommand, CommandError

from brokers.models import Operation
from brokers.operations import worker

WIDTH = 30
PAUSE = 0.5
"""Seconds between looks at an operation that another process runs."""


def finish(command: BaseCommand, operation: Operation, as_json: bool) -> None:
    """Run ``operation`` here to its end and report. Raises CommandError when it failed."""
    bar = command.stderr.isatty()

    def told(row: Operation) -> None:
        if bar:
            filled = WIDTH * row.progress // 100
            line = f"\r[{'#' * filled}{'.' * (WIDTH - filled)}] {row.progress:3} % {row.step[:60]:60}"
            command.stderr.write(line, ending="")

    while operation.state in Operation.OPEN:
        if not worker.work(operation.pk, told=told):
            operation.refresh_from_db()
            if operation.state in Operation.OPEN:
                time.sleep(PAUSE)
    if bar:
        command.stderr.write("")
    report(command, operation, as_json)


def report(command: BaseCommand, operation: Operation, as_json: bool) -> None:
    """Print how an operation ended. Raises CommandError when it failed."""
    operation.refresh_from_db()
    if as_json:
        row = {"operation": operation.pk, "state": operation.state, "error": operation.error}
        command.stdout.write(json.dumps({**row, **operation.result}))
    if operation.state != Operation.State.DONE:
        raise CommandError(operation.error or f"the operation is {operation.state}")
    if not as_json:
        command.stdout.write(operation.step)
