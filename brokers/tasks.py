"""Periodic work on what the console keeps about clusters."""

from __future__ import annotations

import logging

from celery import shared_task

from brokers.operations import runner, worker

logger = logging.getLogger(__name__)


@shared_task
def fail_abandoned_operations() -> None:
    """Nobody should wait for an operation whose process is gone."""
    if count := runner.fail_abandoned():
        logger.warning("%d running operations had lost their process and are failed now", count)


@shared_task(name=worker.TASK)
def run_operation(pk: int) -> None:
    """Go on with a long operation for a while."""
    if worker.work(pk):
        worker.enqueue(pk)


@shared_task
def resume_operations() -> None:
    """Go on with long operations whose process is gone, or that no task was sent for."""
    for pk in worker.waiting():
        worker.enqueue(pk)
