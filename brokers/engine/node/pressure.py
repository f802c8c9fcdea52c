"""Back-pressure: publishers wait when the node holds too much of what it cannot commit fast enough."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brokers.engine.node.node import Node

HOLD_ABOVE = 64 << 20
"""Bytes of uncommitted publishes above which publishers are not read any more."""
GO_ON_BELOW = HOLD_ABOVE // 2

_log = logging.getLogger(__name__)


class Pressure:
    """Watches what the node holds, how its loop keeps up and whether the disk has room."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._holding = False
        self._full = False
        self.delay = 0.0
        """Smoothed seconds by which the loop is late."""

    def loop_delay(self, seconds: float) -> None:
        """One tick came ``seconds`` late."""
        self.delay += 0.05 * (max(0.0, seconds) - self.delay)

    def check(self) -> None:
        """Hold or release publishers."""
        self._check_disk()
        held = self._node.queues.load.bytes
        limit = GO_ON_BELOW if self._holding else HOLD_ABOVE
        wanted = self._full or held > limit
        if wanted is not self._holding:
            self._holding = wanted
            _log.warning("publishers %s: %d bytes uncommitted", "held" if wanted else "released", held)
        for socket in self._node.sockets:
            connection = socket.connection
            if connection is not None and (not wanted or connection.counts.publish):
                socket.hold(wanted)

    def _check_disk(self) -> None:
        full = self._node.replication.log.stats().full
        if full is self._full:
            return
        self._full = full
        for socket in self._node.sockets:
            if socket.connection is None:
                continue
            if full:
                socket.connection.on_blocked("low on disk")
            else:
                socket.connection.on_unblocked()
            self._node.socket_dirty(socket)
