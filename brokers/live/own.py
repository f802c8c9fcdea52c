"""Queues that the console uses for Celery. They are shown like others and don't count as a first step."""

from __future__ import annotations

from django.conf import settings

from brokers.adapters.base import Queue
from brokers.live.state import State


def is_own(queue: Queue) -> bool:
    """Whether ``queue`` belongs to the console's Celery: its tasks, its remote control, its events."""
    return (
        queue.name == settings.CELERY_TASK_DEFAULT_QUEUE
        or queue.name.endswith(".celery.pidbox")
        or queue.name.startswith("celeryev.")
    )


def only_own(state: State) -> bool:
    """Whether nobody but the console has made a queue yet."""
    return all(is_own(queue) for queue in tuple(state.queues.values()))
