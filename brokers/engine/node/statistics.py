"""What a node tells of itself and of the queues it leads: rows of the control API, made twice a second."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from brokers.engine import __version__
from brokers.engine.core.model.arguments import arguments_to_json
from brokers.engine.core.model.topology import DELAY_QUEUE, QueueInfo
from brokers.engine.node.hosts import Host, ReplicaHost
from brokers.engine.node.pressure import resident_bytes

if TYPE_CHECKING:
    from brokers.engine.node.node import Node

Row = dict[str, Any]

SMOOTHING = 0.4
"""Weight of the newest sample in a rate."""
QUIET = 0.05
"""Messages per second below which a fading rate is called 0."""


class QueueRates:
    """Messages per second of one queue, smoothed over about two seconds."""

    __slots__ = ("_counts", "_rates")

    def __init__(self, counts: tuple[int, ...]) -> None:
        self._counts = counts
        self._rates = [0.0] * len(counts)

    def sample(self, counts: tuple[int, ...], seconds: float) -> list[float]:
        """Rates now that the counters stand at ``counts``."""
        for i, (count, before) in enumerate(zip(counts, self._counts, strict=True)):
            rate = self._rates[i] + SMOOTHING * (max(0, count - before) / seconds - self._rates[i])
            self._rates[i] = rate if rate > QUIET else 0.0
        self._counts = counts
        return [round(rate, 1) for rate in self._rates]


class Statistics:
    """Makes the rows of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._rates: dict[int, QueueRates] = {}
        self._ages: dict[int, tuple[int, float]] = {}
        self._last = node.now()

    def queue_rows(self) -> list[Row]:
        """Rows of the queues that this node leads."""
        now = self._node.now()
        seconds = max(0.001, now - self._last)
        self._last = now
        rows = []
        by_group = self._node.service.metadata.state.by_group
        led = {}
        for host in self._node.queues.led():
            info = by_group.get(host.group)
            if info is not None and info.type != DELAY_QUEUE:
                rows.append(self._queue_row(info, host, seconds))
                led[host.group] = self._rates[host.group]
        self._rates = led
        return rows

    def _queue_row(self, info: QueueInfo, host: Host, seconds: float) -> Row:
        leader = host.leader
        assert leader is not None  # noqa: S101  # it is among the led
        state = host.state
        counts = (state.published, leader.delivered, leader.acked)
        rates = self._rates.setdefault(host.group, QueueRates(counts)).sample(counts, seconds)
        failover = host.failover
        ready, unacked = leader.dispatcher.ready, leader.dispatcher.unsettled
        return {
            **static_row(info),
            "leader": self._node.me.name,
            "term": host.term,
            "state": "running",
            "replicas": self._replica_rows(host),
            # Acknowledged ones whose settlement is being committed are gone for everyone who looks; those that
            # wait for their retry, or for their dead letters to be safe, are still there.
            "messages": ready + unacked + leader.dispatcher.waiting,
            "ready": ready,
            "unacked": unacked,
            "bytes": state.bytes,
            "consumers": leader.consumers,
            "rates": {"publish": rates[0], "deliver": rates[1], "ack": rates[2], "confirm": rates[0]},
            "oldest_age": self._oldest_age(host),
            "last_failover": None
            if failover is None
            else {
                "at": failover.at,
                "from": failover.origin,
                "to": failover.target,
                "unavailable_ms": failover.unavailable_ms,
                "reason": failover.reason,
            },
        }

    def _replica_rows(self, host: Host) -> list[Row]:
        name = self._node.node_name
        rows: list[Row] = [{"node": self._node.me.name, "role": "leader", "lag": 0}]
        if isinstance(host, ReplicaHost):
            status = self._node.replication.multi.status(host.group)
            for follower in status.followers:
                role = "follower" if follower.node in status.membership.voters else "learner"
                rows.append(
                    {
                        "node": name(follower.node),
                        "role": role if follower.reachable else "down",
                        "lag": follower.lag,
                    }
                )
        return sorted(rows, key=lambda row: str(row["node"]))

    def _oldest_age(self, host: Host) -> float | None:
        state = host.state
        if not state.messages:
            self._ages.pop(host.group, None)
            return None
        entry = state.index.find(state.settled.floor).entry
        known = self._ages.get(host.group)
        if known is None or known[0] != entry:
            known = self._ages[host.group] = (entry, host.read(entry).stamp / 1000)
        return round(max(0.0, time.time() - known[1]), 1)

    def node_row(self) -> Row:
        """The row of this node."""
        node = self._node
        log = node.replication.log
        stats = log.stats()
        hosts = node.queues.hosts.values()
        return {
            "id": node.me.id,
            "name": node.me.name,
            "amqp": f"{node.me.host}:{node.me.amqp}",
            "state": "draining" if node.draining else "running" if node.ready.is_set() else "starting",
            "pid": os.getpid(),
            "uptime": round(node.now() - node.started),
            "leaders": sum(1 for host in hosts if host.leader is not None),
            "replicas": len(hosts),
            "connections": len(node.sockets),
            "memory": resident_bytes(),
            "disk_used": stats.bytes,
            "disk_free": log.free_bytes(),
            "fsync_ms": round(stats.average_sync * 1000, 2),
            "loop_delay_ms": round(node.pressure.delay * 1000, 2),
            "version": __version__,
            "alarms": sorted(node.pressure.alarms),
        }

    def connection_rows(self) -> list[Row]:
        """The clients of this node."""
        rows = []
        for socket in self._node.sockets:
            connection = socket.connection
            if connection is None or not connection.user:
                continue
            client = connection.client_properties
            rows.append(
                {
                    "id": socket.id,
                    "node": self._node.me.name,
                    "user": connection.user,
                    "vhost": connection.vhost,
                    "peer": connection.peer,
                    "client": f"{client.get('product', '?')} {client.get('version', '')}".strip(),
                    "channels": len(connection.channels),
                    "since": socket.since,
                }
            )
        return rows


def static_row(info: QueueInfo) -> Row:
    """What does not change about a queue."""
    return {
        "vhost": info.vhost,
        "name": info.name,
        "group": info.group,
        "durable": info.durable,
        "exclusive": info.exclusive is not None,
        "auto_delete": info.auto_delete,
        "type": "quorum" if info.replicas else "classic",
        "arguments": arguments_to_json(info.arguments),
    }


def unled_row(info: QueueInfo, state: str, replicas: list[Row], last: Row | None) -> Row:
    """The row of a queue that nobody leads now; what was last known of it stays."""
    row = {
        **static_row(info),
        "messages": 0,
        "ready": 0,
        "unacked": 0,
        "bytes": 0,
        "last_failover": None,
        "term": 0,
        **(last or {}),
    }
    row.update(
        leader=None,
        state=state,
        replicas=replicas,
        consumers=0,
        rates={"publish": 0.0, "deliver": 0.0, "ack": 0.0, "confirm": 0.0},
        oldest_age=None,
    )
    return row
