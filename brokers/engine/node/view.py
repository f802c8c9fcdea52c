"""The whole cluster as this node sees it: its own rows and those its peers tell, with versions.

Nodes tell each other only rows that changed; watchers get only rows that changed since they last looked.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from brokers.engine.core.model.topology import DELAY_QUEUE, Binding, Exchange, QueueInfo
from brokers.engine.node.metadata_service import METADATA_GROUP
from brokers.engine.node.peers import JSON
from brokers.engine.node.statistics import Row, Statistics, static_row, unled_row

if TYPE_CHECKING:
    from brokers.engine.node.node import Node

INTERVAL = 0.5
"""Seconds between two looks at what changed."""


class ClusterView:
    """Rows by key, each with the version at which it last changed."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._statistics = Statistics(node)
        self.version = 1
        self._nodes: dict[int, tuple[int, Row]] = {}
        self._queues: dict[int, tuple[int, Row]] = {}
        self._removed: list[tuple[int, list[str]]] = []
        self._reported: dict[int, Row] = {}
        """The last row that any leader told, by group."""
        self._node_reports: dict[int, Row] = {}
        self._connections: dict[int, list[Row]] = {}
        self._told: dict[int, Row] = {}
        self._told_peers: set[int] = set()
        self._metadata: Row = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Look, tell and compare until cancelled."""
        while True:
            self.refresh()
            await asyncio.sleep(INTERVAL)

    def refresh(self) -> None:
        """Take stock of this node, tell the peers, and note what changed."""
        mine = {row["group"]: row for row in self._statistics.queue_rows()}
        node_row = self._node_reports[self._node.me.id] = self._statistics.node_row()
        connections = self._connections[self._node.me.id] = self._statistics.connection_rows()
        self._tell(mine, node_row, connections)
        self._reported.update(mine)
        self._compare()

    def _tell(self, mine: dict[int, Row], node_row: Row, connections: list[Row]) -> None:
        peers = self._node.peers
        changed = [row for group, row in mine.items() if self._told.get(group) != row]
        self._told = mine
        for peer in peers.links:
            rows = changed if peer in self._told_peers else list(mine.values())
            report = {"node": node_row, "queues": rows, "connections": connections}
            peers.send(peer, JSON, [json.dumps(report, separators=(",", ":")).encode()])
        self._told_peers = set(peers.links)
        peers.flush()

    def on_report(self, node: int, report: dict[str, Any]) -> None:
        """A peer's rows, or what it measured of a hand-over to this node."""
        if "failover" in report:
            host = self._node.queues.hosts.get(report["failover"])
            if host is not None and host.failover is not None:
                host.failover.unavailable_ms = report["unavailable_ms"]
                host.failover.reason = "transfer"
            return
        self._node_reports[node] = report["node"]
        self._node.pressure.peer_alarms(node, frozenset(report["node"]["alarms"]))
        self._connections[node] = report["connections"]
        self._node.broker.elsewhere[node] = Counter(row["vhost"] for row in report["connections"])
        for row in report["queues"]:
            known = self._reported.get(row["group"])
            if known is None or known["term"] <= row["term"]:
                self._reported[row["group"]] = row

    # -- what changed ---------------------------------------------------------------------------------

    def _compare(self) -> None:
        self.version += 1
        state = self._node.service.metadata.state
        live = set(self._node.live_nodes())
        news = self._put_all(self._nodes, {n: self._node_row(n, n in live) for n in self._known_nodes()})
        rows = {
            group: self._queue_row(info, live)
            for group, info in state.by_group.items()
            if info.type != DELAY_QUEUE
        }
        for group in [group for group in self._queues if group not in rows]:
            _, row = self._queues.pop(group)
            self._reported.pop(group, None)
            self._removed.append((self.version, [row["vhost"], row["name"]]))
            news = True
        del self._removed[:-10_000]
        news = self._put_all(self._queues, rows) or news
        metadata = self._metadata_row(live)
        if metadata != self._metadata:
            self._metadata = metadata
            news = True
        if news:
            self._changed.set()
            self._changed = asyncio.Event()

    def _put_all(self, table: dict[int, tuple[int, Row]], rows: dict[int, Row]) -> bool:
        news = False
        for key, row in rows.items():
            known = table.get(key)
            if known is None or known[1] != row:
                table[key] = (self.version, row)
                news = True
        return news

    def _known_nodes(self) -> list[int]:
        return sorted({node.id for node in self._node.config.nodes} | set(self._node_reports))

    def _node_row(self, node: int, live: bool) -> Row:
        report = self._node_reports.get(node)
        if live and report is not None:
            return report
        config = next((c for c in self._node.config.nodes if c.id == node), None)
        row: Row = dict.fromkeys(self._node_reports[self._node.me.id])
        row.update(
            id=node,
            name=config.name if config else self._node.node_name(node),
            amqp=f"{config.host}:{config.amqp}" if config else "",
            state="starting" if live else "down",
        )
        return row

    def _queue_row(self, info: QueueInfo, live: set[int]) -> Row:
        row = self._reported.get(info.group)
        names = {self._node.node_name(node) for node in live}
        if row is not None and row["leader"] in names and self._still_leads(info.group, row):
            return row
        if info.home is not None:
            members: tuple[int, ...] = (info.home,)
        else:
            members = info.replicas
        up = [node for node in members if node in live]
        state = "electing" if len(up) > len(members) // 2 else "no-quorum"
        replicas = [
            {
                "node": self._node.node_name(node),
                "role": "follower" if node in live else "down",
                "lag": None,
            }
            for node in sorted(members)
        ]
        return unled_row(info, state, replicas, row and {**row, **static_row(info)})

    def _still_leads(self, group: int, row: Row) -> bool:
        if row["leader"] == self._node.me.name:
            host = self._node.queues.hosts.get(group)
            return host is not None and host.leader is not None
        known = self._node.queues.leaders.get(group)
        return known is None or known[1] <= row["term"]

    def _metadata_row(self, live: set[int]) -> Row:
        status = self._node.replication.multi.status(METADATA_GROUP)
        leader = status.leader if status.leader in live else 0
        enough = len([n for n in status.membership.voters if n in live]) >= status.membership.quorum
        return {
            "leader": self._node.node_name(leader) if leader else None,
            "term": status.term,
            "voters": [self._node.node_name(n) for n in status.membership.voters],
            "state": "running" if leader and enough else "electing" if enough else "no-quorum",
        }

    # -- for the control API --------------------------------------------------------------------------

    def snapshot(self) -> Row:
        """Everything."""
        return {
            "version": 1,
            "cluster": {"id": self._node.config.cluster_id, "name": self._node.config.name},
            "answered_by": self._node.me.name,
            "metadata": self._metadata,
            "nodes": [row for _, row in self._nodes.values()],
            "queues": [row for _, row in self._queues.values()],
            "connections": [row for rows in self._connections.values() for row in rows],
            "exchanges": self._exchange_rows(),
        }

    def _exchange_rows(self) -> list[Row]:
        return [
            _exchange_row(exchange, list(vhost.bindings_from(exchange.name)))
            for vhost in self._node.service.metadata.state.vhosts.values()
            for exchange in vhost.exchanges.values()
        ]

    def queue(self, vhost: str, name: str) -> Row | None:
        """One queue's row, made now if this node leads it; None when there is none."""
        found = self._node.service.metadata.state.vhosts.get(vhost)
        info = found.queues.get(name) if found is not None else None
        if info is None:
            return None
        known = self._queues.get(info.group)
        return known[1] if known is not None else self._queue_row(info, set(self._node.live_nodes()))

    async def watch(self) -> AsyncIterator[Row]:
        """See ``control.server.ControlApi.watch``."""
        seen = self.version
        yield {**self.snapshot(), "full": True}
        while True:
            changed = self._changed
            if self.version == seen:
                await changed.wait()
            before, seen = seen, self.version
            change: Row = {
                "nodes": [row for version, row in self._nodes.values() if version > before],
                "queues": [row for version, row in self._queues.values() if version > before],
                "metadata": self._metadata,
            }
            removed = [key for version, key in self._removed if version > before]
            if removed:
                change["removed"] = {"queues": removed}
            if change["nodes"] or change["queues"] or removed:
                yield change
            else:
                await changed.wait()


def _exchange_row(exchange: Exchange, bindings: list[Binding]) -> dict[str, Any]:
    return {
        "vhost": exchange.vhost,
        "name": exchange.name,
        "type": exchange.type,
        "durable": exchange.durable,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "bindings": [
            {"kind": b.kind.value, "destination": b.destination, "routing_key": b.routing_key}
            for b in bindings
        ],
    }
