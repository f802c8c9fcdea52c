"""Periodic work on what the console keeps about clusters."""

from __future__ import annotations

import logging

from celery import shared_task

from brokers.operations import runner

logger = logging.getLogger(__name__)


@shared_task
def fail_abandoned_operations() -> None:
    """Nobody should wait for an operation whose process is gone."""
    if count := runner.fail_abandoned():
        logger.warning("%d running operations had lost their process and are failed now", count)
