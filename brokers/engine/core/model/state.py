"""The replicated state of the metadata group, and the steps its changes are made of.

Everything here is a function of the commands applied. Indexes and counts follow from the rest and are not
part of a snapshot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from brokers.engine.core.amqp import errors
from brokers.engine.core.model.events import (
    BindingRemoved,
    Event,
    ExchangeDeleted,
    QueueChanged,
    QueueCreated,
    QueueDeleted,
    Reason,
)
from brokers.engine.core.model.sessions import Sessions
from brokers.engine.core.model.topology import (
    DELAY_QUEUE,
    Binding,
    Exchange,
    NodeInfo,
    Permission,
    QueueInfo,
    TopicPermission,
    User,
)
from brokers.engine.core.model.vhost import VHost

MAX_CLOSED = 1024
"""How many closed connections are remembered, lest a declaration sent again outlive its connection."""

QueueKey = tuple[str, str]
"""(vhost, name)"""


class State:
    """What all nodes agree on."""

    def __init__(self) -> None:
        self.cluster = ""
        self.next_group = 1
        self.next_node = 1
        self.vhosts: dict[str, VHost] = {}
        self.users: dict[str, User] = {}
        self.permissions: dict[str, dict[str, Permission]] = {}
        self.topic_permissions: dict[str, dict[str, dict[str, TopicPermission]]] = {}
        """By user, vhost and exchange."""
        self.nodes: dict[int, NodeInfo] = {}
        self.sessions = Sessions()
        self.closed_connections: dict[str, None] = {}

        self.by_group: dict[int, QueueInfo] = {}
        self.replica_counts: Counter[int] = Counter()
        self.leader_counts: Counter[int] = Counter()
        self._owned: dict[str, dict[QueueKey, None]] = {}
        self._at_home: dict[int, dict[QueueKey, None]] = {}

    def queues(self) -> Iterator[QueueInfo]:
        """All queues of all vhosts."""
        return iter(self.by_group.values())

    def vhost(self, name: str) -> VHost:
        """Raises ``AmqpError`` 530 when there is none."""
        vhost = self.vhosts.get(name)
        if vhost is None:
            raise errors.vhost_not_found(name)
        return vhost

    def queue(self, vhost: str, name: str) -> QueueInfo:
        """Raises ``AmqpError`` 404 when there is none, 530 without its vhost."""
        queue = self.vhost(vhost).queues.get(name)
        if queue is None:
            raise errors.no_queue(name, vhost)
        return queue

    def exchange(self, vhost: str, name: str) -> Exchange:
        """Raises ``AmqpError`` 404 when there is none, 530 without its vhost."""
        exchange = self.vhost(vhost).exchanges.get(name)
        if exchange is None:
            raise errors.no_exchange(name, vhost)
        return exchange

    def queues_of_connection(self, connection: str) -> list[QueueInfo]:
        """The exclusive queues of a connection."""
        return [self.vhosts[vhost].queues[name] for vhost, name in self._owned.get(connection, ())]

    def queues_at(self, node: int) -> list[QueueInfo]:
        """The transient queues in a node's memory."""
        return [self.vhosts[vhost].queues[name] for vhost, name in self._at_home.get(node, ())]

    # Steps of changes: each keeps vhosts, indexes and counts consistent, and says what happened

    def add_queue(self, queue: QueueInfo) -> list[Event]:
        self.vhosts[queue.vhost].add_queue(queue)
        self._index(queue)
        return [QueueCreated(queue)]

    def replace_queue(self, before: QueueInfo, after: QueueInfo) -> list[Event]:
        self._unindex(before)
        self.vhosts[after.vhost].replace_queue(after)
        self._index(after)
        return [QueueChanged(before, after)]

    def remove_queue(self, queue: QueueInfo, reason: Reason) -> list[Event]:
        vhost = self.vhosts[queue.vhost]
        self._unindex(queue)
        if queue.type == DELAY_QUEUE:
            del vhost.delays[queue.name]
            return [QueueDeleted(queue, reason)]
        return [*self.gone(*vhost.remove_queue(queue.name)), QueueDeleted(queue, reason)]

    def remove_queues(self, queues: Iterable[QueueInfo], reason: Reason) -> list[Event]:
        return [event for queue in list(queues) for event in self.remove_queue(queue, reason)]

    def gone(self, exchanges: Iterable[Exchange], bindings: Iterable[Binding]) -> list[Event]:
        """What was removed from a vhost together: says so, and what waited in delayed exchanges goes too."""
        events: list[Event] = [BindingRemoved(binding) for binding in bindings]
        for exchange in exchanges:
            events.append(ExchangeDeleted(exchange))
            waiting = self.vhosts[exchange.vhost].delays.get(exchange.name)
            if waiting is not None:
                events += self.remove_queue(waiting, Reason.DELETED)
        return events

    def close_connection(self, connection: str) -> list[Event]:
        """Remove the connection's exclusive queues, and remember that it is over."""
        self.closed_connections[connection] = None
        while len(self.closed_connections) > MAX_CLOSED:
            del self.closed_connections[next(iter(self.closed_connections))]
        return self.remove_queues(self.queues_of_connection(connection), Reason.CONNECTION_CLOSED)

    def _index(self, queue: QueueInfo) -> None:
        self.by_group[queue.group] = queue
        self._count(queue, 1)
        if queue.exclusive is not None:
            self._owned.setdefault(queue.exclusive, {})[queue.vhost, queue.name] = None
        if queue.home is not None:
            self._at_home.setdefault(queue.home, {})[queue.vhost, queue.name] = None

    def _unindex(self, queue: QueueInfo) -> None:
        del self.by_group[queue.group]
        self._count(queue, -1)
        key = (queue.vhost, queue.name)
        if queue.exclusive is not None:
            owned = self._owned[queue.exclusive]
            del owned[key]
            if not owned:
                del self._owned[queue.exclusive]
        if queue.home is not None:
            at_home = self._at_home[queue.home]
            del at_home[key]
            if not at_home:
                del self._at_home[queue.home]

    def _count(self, queue: QueueInfo, change: int) -> None:
        members = queue.replicas if queue.home is None else (queue.home,)
        for node in members:
            self.replica_counts[node] += change
        if members:
            self.leader_counts[members[0]] += change
