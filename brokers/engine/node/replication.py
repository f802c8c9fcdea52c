"""Drives consensus: carries out what ``Multi`` asks for, on the log and the links of this node."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from brokers.engine.core.raft.codec import decode, encode
from brokers.engine.core.raft.messages import Message
from brokers.engine.core.raft.multi import Multi
from brokers.engine.core.raft.records import Entry, GroupImage, Snapshot
from brokers.engine.core.raft.types import Membership, RoleChange, Settings
from brokers.engine.node.metadata_service import METADATA_GROUP
from brokers.engine.node.peers import RAFT, Peers
from brokers.engine.storage.disk import Disk
from brokers.engine.storage.log import Log
from brokers.engine.storage.powercut import TracingDisk
from brokers.engine.storage.settings import LogSettings

APPLY_BYTES = 4 << 20
"""Bytes of entries that are read at once for applying."""
MAX_EARLY = 256
"""Groups whose first messages are kept until this node has applied their creation."""
STALL = 1.0
"""Seconds that a sync may take before this node gives up its leaderships."""

TRACE = "MQ_TEST_TRACE"
"""Environment variable for tests: a file in which the log notes what is durable (``storage/powercut.py``)."""

_log = logging.getLogger(__name__)


def _disk() -> Disk | None:
    trace = os.environ.get(TRACE)
    return TracingDisk(Path(trace)) if trace else None


class StateMachines(Protocol):
    """Who applies what was decided."""

    def on_role(self, change: RoleChange) -> None: ...

    def on_entries(self, group: int, entries: list[Entry]) -> None: ...

    def on_installed(self, snapshot: Snapshot) -> None: ...


class Replication:
    """The log and the consensus groups of a node. ``wake`` asks for a turn of the node's loop."""

    def __init__(
        self,
        me: int,
        boot: int,
        folder: Path,
        loop: asyncio.AbstractEventLoop,
        *,
        wake: Callable[[], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._loop = loop
        self._wake = wake
        self._on_failure = on_failure
        self.log, self.images = Log.open(
            folder,
            settings=LogSettings(),
            on_synced=self._synced_in_thread,
            on_failure=self._failed_in_thread,
            disk=_disk(),
        )
        # Clients wait for topology changes on every node: see ``barrier``.
        settings = Settings(eager=frozenset({METADATA_GROUP}))
        self.multi = Multi(me, boot, self.log, random.Random(), settings)  # noqa: S311  # time-outs only
        self._synced = 0
        self._healthy = True
        self._token = 0
        self._highest = 0
        self._early: dict[int, list[tuple[int, Message]]] = {}
        """What peers said of groups that this node is about to learn of."""

    def _synced_in_thread(self, token: int) -> None:
        self._loop.call_soon_threadsafe(self._on_synced, token)

    def _failed_in_thread(self, error: Exception) -> None:
        self._loop.call_soon_threadsafe(self._on_failure, error)

    def _on_synced(self, token: int) -> None:
        try:
            self.multi.persisted(token, self._loop.time())
        except Exception as error:
            self._on_failure(error)  # the loop would only log it, and nothing would be committed any more
        self._wake()

    def propose(self, group: int, payload: bytes) -> tuple[int, int] | None:
        """(index, term) of the new entry, or None when this node does not lead ``group``."""
        return self.multi.propose(group, payload)

    def snapshot(self, group: int, index: int, state: bytes, keep_from: int) -> None:
        """Keep ``state``, applied up to ``index``, and drop the entries below ``keep_from``."""
        snapshot = self.multi.make_snapshot(group, index, state, keep_from)
        self.log.append([snapshot], self._token)
        self.multi.compact(snapshot)
        pinned = self.multi.pinned(group)
        self.log.release(group, keep_from if pinned is None else min(keep_from, pinned))

    def add_group(self, image: GroupImage, founders: Membership | None = None) -> Snapshot | None:
        """Take up a group that was found on disk, or a new one (with its founding members).

        Returns the snapshot that its state machine starts from; None: from nothing (the one on disk, if any,
        rests on entries that were damaged).
        """
        snapshot = self.multi.add_group(image, founders)
        self._highest = max(self._highest, image.group)
        for peer, message in self._early.pop(image.group, ()):
            self.multi.receive(peer, message, self._loop.time())
        return snapshot

    def receive(self, peer: int, frame: bytes) -> None:
        """A consensus message from a peer. Raises ``ValueError`` when it is malformed."""
        message = decode(frame)
        group = getattr(message, "group", 0)
        if group > self._highest:
            if len(self._early) < MAX_EARLY:
                self._early.setdefault(group, []).append((peer, message))
            return
        self.multi.receive(peer, message, self._loop.time())

    def tick(self, now: float) -> None:
        """Time passes: elections, heartbeats, and the gate that a stalled disk closes."""
        stalled = self.log.stalled_for(now)
        if (stalled < STALL) is not self._healthy:
            self._healthy = not self._healthy
            _log.warning(
                "disk is %s: oldest sync under way for %.1f s", ("slow", "well")[self._healthy], stalled
            )
            self.multi.disk_healthy(self._healthy)
        self.multi.tick(now)

    def turn(self, peers: Peers, machines: StateMachines) -> bool:
        """Do what consensus asks for now; whether there was anything."""
        ready = self.multi.take_ready()
        if ready is None:
            return False
        if ready.records:
            self._token = ready.token
            self.log.append(ready.records, ready.token)
        for group in ready.repaired:
            self.log.mark_repaired(group)
        for peer, message in ready.messages:
            peers.send(peer, RAFT, encode(message))
        for change in ready.role_changes:
            machines.on_role(change)
        for snapshot in ready.installed:
            machines.on_installed(snapshot)
        for group, low, high in ready.committed:
            while low <= high:
                entries = self.log.read(group, low, high, APPLY_BYTES)
                machines.on_entries(group, entries)
                low = entries[-1].index + 1
        return True
