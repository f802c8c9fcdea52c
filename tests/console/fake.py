"""A cluster in memory, behind the console's port: what tests of pages and operations run against."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

from brokers.adapters.base import (
    Change,
    Cluster,
    ClusterUnavailable,
    Failover,
    Node,
    NotFound,
    Queue,
    QueueKey,
    Replica,
    Transfer,
)


def node(number: int, **figures: object) -> Node:
    """A running node with plausible figures."""
    base = Node(
        id=number,
        name=f"node{number}",
        amqp=f"127.0.0.1:{5671 + number}",
        state="running",
        pid=1000 + number,
        uptime=93_784.0,
        leaders=4,
        replicas=12,
        connections=3,
        memory=87_000_000,
        disk_used=1_200_000_000,
        disk_free=34_000_000_000,
        fsync_ms=0.31,
        loop_delay_ms=0.8,
        version="0.1.0",
    )
    return replace(base, **figures)  # type: ignore[arg-type]  # the caller names Node's fields


def queue(name: str, vhost: str = "/", leader: str | None = "node1", **figures: object) -> Queue:
    """A replicated queue led by ``leader``, its followers up to date."""
    names = ("node1", "node2", "node3")
    replicas = tuple(Replica(n, "leader" if n == leader else "follower", 0) for n in names)
    base = Queue(vhost, name, leader=leader, term=3, group=7, replicas=replicas)
    return replace(base, **figures)  # type: ignore[arg-type]  # the caller names Queue's fields


class FakeCluster(Cluster):
    """Three nodes and the queues it is given. ``put`` and ``drop`` change it, watchers are told."""

    def __init__(self, *queues: Queue) -> None:
        self.name = "test"
        self.nodes = {n: node(n) for n in (1, 2, 3)}
        self.queues: dict[QueueKey, Queue] = {queue.key: queue for queue in queues}
        self.lost: str | None = None
        self.transfers: list[tuple[str, str, str | None]] = []
        self.fails: Exception | None = None
        self._lock = threading.Lock()
        self._watchers: list[tuple[asyncio.AbstractEventLoop, asyncio.Queue[Change]]] = []

    # --- the port

    def snapshot(self) -> Change:
        self._answer()
        return Change(
            full=True,
            nodes=tuple(self.nodes.values()),
            queues=tuple(self.queues.values()),
            cluster_name=self.name,
            answered_by="node1",
        )

    def queue(self, vhost: str, name: str) -> Queue:
        self._answer()
        try:
            return self.queues[vhost, name]
        except KeyError:
            raise NotFound(f"there is no queue {name!r} in virtual host {vhost!r}") from None

    def transfer_leadership(self, vhost: str, name: str, target: str | None) -> Transfer:
        before = self.queue(vhost, name)
        self.transfers.append((vhost, name, target))
        if self.fails is not None:
            raise self.fails
        to = target or "node2"
        replicas = tuple(replace(r, role="leader" if r.node == to else "follower") for r in before.replicas)
        happened = Failover(time.time(), before.leader, to, 12.4, "transfer")
        self.put(replace(before, leader=to, term=before.term + 1, replicas=replicas, last_failover=happened))
        return Transfer(before.leader, to, 12.4, before.term + 1)

    async def watch(self) -> AsyncGenerator[Change, None]:
        news: asyncio.Queue[Change] = asyncio.Queue()
        entry = (asyncio.get_running_loop(), news)
        with self._lock:
            self._watchers.append(entry)
        try:
            yield Change(lost=self.lost) if self.lost else self.snapshot()
            while True:
                yield await news.get()
        finally:
            with self._lock:
                self._watchers.remove(entry)

    # --- for tests

    def put(self, *things: Queue | Node) -> None:
        """Add or replace queues and nodes."""
        queues = [thing for thing in things if isinstance(thing, Queue)]
        nodes = [thing for thing in things if isinstance(thing, Node)]
        self.queues.update({queue.key: queue for queue in queues})
        self.nodes.update({node.id: node for node in nodes})
        self._tell(Change(nodes=nodes, queues=queues))

    def drop(self, key: QueueKey) -> None:
        """Remove a queue."""
        del self.queues[key]
        self._tell(Change(removed_queues=(key,)))

    def lose(self, why: str | None) -> None:
        """Stop answering (or, with None, answer again)."""
        self.lost = why
        self._tell(Change(lost=why) if why else self.snapshot())

    def _answer(self) -> None:
        if self.lost is not None:
            raise ClusterUnavailable(self.lost)

    def _tell(self, change: Change) -> None:
        with self._lock:
            for loop, news in self._watchers:
                loop.call_soon_threadsafe(news.put_nowait, change)
