"""What an applied command changed, for the node: queues' groups to start and stop, consumers to cancel,
connections to close, caches to drop, pages to update."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from brokers.engine.core.model.topology import Binding, Exchange, NodeInfo, QueueInfo


class Reason(StrEnum):
    """Why a queue is gone."""

    DELETED = "deleted"
    UNUSED = "unused"
    EXPIRED = "expired"
    CONNECTION_CLOSED = "connection closed"
    NODE_GONE = "node gone"
    VHOST_DELETED = "vhost deleted"


@dataclass(frozen=True, slots=True)
class QueueCreated:
    info: QueueInfo


@dataclass(frozen=True, slots=True)
class QueueChanged:
    """The queue is the same (``group`` is), what is known of it has changed: its replicas."""

    before: QueueInfo
    after: QueueInfo


@dataclass(frozen=True, slots=True)
class QueueDeleted:
    info: QueueInfo
    reason: Reason


@dataclass(frozen=True, slots=True)
class ExchangeCreated:
    exchange: Exchange


@dataclass(frozen=True, slots=True)
class ExchangeDeleted:
    exchange: Exchange


@dataclass(frozen=True, slots=True)
class BindingAdded:
    binding: Binding


@dataclass(frozen=True, slots=True)
class BindingRemoved:
    binding: Binding


@dataclass(frozen=True, slots=True)
class VHostCreated:
    name: str


@dataclass(frozen=True, slots=True)
class VHostChanged:
    name: str


@dataclass(frozen=True, slots=True)
class VHostDeleted:
    """Its queues and exchanges went first, with events of their own."""

    name: str


@dataclass(frozen=True, slots=True)
class UserChanged:
    """The user is new, or has another password (``password``) or other tags."""

    name: str
    password: bool = True


@dataclass(frozen=True, slots=True)
class UserDeleted:
    name: str


@dataclass(frozen=True, slots=True)
class PermissionsChanged:
    """What ``user`` may do in ``vhost`` was set or cleared."""

    user: str
    vhost: str


@dataclass(frozen=True, slots=True)
class TopicPermissionsChanged:
    """The topic permissions of ``user`` in ``vhost`` were set or cleared."""

    user: str
    vhost: str


@dataclass(frozen=True, slots=True)
class PoliciesChanged:
    """Policies of ``vhost`` were set or deleted: the settings of its queues and exchanges may be others."""

    vhost: str


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """The node is new, or was started again or moved."""

    node: NodeInfo


@dataclass(frozen=True, slots=True)
class NodeRemoved:
    node: NodeInfo


Event = (
    QueueCreated
    | QueueChanged
    | QueueDeleted
    | ExchangeCreated
    | ExchangeDeleted
    | BindingAdded
    | BindingRemoved
    | VHostCreated
    | VHostChanged
    | VHostDeleted
    | UserChanged
    | UserDeleted
    | PermissionsChanged
    | TopicPermissionsChanged
    | PoliciesChanged
    | NodeChanged
    | NodeRemoved
)
