"""Begins to watch the clusters when the web process starts, not when the first page is opened.

So the first page has a past to draw, and doesn't wait for the first answer of its cluster.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from django.db import Error, connection

from brokers.live.watcher import watcher_of
from brokers.models import Cluster

logger = logging.getLogger(__name__)

Application = Callable[[dict[str, Any], Any, Any], Awaitable[Any]]


class WatchFromTheStart:
    """Passes everything on, and begins to watch all clusters with the first thing that comes.

    Something always comes at once: whoever starts the server asks whether it is up. (Daphne has no
    start-up event, and importing the application must not touch the database.)
    """

    def __init__(self, application: Application) -> None:
        self.application = application
        self._begun = False

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        if not self._begun:
            self._begun = True
            threading.Thread(target=watch_all, name="begin to watch", daemon=True).start()
        return await self.application(scope, receive, send)


def watch_all() -> None:
    """Start a watcher for each cluster; pages start those of clusters that are entered later."""
    try:
        for cluster in Cluster.objects.all():
            watcher_of(cluster.pk, cluster.slug, cluster.adapter)
    except (Error, LookupError):
        logger.exception("clusters are watched only once their pages are opened")
    finally:
        connection.close()
