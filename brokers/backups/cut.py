"""The cut: which messages of which queues belong to a backup, while traffic goes on.

First every queue is opened: what is unsettled then will be saved. Then, when all are open, their leaders say how
far they go: what was published up to then is saved as well. So whatever was confirmed before the second
step began is in the backup unless it was settled before the first one ended; a message that a consumer moved
from one queue to another in between is in both rather than in neither.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from brokers.adapters.base import (
    Cluster,
    ClusterUnavailable,
    NotFound,
    OutcomeUnknown,
    Queue,
    QueueKey,
    Refused,
)
from brokers.adapters.content import Content, Opened, Runs
from brokers.backups.errors import BackupError

QUEUES_A_CALL: Final = 50
TRIES: Final = 40
PAUSE: Final = 0.25
"""Seconds between tries while a queue has no leader or a node went away."""


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CutQueue:
    """What is to be read of a queue; ``nodes`` have a replica, the best to read from first."""

    queue: Queue
    group: int
    runs: Runs
    nodes: Sequence[str]


def cut(cluster: Cluster, content: Content, wanted: Callable[[Queue], bool]) -> tuple[list[CutQueue], float]:
    """The cut of all replicated queues that are ``wanted``, and when it was made (seconds since the epoch).

    Raises BackupError when queues stay without a leader, ClusterUnavailable when no node answers.
    """
    queues = {q.key: q for q in cluster.snapshot().queues if q.replicated and wanted(q)}
    opened = _repeat(lambda left: _open(cluster, content, left), set(queues))
    made = time.time()
    ends = _repeat(lambda left: _ends(cluster, content, left), set(opened))
    found = []
    for key in sorted(opened):
        node, state = opened[key]
        group, end = ends[key]
        if group != state.group:
            continue  # deleted and declared anew while the cut was made: it is a queue of after the cut
        nodes = [node, *(r.node for r in queues[key].replicas if r.node != node and r.role != "down")]
        found.append(CutQueue(queues[key], group, _extend(state.runs, state.next, end), nodes))
    return found, made


def _repeat(
    step: Callable[[set[QueueKey]], dict[QueueKey, T | None]], left: set[QueueKey]
) -> dict[QueueKey, T]:
    """Ask until there is an answer for all; queues that are deleted meanwhile are left out."""
    found: dict[QueueKey, T | None] = {}
    for _ in range(TRIES):
        found.update(step(left))
        left -= found.keys()
        if not left:
            return {key: value for key, value in found.items() if value is not None}
        time.sleep(PAUSE)
    names = ", ".join(f"{name!r} in {vhost!r}" for vhost, name in sorted(left)[:5])
    raise BackupError(f"{len(left)} queues have no leader and can't be saved now: {names}")


def _open(
    cluster: Cluster, content: Content, left: set[QueueKey]
) -> dict[QueueKey, tuple[str, Opened] | None]:
    """Open queues on followers where there are any, spread over the nodes."""
    rows = {queue.key: queue for queue in cluster.snapshot().queues}
    found: dict[QueueKey, tuple[str, Opened] | None] = {key: None for key in left if key not in rows}
    by_node: dict[str, list[QueueKey]] = defaultdict(list)
    load: Counter[str] = Counter()
    for key in sorted(left & rows.keys()):
        running = [r for r in rows[key].replicas if r.role in ("leader", "follower")]
        if running:
            best = min(running, key=lambda r: (r.role == "leader", r.lag is None, load[r.node], r.node))
            load[best.node] += 1
            by_node[best.node].append(key)
    for node, keys in by_node.items():
        for part in _parts(keys):
            with suppress(
                Refused, NotFound, ClusterUnavailable, OutcomeUnknown
            ):  # asked again with a new view
                found |= {
                    key: (node, state) for key, state in zip(part, content.open(node, part), strict=True)
                }
    return found


def _ends(cluster: Cluster, content: Content, left: set[QueueKey]) -> dict[QueueKey, tuple[int, int] | None]:
    """(group, end) of queues, from their leaders."""
    rows = {queue.key: queue for queue in cluster.snapshot().queues}
    found: dict[QueueKey, tuple[int, int] | None] = {key: None for key in left if key not in rows}
    by_node: dict[str, list[QueueKey]] = defaultdict(list)
    for key in sorted(left & rows.keys()):
        if (leader := rows[key].leader) is not None:
            by_node[leader].append(key)
    for node, keys in by_node.items():
        for part in _parts(keys):
            with suppress(
                Refused, NotFound, ClusterUnavailable, OutcomeUnknown
            ):  # asked again with a new view
                ends = content.ends(node, part)
                found |= {key: ends[key] for key in part}
    return found


def _parts(keys: Sequence[QueueKey]) -> list[Sequence[QueueKey]]:
    return [keys[first : first + QUEUES_A_CALL] for first in range(0, len(keys), QUEUES_A_CALL)]


def _extend(runs: Runs, known: int, end: int) -> Runs:
    """``runs`` and what was published since, [known, end); what was unsettled beyond ``end`` came later."""
    kept = [(first, min(stop, end)) for first, stop in runs if first < end]
    if known < end:
        if kept and kept[-1][1] == known:
            kept[-1] = (kept[-1][0], end)
        else:
            kept.append((known, end))
    return kept
