"""Back-pressure: publishers wait while the node, or a peer, is short of memory or disk.

As RabbitMQ does it: clients that want to know get ``connection.blocked``, and connections that publish are
not read until the alarm is over; whoever only consumes, acknowledges or deletes goes on, and so ends it.
"""

from __future__ import annotations

import ctypes
import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brokers.engine.node.node import Node

MEMORY_SHARE = 0.4
"""Share of the machine's memory that all its nodes together may use (RabbitMQ's vm_memory_high_watermark)."""
DISK_LIMIT = 50 << 20
"""Free bytes below which publishing stops (RabbitMQ's disk_free_limit); what is left is for acks."""
RELEASE = 0.9
"""An alarm ends when the figure is this far on the good side of its limit."""
HOLD_ABOVE = 64 << 20
"""Bytes of uncommitted publishes above which publishers are not read for a moment; no alarm, just pace."""
GO_ON_BELOW = HOLD_ABOVE // 2

MEMORY, DISK = "memory", "disk"

_page = os.sysconf("SC_PAGE_SIZE")
_log = logging.getLogger(__name__)


def resident_bytes() -> int:
    """Memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * _page


def setting(name: str, default: int, unit: str = "bytes") -> int:
    """A number (of ``unit``) from the environment. Raises ``ValueError`` that names the variable."""
    text = os.environ.get(name, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise ValueError(f"{name} must be a whole number of {unit}, not {text!r}") from None


class Pressure:
    """Watches memory, disk, what waits to be committed, and how the loop keeps up."""

    def __init__(self, node: Node) -> None:
        self._node = node
        total = os.sysconf("SC_PHYS_PAGES") * _page
        nodes = sum(1 for other in node.config.nodes if other.host == node.me.host)
        self.memory_limit = setting("MQ_MEMORY_LIMIT", int(total * MEMORY_SHARE / nodes))
        self.disk_limit = setting("MQ_DISK_FREE_LIMIT", DISK_LIMIT)
        self.alarms: frozenset[str] = frozenset()
        """This node's own alarms."""
        self._peers: dict[int, frozenset[str]] = {}
        self._pacing = False
        self._blocked = ""
        self.delay = 0.0
        """Smoothed seconds by which the loop is late."""

    def loop_delay(self, seconds: float) -> None:
        """One tick came ``seconds`` late."""
        self.delay += 0.05 * (max(0.0, seconds) - self.delay)

    def peer_alarms(self, node: int, alarms: frozenset[str]) -> None:
        """What a peer is short of; publishes must not be sent its way."""
        self._peers[node] = alarms

    @property
    def blocked(self) -> str:
        """Why publishers wait; empty when they don't."""
        return self._blocked

    def check(self) -> None:
        """Raise and end alarms; hold or release publishers. Called about twice a second."""
        self._take_stock()
        reason = self._reason()
        if reason != self._blocked:
            self._announce(reason)
        held = self._node.queues.load.bytes
        self._pacing = held > (GO_ON_BELOW if self._pacing else HOLD_ABOVE)
        hold = bool(reason) or self._pacing
        for socket in self._node.sockets:
            connection = socket.connection
            if connection is None or (hold and not connection.counts.publish):
                continue
            if reason and not socket.told_blocked:
                socket.told_blocked = True
                connection.on_blocked(reason)
                self._node.socket_dirty(socket)
            socket.hold(hold)

    def _take_stock(self) -> None:
        log = self._node.replication.log
        memory, free = resident_bytes(), log.free_bytes()
        alarms = set()
        limit = self.memory_limit * (RELEASE if MEMORY in self.alarms else 1)
        if memory > limit:
            alarms.add(MEMORY)
            _trim()
        limit = self.disk_limit / (RELEASE if DISK in self.alarms else 1)
        if free < limit or log.stats().full:
            alarms.add(DISK)
        for alarm in alarms - self.alarms:
            _log.error(
                "%s alarm: %d bytes used (limit %d), %d bytes of disk free (limit %d)",
                *(alarm, memory, self.memory_limit, free, self.disk_limit),
            )
        for alarm in self.alarms - alarms:
            _log.warning("%s alarm is over", alarm)
        self.alarms = frozenset(alarms)

    def _reason(self) -> str:
        live = self._node.live_nodes()
        everywhere = self.alarms.union(*(a for node, a in self._peers.items() if node in live))
        return f"low on {' and '.join(sorted(everywhere))}" if everywhere else ""

    def _announce(self, reason: str) -> None:
        was, self._blocked = self._blocked, reason
        _log.warning("publishers %s", f"wait: {reason}" if reason else "go on")
        for socket in self._node.sockets:
            if socket.connection is None:
                continue
            if reason and not was:
                socket.told_blocked = True
                socket.connection.on_blocked(reason)
            elif socket.told_blocked and not reason:
                socket.told_blocked = False
                socket.connection.on_unblocked()
            self._node.socket_dirty(socket)


def _trim() -> None:
    """Give freed memory back to the system, so that what is resident is what is used."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        _log.debug("this C library cannot trim its memory")
