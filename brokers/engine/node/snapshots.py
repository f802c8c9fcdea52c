"""When groups are snapshotted, so that logs stay short and restarts quick."""

from __future__ import annotations

from brokers.engine.core.model.metadata import Metadata
from brokers.engine.node.hosts import ReplicaHost, wall_clock_ms
from brokers.engine.node.metadata_service import METADATA_GROUP
from brokers.engine.node.queues import Queues
from brokers.engine.node.replication import Replication

METADATA_ENTRIES = 1024
"""A snapshot of the metadata is made after so many entries."""
QUIET = 30.0
"""Seconds between looks at queues with few new entries."""
LOG_SHARE = 0.25
"""Share of the room (its own and what is free) that the log may take for the sake of retention."""
FREE_SHARE = 0.1
"""Share of the room below which nothing is retained."""
PER_CHECK = 16
"""Snapshots made at one check: the loop has other things to do."""


class Snapshots:
    """Makes the snapshots of all groups of a node and lets the log drop what they cover."""

    def __init__(self, replication: Replication, queues: Queues, metadata: Metadata) -> None:
        self._replication = replication
        self._queues = queues
        self._metadata = metadata
        self._metadata_index = 0
        self._metadata_snapshot: int | None = None
        self._quiet_at = 0.0

    def metadata_applied(self, index: int) -> None:
        """The metadata's state is that at log ``index``."""
        self._metadata_index = index
        if self._metadata_snapshot is None:
            self._metadata_snapshot = index

    def check(self, now: float) -> None:
        """Make those that are due."""
        since = self._metadata_index - (self._metadata_snapshot or 0)
        if since >= METADATA_ENTRIES:
            self._metadata_snapshot = self._metadata_index
            state = self._metadata.snapshot()
            self._replication.snapshot(METADATA_GROUP, self._metadata_index, state, self._metadata_index + 1)
        quiet = now - self._quiet_at >= QUIET
        made = 0
        for host in list(self._queues.hosts.values()):
            if not isinstance(host, ReplicaHost) or not host.wants_snapshot(quiet):
                continue
            self._make(host, now)
            made += 1
            if made == PER_CHECK:
                return
        if quiet:
            self._quiet_at = now

    def _make(self, host: ReplicaHost, now: float) -> None:
        state = host.state
        state.retain_from = self._retain_from(host)
        if host.held is not None:
            position, until = host.held
            if now >= until:
                host.held = None
            elif state.retain_from is None or position < state.retain_from:
                state.retain_from = position
        keep_from = state.keep_from()  # first: what it lets go of must not be in the snapshot
        self._replication.snapshot(host.group, state.applied, state.dump(), keep_from)
        host.snapshotted()

    def _retain_from(self, host: ReplicaHost) -> int | None:
        """From which position on settled messages are kept, given how much room there is."""
        settings = self._queues.settings(host.group)
        if settings is None:
            return host.state.retain_from
        share = self._share()
        size = int(settings.retention_bytes * share)
        return host.state.marks.keep_from(size, int(settings.retention * share), wall_clock_ms())

    def _share(self) -> float:
        """How much of the retention the disk allows: all of it, or less when the log takes too much room.

        What is retained must neither fill the disk nor hold up publishers.
        """
        log = self._replication.log
        used, free = log.stats().bytes, log.free_bytes()
        if free < FREE_SHARE * (used + free):
            return 0.0
        return min(1.0, LOG_SHARE * (used + free) / max(1, used))
