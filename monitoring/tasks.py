"""Periodic checks, run by Celery."""

from __future__ import annotations

import logging

from celery import shared_task

from brokers.models import Cluster
from monitoring import checks

logger = logging.getLogger(__name__)


@shared_task
def check_clusters() -> None:
    """Look at every cluster. One that can't be looked at does not keep the others from their turn."""
    for cluster in Cluster.objects.all():
        try:
            checks.check(cluster)
        except Exception:
            logger.exception("checking the cluster %s failed", cluster)


@shared_task
def drop_old_samples() -> None:
    """Delete what is past its time."""
    samples, events = checks.drop_old()
    logger.info("dropped %d old samples and %d old events", samples, events)
