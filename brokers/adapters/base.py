"""The port ``Cluster``: all that the console knows of a broker cluster, whichever kind it is.

Pages and operations are written against this module alone. An implementation turns what its broker says
into the records below and says by ``refusals`` what it can't do and why.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from brokers.adapters.content import Content
    from brokers.adapters.dead_letters import DeadLetters
    from brokers.adapters.retained import Retained

NodeState = Literal["running", "down", "starting", "draining"]
QueueState = Literal["running", "electing", "no-quorum"]
ReplicaRole = Literal["leader", "follower", "learner", "down"]
Capability = Literal["transfer_leadership"]
Fault = Literal["kill", "pause", "resume"]

QueueKey = tuple[str, str]
"""A queue's vhost and name."""


class ClusterError(Exception):
    """Something asked of a cluster did not happen; the text says what and why, for the operator to read."""


class ClusterUnavailable(ClusterError):
    """No node of the cluster answered."""


class NotFound(ClusterError):
    """The cluster answered, and has no such thing."""


class Refused(ClusterError):
    """The cluster answered, and would not do it."""


class NotNow(Refused):
    """The cluster answered, and cannot do it at the moment: there is no leader, or too much else to do."""


class OutcomeUnknown(ClusterError):
    """The cluster was asked, and was lost before it answered: it may have been done or not."""


@dataclass(frozen=True, slots=True)
class Node:
    """One broker process. What only the node itself can tell is None while it does not run."""

    id: int
    name: str
    amqp: str
    state: NodeState
    pid: int | None = None
    uptime: float | None = None
    """Seconds."""
    leaders: int | None = None
    replicas: int | None = None
    connections: int | None = None
    memory: int | None = None
    """Bytes, as are the disk figures."""
    disk_used: int | None = None
    disk_free: int | None = None
    fsync_ms: float | None = None
    loop_delay_ms: float | None = None
    version: str | None = None

    @property
    def running(self) -> bool:
        """Whether the node serves clients."""
        return self.state in ("running", "draining")


@dataclass(frozen=True, slots=True)
class Replica:
    """One copy of a queue; ``lag`` in log entries behind the leader, None when unknown."""

    node: str
    role: ReplicaRole
    lag: int | None = None


@dataclass(frozen=True, slots=True)
class Failover:
    """A change of leader that happened; ``at`` in seconds since the epoch."""

    at: float
    source: str | None
    target: str
    unavailable_ms: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue, what is in it and who has its copies. Rates are messages per second."""

    vhost: str
    name: str
    type: str = "quorum"
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    arguments: Mapping[str, object] = field(default_factory=dict)
    group: int | None = None
    leader: str | None = None
    term: int = 0
    state: QueueState = "running"
    replicas: tuple[Replica, ...] = ()
    messages: int = 0
    ready: int = 0
    unacked: int = 0
    bytes: int = 0
    consumers: int = 0
    publish_rate: float = 0.0
    deliver_rate: float = 0.0
    ack_rate: float = 0.0
    confirm_rate: float = 0.0
    oldest_age: float | None = None
    """Seconds."""
    last_failover: Failover | None = None

    @property
    def key(self) -> QueueKey:
        """What identifies the queue within its cluster."""
        return self.vhost, self.name

    @property
    def replicated(self) -> bool:
        """Whether copies on several nodes are kept (durable queues); others live on one node."""
        return self.type == "quorum"

    @property
    def present(self) -> int:
        """How many of the replicas run."""
        return sum(replica.role != "down" for replica in self.replicas)

    @property
    def worst_lag(self) -> int | None:
        """The largest known lag of a running replica, None when none is known."""
        lags = [r.lag for r in self.replicas if r.role in ("follower", "learner") and r.lag is not None]
        return max(lags, default=None)


@dataclass(frozen=True, slots=True)
class Change:
    """What is new about a cluster. A ``full`` one replaces everything known before it.

    ``lost`` instead says that the cluster does not answer any more, and why; the implementation goes on
    trying by itself and continues with a full change.
    """

    full: bool = False
    nodes: Sequence[Node] = ()
    queues: Sequence[Queue] = ()
    removed_queues: Sequence[QueueKey] = ()
    cluster_name: str | None = None
    answered_by: str | None = None
    lost: str | None = None


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a transfer of leadership came to."""

    source: str | None
    target: str
    unavailable_ms: float | None
    term: int


class Cluster(ABC):
    """One broker cluster. Blocking calls for views and tasks, an asynchronous stream for the live pages.

    An instance may be shared between threads. All methods raise ``ClusterError`` (its subclasses say which
    kind) and nothing else for what goes wrong on the cluster's side.
    """

    refusals: Mapping[Capability, str] = {}
    """What this kind of cluster can't do: capability -> reason, shown beside the disabled button."""

    @abstractmethod
    def snapshot(self) -> Change:
        """Everything, now, as a full ``Change``."""

    @abstractmethod
    def queue(self, vhost: str, name: str) -> Queue:
        """One queue, now. Raises ``NotFound``."""

    @abstractmethod
    def transfer_leadership(self, vhost: str, name: str, target: str | None) -> Transfer:
        """Make the replica on node ``target`` (None: the cluster's choice) the queue's leader.

        Raises ``NotFound``, ``Refused`` (no quorum, target not caught up ...) and ``OutcomeUnknown``.
        """

    def content(self) -> Content:
        """Definitions and whole queues, for backups. Raises ``Refused`` where there is no such thing."""
        raise Refused("this kind of cluster has no backups of its queues")

    def dead_letters(self) -> DeadLetters:
        """Dead letters and what can be done to them. Raises ``Refused`` where nothing can."""
        raise Refused("this console cannot look into the dead letters of this kind of cluster")

    def retained(self) -> Retained:
        """What queues retain, for history and replay. Raises ``Refused`` where nothing is retained."""
        raise Refused("this kind of cluster does not retain settled messages")

    def signal(self, node: Node, fault: Fault) -> None:
        """Kill, pause or resume the process that ``node`` names. Raises ``Refused`` where it is out of reach."""
        raise Refused("the processes of this kind of cluster are not within the console's reach")

    @abstractmethod
    def watch(self) -> AsyncGenerator[Change, None]:
        """A full ``Change``, then what changes, a few times a second at most, for ever.

        Does not end or raise when the cluster is lost: yields ``Change(lost=...)``, tries again with
        growing pauses, and continues with a full one.
        """
