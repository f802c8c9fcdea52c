"""What a leader knows of one follower, and how much it may have on the way to it (etcd's "progress")."""

from __future__ import annotations

from collections import deque
from enum import Enum

from brokers.engine.core.raft.install import Sender
from brokers.engine.core.raft.types import Settings


class Feed(Enum):
    """How a follower is being fed.

    PROBE: one message at a time, to find where the logs part. REPLICATE: pipelined. SNAPSHOT: it is so far
    behind that the log does not reach it any more.
    """

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """``match`` is durable there, ``next`` goes out next, ``commit`` is what it knows to be committed."""

    __slots__ = (
        "active",
        "commit",
        "feed",
        "inflight",
        "inflight_bytes",
        "match",
        "next",
        "node",
        "probing",
        "sender",
        "told",
    )

    def __init__(self, node: int, next_index: int, now: float) -> None:
        self.node = node
        self.match = 0
        self.next = next_index
        self.commit = 0
        self.told = -1
        self.feed = Feed.PROBE
        self.probing = False
        self.inflight: deque[tuple[int, int]] = deque()
        self.inflight_bytes = 0
        self.sender: Sender | None = None
        self.active = now

    def probe(self, next_index: int | None = None) -> None:
        """Go back to one message at a time, from ``next_index`` (default: behind what is known to match)."""
        self.feed = Feed.PROBE
        self.probing = False
        self.sender = None
        self.inflight.clear()
        self.inflight_bytes = 0
        self.next = max(self.match + 1, next_index if next_index is not None else 0)

    def reborn(self, next_index: int) -> None:
        """The follower's process is another one: what it acknowledged is checked anew."""
        self.match = 0
        self.commit = 0
        self.told = -1
        self.probe(next_index)

    def replicate(self) -> None:
        """The logs match up to ``match``: pipeline from there."""
        self.feed = Feed.REPLICATE
        self.probing = False
        self.sender = None
        self.inflight.clear()
        self.inflight_bytes = 0
        self.next = self.match + 1

    def acknowledged(self, index: int) -> None:
        """All up to ``index`` is durable there."""
        inflight = self.inflight
        while inflight and inflight[0][0] <= index:
            self.inflight_bytes -= inflight.popleft()[1]
        if index > self.match:
            self.match = index
        if self.next <= index:
            self.next = index + 1

    def sent(self, last: int, size: int) -> None:
        """An append that ends at ``last`` went out."""
        if self.feed is Feed.PROBE:
            self.probing = True
            return
        self.next = last + 1
        self.inflight.append((last, size))
        self.inflight_bytes += size

    def full(self, settings: Settings) -> bool:
        """True when nothing more may go out before something is acknowledged."""
        if self.feed is Feed.PROBE:
            return self.probing
        return (
            self.inflight_bytes >= settings.max_inflight_bytes
            or len(self.inflight) >= settings.max_inflight_messages
        )

    @property
    def waiting(self) -> bool:
        """True while an answer is due."""
        return self.probing or bool(self.inflight) or self.feed is Feed.SNAPSHOT
