"""What is wrong with a cluster, from its state alone: for the overview, for events, for the health check."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from brokers.adapters.base import Node, Queue

Kind = Literal["unreachable", "node-down", "no-leader"]
Severity = Literal["warning", "critical"]

NAMED: Final = 20
"""More queues than this without a leader are one problem, not so many: the cause is then not the queues'."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, whom it concerns, and what it means or needs."""

    kind: Kind
    severity: Severity
    subject: str
    text: str
    queue: Queue | None = None


def find(nodes: Sequence[Node], queues: Iterable[Queue], lost: str | None) -> list[Problem]:
    """Problems, worst first. ``lost`` says why the cluster does not answer; then nothing else is known."""
    if lost is not None:
        text = f"The cluster does not answer: {lost}."
        return [Problem("unreachable", "critical", "cluster", text)]
    return [*_queues(queues), *_nodes(nodes)]


def queue_name(queue: Queue) -> str:
    """How a queue is called where several virtual hosts may be meant: the default one goes unsaid."""
    return queue.name if queue.vhost == "/" else f"{queue.vhost}: {queue.name}"


def _nodes(nodes: Sequence[Node]) -> list[Problem]:
    down = [node for node in nodes if node.state == "down"]
    left = len(nodes) - len(down)
    quorum = 2 * left > len(nodes)
    if not quorum:
        rest = f"{left} of {len(nodes)} nodes run: no majority, so nothing is confirmed or delivered"
    elif 2 * (left - 1) > len(nodes):
        rest = f"{left} of {len(nodes)} nodes run, and one more may fail without harm"
    else:
        rest = f"{left} of {len(nodes)} nodes run: one more failure would stop confirms and deliveries"
    severity: Severity = "warning" if quorum else "critical"
    return [Problem("node-down", severity, n.name, f"{n.name} ({n.amqp}) is down. {rest}.") for n in down]


def _queues(queues: Iterable[Queue]) -> list[Problem]:
    stuck = [queue for queue in queues if queue.state != "running" or queue.leader is None]
    if len(stuck) > NAMED:
        names = ", ".join(queue_name(queue) for queue in stuck[:3])
        text = f"{len(stuck):,} queues have no leader, among them {names}. They take and deliver nothing."
        return [Problem("no-leader", "critical", "queues", text)]
    problems = []
    for queue in stuck:
        if queue.state == "electing":
            text = f"{queue_name(queue)} is electing a leader."
            problems.append(Problem("no-leader", "warning", queue_name(queue), text, queue))
        else:
            text = (
                f"{queue_name(queue)} has no quorum: {queue.present} of {len(queue.replicas)} replicas run. "
                f"It takes and delivers nothing until a majority is back."
            )
            problems.append(Problem("no-leader", "critical", queue_name(queue), text, queue))
    return problems
