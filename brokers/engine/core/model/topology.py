"""The things of a broker's topology: plain, immutable values.

What a cluster knows by these is replicated by the metadata group (``metadata.py``); how a message finds
its way through them is in ``routing.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from brokers.engine.core.model.arguments import Arguments, canonical

DEFAULT_EXCHANGE = ""
"""The nameless direct exchange: every queue is bound to it by its own name. It is implied, never stored."""

PREDECLARED_EXCHANGES: Mapping[str, str] = {
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.topic": "topic",
    "amq.headers": "headers",
    "amq.match": "headers",
}
"""Name to type of the durable exchanges that every vhost is born with (AMQP 0-9-1, section 3.1.3)."""

RESERVED_PREFIX = "amq."

DELAY_QUEUE = "delay"
"""The ``QueueInfo.type`` of what keeps a delayed exchange's waiting messages; its name is the exchange's."""


class Kind(StrEnum):
    """What a name names, as RabbitMQ's texts say it."""

    QUEUE = "queue"
    EXCHANGE = "exchange"


def resource(kind: Kind, name: str, vhost: str) -> str:
    """How RabbitMQ's texts call a queue or exchange: ``queue 'q' in vhost '/'``."""
    return f"{kind.value} '{name}' in vhost '{vhost}'"


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange. ``arguments`` are those of its declaration."""

    vhost: str
    name: str
    type: str
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: Arguments = field(default_factory=dict, hash=False)


Destination = tuple[Kind, str]
"""Where a binding leads: a queue or an exchange of the same vhost, by name."""

BindingKey = tuple[str, Kind, str, str, str]
"""(source, kind, destination, routing key, canonical arguments): two bindings with equal keys are one."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding from exchange ``source`` to the queue or exchange ``destination``."""

    vhost: str
    source: str
    kind: Kind
    destination: str
    routing_key: str
    arguments: Arguments = field(default_factory=dict, hash=False)

    @property
    def key(self) -> BindingKey:
        return (self.source, self.kind, self.destination, self.routing_key, canonical(self.arguments))

    @property
    def target(self) -> Destination:
        return (self.kind, self.destination)


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """What all nodes know of a queue.

    A *replicated* queue has a consensus group on ``replicas`` (the first one is its preferred leader) and
    no ``home``. A *transient* one (exclusive, auto-delete or not durable) lives in the memory of node
    ``home``, has no replicas, and is gone with that node's process. ``group`` numbers every queue, ever;
    a queue deleted and declared again has another. ``exclusive`` is the id of the only connection that
    may use the queue, and with which it goes.
    """

    vhost: str
    name: str
    durable: bool
    auto_delete: bool
    exclusive: str | None
    arguments: Arguments = field(hash=False)
    group: int
    replicas: tuple[int, ...] = ()
    home: int | None = None
    type: str = "classic"


@dataclass(frozen=True, slots=True)
class User:
    """Who may log in. ``password_hash`` is of the form that ``passwords.py`` makes; empty: no password."""

    name: str
    password_hash: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Permission:
    """What a user may do in a vhost: regular expressions over names of queues and exchanges.

    An empty expression matches no name (RabbitMQ's ``''`` is ``'^$'``); ``.*`` matches all.
    """

    configure: str = ""
    write: str = ""
    read: str = ""


@dataclass(frozen=True, slots=True)
class TopicPermission:
    """Which routing keys a user may publish with to a topic exchange (*write*), and bind with (*read*).

    Regular expressions, in which ``{username}`` and ``{vhost}`` stand for the user's.
    """

    write: str = ""
    read: str = ""


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node of the cluster. ``boot`` is the one its process drew at its last start, 0 before the first;
    ``addresses`` are where it is reached, by purpose (``amqp``, ``peer``, ``control``)."""

    id: int
    name: str
    addresses: Mapping[str, str] = field(default_factory=dict, hash=False)
    boot: int = 0
