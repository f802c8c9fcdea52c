"""Which queues a backup is of."""

from __future__ import annotations

from collections.abc import Callable

from brokers.adapters.base import Queue
from brokers.live.own import is_own


def wanted(selection: list[list[str]] | None) -> Callable[[Queue], bool]:
    """Whether a queue belongs into a backup of ``selection`` ([vhost, name] each; None: all).

    The console's own queues only when they are named: its tasks are not to be done again after a restore.
    """
    if selection is None:
        return lambda queue: not is_own(queue)
    named = {(vhost, name) for vhost, name in selection}
    return lambda queue: queue.key in named
