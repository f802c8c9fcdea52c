"""Periodic work on what the console keeps about clusters."""

from __future__ import annotations

import logging

from celery import shared_task

from brokers.backups import schedule
from brokers.models import Operation
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


@shared_task
def back_up_when_due() -> None:
    """Begin the backups whose time has come, notice those that did not happen, thin out old ones."""
    schedule.tick()


@shared_task(time_limit=24 * 3600, acks_late=False)
def verify_backup(pk: int) -> None:
    """Prove a backup. Not repeated when the worker is lost in the middle: it is failed then."""
    operation = Operation.objects.get(pk=pk)
    if operation.state == Operation.State.CONFIRMED:
        runner.run(operation)


@shared_task(time_limit=600, acks_late=False)
def run_drill(pk: int) -> None:
    """Do a fail-over drill. Not repeated when the worker is lost in the middle: it is failed then."""
    operation = Operation.objects.get(pk=pk)
    if operation.state == Operation.State.CONFIRMED:
        runner.run(operation)
