"""What the asyncio and the blocking client share: which nodes to ask, in which order, when to stop."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from brokers.engine.config import ClusterConfig
from brokers.engine.control.protocol import OUTCOME_UNKNOWN, UNAVAILABLE, ControlError

CALL_TIMEOUT: Final = 5.0
"""Seconds a node has to answer a call."""
CONNECT_TIMEOUT: Final = 2.0
"""Seconds a node has to accept and authenticate a connection; a paused one accepts and says nothing."""
WATCH_TIMEOUT: Final = 6.0
"""Seconds of silence (servers send a sign of life every 2) after which a watched node counts as lost."""
REPEATABLE: Final = frozenset(
    {
        "ping",
        "snapshot",
        "queue",
        "definitions",
        "history",
        "message",
        "timeline",
        "replay_plan",
        "replay_status",
        "browse",
        "dead_letter_queues",
        "dead_letter_groups",
    }
)
"""Methods asked of another node when one is lost before it answered; others might be carried out twice."""


class Endpoint(NamedTuple):
    """Where a node's control API listens."""

    name: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.name} ({self.host}:{self.port})"


def endpoints_of(config: ClusterConfig) -> list[Endpoint]:
    """The control endpoints of a cluster's nodes, in their order."""
    return [Endpoint(node.name, node.host, node.control) for node in config.nodes]


class Lost(Exception):
    """A node could not be reached (nothing was sent) or was lost before it answered (``sent``)."""

    def __init__(self, endpoint: Endpoint, why: str, *, sent: bool) -> None:
        super().__init__(f"{endpoint}: {why}")
        self.sent = sent


class Nodes:
    """The order in which nodes are tried."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        if not endpoints:
            raise ValueError("a control client needs at least one endpoint")
        self._endpoints = list(endpoints)
        self._first = 0

    def candidates(self, node: str | None) -> list[Endpoint]:
        """The nodes to try in turn, or ``node`` alone. Raises ControlError when there is none so named."""
        if node is None:
            return self._endpoints[self._first :] + self._endpoints[: self._first]
        chosen = [endpoint for endpoint in self._endpoints if endpoint.name == node]
        if not chosen:
            known = ", ".join(endpoint.name for endpoint in self._endpoints)
            raise ControlError(UNAVAILABLE, f"there is no node {node!r}; there are {known}")
        return chosen

    def answered(self, endpoint: Endpoint) -> None:
        """Try this one first from now on."""
        self._first = self._endpoints.index(endpoint)


def give_up(method: str, lost: list[Lost]) -> ControlError:
    """The error of a call that got no answer anywhere."""
    reasons = "; ".join(str(loss) for loss in lost)
    if lost[-1].sent and method not in REPEATABLE:
        return ControlError(
            OUTCOME_UNKNOWN, f"{method!r} was sent but not answered, it may have been carried out: {reasons}"
        )
    return ControlError(UNAVAILABLE, f"no node answered {method!r}: {reasons}")


def may_go_on(method: str, loss: Lost) -> bool:
    """Whether another node may be asked after this loss."""
    return not loss.sent or method in REPEATABLE


def result_of(message: dict[str, Any]) -> Any:
    """The result a node answered with. Raises the ControlError it answered with."""
    if "error" in message:
        raise ControlError.from_wire(message["error"])
    return message.get("result")


def reason_of(error: BaseException) -> str:
    """What went wrong with a connection, for people."""
    if isinstance(error, ControlError):
        return error.text
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
