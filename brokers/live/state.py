"""The latest known state of one cluster. Pages at load and live updates are rendered from the same one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Final, NamedTuple, TypeVar, cast

from brokers.adapters.base import Change, Node, Queue, QueueKey
from brokers.live.history import History, Sample

T = TypeVar("T")

PATIENCE: Final = 2.0
"""Seconds without an answer before a cluster counts as unreachable: a change of node takes less."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new since the last look, for deciding which views to render again."""

    everything: bool = False
    nodes: frozenset[str] = frozenset()
    queues: frozenset[QueueKey] = frozenset()
    tick: bool = False
    """A sample was taken: charts moved on."""
    feed: bool = False
    """Operations or events were written to the database."""

    def __or__(self, other: Delta) -> Delta:
        return Delta(
            self.everything or other.everything,
            self.nodes | other.nodes,
            self.queues | other.queues,
            self.tick or other.tick,
            self.feed or other.feed,
        )

    def __bool__(self) -> bool:
        return self.everything or self.tick or self.feed or bool(self.nodes) or bool(self.queues)


def merge(deltas: Iterable[Delta]) -> Delta:
    """All of ``deltas`` in one."""
    return reduce(Delta.__or__, deltas, Delta())


class Totals(NamedTuple):
    """Sums over all queues."""

    queues: int = 0
    messages: int = 0
    ready: int = 0
    unacked: int = 0
    consumers: int = 0
    publish_rate: float = 0.0
    deliver_rate: float = 0.0
    ack_rate: float = 0.0
    confirm_rate: float = 0.0


class State:
    """Nodes and queues of one cluster as last heard, and the recent past of their numbers.

    Written by the watcher's thread alone. Readers in other threads get whole records (which never change,
    they are replaced) and tuples made at once; two reads may fall on both sides of a change.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.nodes: dict[str, Node] = {}
        self.queues: dict[QueueKey, Queue] = {}
        self.cluster_name = ""
        self.answered_by: str | None = None
        self.version = 0
        """Rises with each change; what is derived from the state is kept by it."""
        self.sampled = 0.0
        """When the last sample was taken, on the histories' time line: where charts end. They are the largest
        parts of a page; if they ended at this very moment, each rendering of them would be a new one."""
        self.totals_history = History()
        self.histories: dict[QueueKey, History] = {}
        self.known = threading.Event()
        """Set once there is something to show: a first full state, or the reason why there is none."""
        self._clock = clock
        self._epoch = clock()
        self._lost: str | None = "it has not been asked yet"
        self._lost_since = time.time()
        self._lost_at = clock()
        self._unsampled: set[QueueKey] = set()
        self._derived: dict[object, tuple[int, object]] = {}

    # --- written by the watcher

    def apply(self, change: Change) -> Delta:
        """Take ``change`` in; what of the pages it touches."""
        self.version += 1
        if change.lost is not None:
            if self._lost is None:
                self._lost_since, self._lost_at = time.time(), self._clock()
            self._lost = change.lost
            self.known.set()
            return Delta(everything=True)
        regained, self._lost = self._lost is not None, None
        self.answered_by = change.answered_by or self.answered_by
        self.cluster_name = change.cluster_name or self.cluster_name
        if change.full:
            return self._replace(change)
        for node in change.nodes:
            self.nodes[node.name] = node
        for queue in change.queues:
            self.queues[queue.key] = queue
        for key in change.removed_queues:
            self.queues.pop(key, None)
            self.histories.pop(key, None)
        touched = frozenset(queue.key for queue in change.queues) | frozenset(change.removed_queues)
        self._unsampled |= touched
        return Delta(everything=regained, nodes=frozenset(node.name for node in change.nodes), queues=touched)

    def _replace(self, change: Change) -> Delta:
        # New dictionaries, put in place at once: a reader never sees a half-filled one.
        self.nodes = {node.name: node for node in sorted(change.nodes, key=lambda node: node.id)}
        self.queues = {queue.key: queue for queue in change.queues}
        self.histories = {key: old for key, old in self.histories.items() if key in self.queues}
        self._unsampled = set(self.queues)
        self.known.set()
        return Delta(everything=True)

    def sample(self) -> Delta:
        """Add a point to the history of everything that changed since the last time."""
        at = self.sampled = self._clock() - self._epoch
        for key in self._unsampled:
            queue = self.queues.get(key)
            if queue is None:
                continue
            history = self.histories.get(key)
            if history is None:
                history = self.histories[key] = History()
            history.add(Sample(at, queue.ready, queue.unacked, queue.publish_rate, queue.deliver_rate))
        self._unsampled.clear()
        totals = self.totals
        self.totals_history.add(
            Sample(at, totals.ready, totals.unacked, totals.publish_rate, totals.deliver_rate)
        )
        return Delta(tick=True)

    # --- read by everyone

    @property
    def lost(self) -> str | None:
        """Why the cluster does not answer, None while it does (or only just stopped)."""
        if self._lost is None:
            return None
        just_now = self._clock() - self._lost_at < PATIENCE
        return None if just_now and self.nodes else self._lost

    @property
    def lost_since(self) -> float:
        """Since when, in seconds since the epoch; means something while ``lost``."""
        return self._lost_since

    @property
    def totals(self) -> Totals:
        """Sums over all queues."""
        return self.derive("totals", self._sum)

    def _sum(self) -> Totals:
        queues = tuple(self.queues.values())
        return Totals(
            len(queues),
            sum(queue.messages for queue in queues),
            sum(queue.ready for queue in queues),
            sum(queue.unacked for queue in queues),
            sum(queue.consumers for queue in queues),
            sum(queue.publish_rate for queue in queues),
            sum(queue.deliver_rate for queue in queues),
            sum(queue.ack_rate for queue in queues),
            sum(queue.confirm_rate for queue in queues),
        )

    def derive(self, name: object, make: Callable[[], T]) -> T:
        """``make()``, once per version of the state: shared by all views that ask for ``name``."""
        version = self.version
        kept = self._derived.get(name)
        if kept is not None and kept[0] == version:
            return cast(T, kept[1])
        value = make()
        self._derived[name] = (version, value)
        return value

    @property
    def first_address(self) -> str:
        """Where a client connects: the first node that runs, else the first, else nothing."""
        nodes = sorted(self.nodes.copy().values(), key=lambda node: not node.running)
        return nodes[0].amqp if nodes else ""

    def running_nodes(self) -> int:
        """How many nodes serve clients."""
        return sum(node.running for node in tuple(self.nodes.values()))

    @property
    def has_quorum(self) -> bool:
        """Whether the cluster answers and more than half of its nodes run."""
        nodes = len(self.nodes)
        return self.lost is None and nodes > 0 and 2 * self.running_nodes() > nodes
