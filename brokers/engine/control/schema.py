"""The shapes of the control API's data (see the package's docstring) as types."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

GroupState = Literal["running", "electing", "no-quorum"]
NodeState = Literal["running", "down", "starting", "draining"]
ReplicaRole = Literal["leader", "follower", "learner", "down"]


class ClusterRow(TypedDict):
    """Which cluster this is."""

    id: str
    name: str


class MetadataRow(TypedDict):
    """The group of topology: while it has no leader, nothing can be declared."""

    leader: str | None
    term: int
    voters: list[str]
    state: GroupState


class NodeRow(TypedDict):
    """One node; what only it could tell is None while it is down."""

    id: int
    name: str
    amqp: str
    state: NodeState
    pid: int | None
    uptime: float | None
    leaders: int | None
    replicas: int | None
    connections: int | None
    memory: int | None
    disk_used: int | None
    disk_free: int | None
    fsync_ms: float | None
    loop_delay_ms: float | None
    version: str | None
    alarms: list[str] | None


class ReplicaRow(TypedDict):
    """One copy of a queue; ``lag`` in log entries behind the leader, None when unknown."""

    node: str
    role: ReplicaRole
    lag: int | None


class Rates(TypedDict):
    """Messages per second, averaged over a few seconds."""

    publish: float
    deliver: float
    ack: float
    confirm: float


# "from" is a keyword, hence the functional form.
Failover = TypedDict(
    "Failover",
    {"at": float, "from": str | None, "to": str, "unavailable_ms": float | None, "reason": str},
)
Transfer = TypedDict(
    "Transfer",
    {"from": str | None, "to": str, "unavailable_ms": float | None, "term": int},
)


class QueueRow(TypedDict):
    """One queue and its replicas."""

    vhost: str
    name: str
    group: int | None
    durable: bool
    exclusive: bool
    auto_delete: bool
    type: str
    arguments: dict[str, Any]
    leader: str | None
    term: int
    state: GroupState
    replicas: list[ReplicaRow]
    messages: int
    ready: int
    unacked: int
    bytes: int
    consumers: int
    rates: Rates
    oldest_age: float | None
    last_failover: Failover | None


class Removed(TypedDict):
    """Keys of rows that are gone: a queue's ``[vhost, name]``."""

    queues: list[list[str]]


class Snapshot(TypedDict):
    """The cluster as the answering node sees it."""

    version: int
    cluster: ClusterRow
    answered_by: str
    metadata: MetadataRow
    nodes: list[NodeRow]
    queues: list[QueueRow]
    connections: list[dict[str, Any]]
    exchanges: list[dict[str, Any]]
    full: NotRequired[bool]


class Change(TypedDict, total=False):
    """One item of ``watch()`` after the first: only what changed."""

    metadata: MetadataRow
    nodes: list[NodeRow]
    queues: list[QueueRow]
    connections: list[dict[str, Any]]
    exchanges: list[dict[str, Any]]
    removed: Removed
    disconnected: str
