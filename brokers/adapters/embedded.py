"""The embedded cluster, steered through the control API that each of its nodes serves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

from brokers.adapters.base import (
    Change,
    Cluster,
    ClusterError,
    ClusterUnavailable,
    Failover,
    Fault,
    Node,
    NotFound,
    NotNow,
    OutcomeUnknown,
    Queue,
    Refused,
    Replica,
    Transfer,
)
from brokers.adapters.content import Content
from brokers.adapters.dead_letters import DeadLetters
from brokers.adapters.embedded_content import EmbeddedContent
from brokers.adapters.embedded_dead_letters import EmbeddedDeadLetters
from brokers.adapters.embedded_retained import EmbeddedRetained
from brokers.adapters.processes import signal_node
from brokers.adapters.retained import Retained
from brokers.engine.config import ClusterConfig, ConfigError
from brokers.engine.control.client import ControlClient, SyncControlClient
from brokers.engine.control.protocol import (
    BUSY,
    CONFLICT,
    NO_QUORUM,
    NOT_FOUND,
    OUTCOME_UNKNOWN,
    UNAVAILABLE,
    ControlError,
)

TRANSFER_TIMEOUT: Final = 10.0
"""Seconds a transfer of leadership may take before its outcome counts as unknown."""
_RETRY_FIRST: Final = 0.25
_RETRY_MOST: Final = 5.0

_ERRORS: Final[Mapping[str, type[ClusterError]]] = {
    NOT_FOUND: NotFound,
    UNAVAILABLE: ClusterUnavailable,
    OUTCOME_UNKNOWN: OutcomeUnknown,
    CONFLICT: Refused,
    NO_QUORUM: NotNow,
    BUSY: NotNow,
}


class EmbeddedCluster(Cluster):
    """The cluster whose configuration and secret lie under ``home``.

    The files are read for each call and each watch: the console may start before the cluster has been made.
    """

    def __init__(self, home: Path) -> None:
        self._home = home

    def snapshot(self) -> Change:
        return parse_change(self._call("snapshot", {}), full=True)

    def queue(self, vhost: str, name: str) -> Queue:
        return parse_queue(self._call("queue", {"vhost": vhost, "name": name}))

    def transfer_leadership(self, vhost: str, name: str, target: str | None) -> Transfer:
        params = {"vhost": vhost, "name": name, "target": target}
        result = self._call("transfer_leadership", params, timeout=TRANSFER_TIMEOUT)
        return Transfer(result["from"], result["to"], result["unavailable_ms"], result["term"])

    async def watch(self) -> AsyncGenerator[Change, None]:
        pause = _RETRY_FIRST
        while True:
            try:
                async with (
                    ControlClient.from_config(self._config()) as client,
                    aclosing(client.watch()) as changes,
                ):
                    async for change in changes:
                        pause = _RETRY_FIRST
                        yield parse_change(change, full=change.get("full", False))
                why = "the nodes ended the connection"
            except ClusterUnavailable as error:
                why = str(error)
            except (ControlError, OSError) as error:
                why = error.text if isinstance(error, ControlError) else str(error)
            yield Change(lost=why)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter, not a secret
            pause = min(2 * pause, _RETRY_MOST)

    def _config(self) -> ClusterConfig:
        try:
            return ClusterConfig.load(self._home)
        except ConfigError as error:
            raise ClusterUnavailable(f"{error}. Start it with: python manage.py cluster start") from error

    def content(self) -> Content:
        return EmbeddedContent(self._call)

    def dead_letters(self) -> DeadLetters:
        return EmbeddedDeadLetters(self._call)

    def retained(self) -> Retained:
        return EmbeddedRetained(self._call)

    def signal(self, node: Node, fault: Fault) -> None:
        signal_node(self._home, node, fault)

    def _call(
        self, method: str, params: dict[str, Any], timeout: float = 5.0, node: str | None = None
    ) -> Any:
        try:
            client = SyncControlClient.from_config(self._config())
            return client.call(method, params, timeout=timeout, node=node)
        except ConfigError as error:
            raise ClusterUnavailable(str(error)) from error
        except ControlError as error:
            raise _ERRORS.get(error.code, ClusterError)(error.text) from error


def parse_change(data: Mapping[str, Any], *, full: bool) -> Change:
    """A snapshot or an item of ``watch`` (see ``brokers.engine.control``) as a ``Change``."""
    if "disconnected" in data:
        return Change(lost=str(data["disconnected"]))
    removed: Sequence[Sequence[str]] = data.get("removed", {}).get("queues", ())
    return Change(
        full=full,
        nodes=tuple(parse_node(row) for row in data.get("nodes", ())),
        queues=tuple(parse_queue(row) for row in data.get("queues", ())),
        removed_queues=tuple((vhost, name) for vhost, name in removed),
        cluster_name=data["cluster"]["name"] if "cluster" in data else None,
        answered_by=data.get("answered_by"),
    )


def parse_node(row: Mapping[str, Any]) -> Node:
    """One row of ``nodes``."""
    return Node(
        id=row["id"],
        name=row["name"],
        amqp=row["amqp"],
        state=row["state"],
        pid=row.get("pid"),
        uptime=row.get("uptime"),
        leaders=row.get("leaders"),
        replicas=row.get("replicas"),
        connections=row.get("connections"),
        memory=row.get("memory"),
        disk_used=row.get("disk_used"),
        disk_free=row.get("disk_free"),
        fsync_ms=row.get("fsync_ms"),
        loop_delay_ms=row.get("loop_delay_ms"),
        version=row.get("version"),
    )


def parse_queue(row: Mapping[str, Any]) -> Queue:
    """One row of ``queues``."""
    rates = row["rates"]
    failover = row["last_failover"]
    return Queue(
        vhost=row["vhost"],
        name=row["name"],
        type=row["type"],
        durable=row["durable"],
        exclusive=row["exclusive"],
        auto_delete=row["auto_delete"],
        arguments=row["arguments"],
        group=row["group"],
        leader=row["leader"],
        term=row["term"],
        state=row["state"],
        replicas=tuple(Replica(r["node"], r["role"], r["lag"]) for r in row["replicas"]),
        messages=row["messages"],
        ready=row["ready"],
        unacked=row["unacked"],
        bytes=row["bytes"],
        consumers=row["consumers"],
        publish_rate=rates["publish"],
        deliver_rate=rates["deliver"],
        ack_rate=rates["ack"],
        confirm_rate=rates["confirm"],
        oldest_age=row["oldest_age"],
        last_failover=None if failover is None else parse_failover(failover),
    )


def parse_failover(row: Mapping[str, Any]) -> Failover:
    """A queue's ``last_failover``."""
    return Failover(row["at"], row["from"], row["to"], row["unavailable_ms"], row["reason"])
