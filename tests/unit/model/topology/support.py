"""A broker's topology at hand: metadata, a client, and a node that carries out what is decided."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from brokers.engine.core.amqp.errors import AmqpError
from brokers.engine.core.amqp.methods import Method
from brokers.engine.core.model import commands
from brokers.engine.core.model.commands import Command
from brokers.engine.core.model.events import Event
from brokers.engine.core.model.handlers import AskQueue, Commit, Context, decide
from brokers.engine.core.model.metadata import Metadata, Result
from brokers.engine.core.model.routing import route
from brokers.engine.core.model.topology import NodeInfo, QueueInfo

HASH = "scrypt$2$1$1$c2FsdA==$a2V5"
NODES = tuple(
    NodeInfo(number, f"node{number}", {"amqp": f"127.0.0.1:{5671 + number}"}) for number in (1, 2, 3)
)


class Cluster:
    """One copy of the metadata, bootstrapped with three nodes and ``guest``."""

    def __init__(self) -> None:
        self.metadata = Metadata()
        self.serial = 0
        self.log: list[bytes] = []
        self.events: list[Event] = []
        self.names = 0
        self.live: Collection[int] = (1, 2, 3)
        self.commit(commands.bootstrap("test", "guest", HASH, NODES))

    def commit(self, command: Command) -> Result:
        """Number, encode, decode and apply, as the log does."""
        self.serial += 1
        payload = commands.encode_command(commands.stamp(command, 1, self.serial))
        self.log.append(payload)
        result = self.metadata.apply(commands.decode_command(payload))
        self.events += result.events
        return result

    def client(self, connection: str = "connection-1", user: str = "guest", node: int = 1) -> Client:
        return Client(self, connection, user, node)

    def queue(self, name: str, vhost: str = "/") -> QueueInfo | None:
        return self.metadata.state.vhosts[vhost].queues.get(name)

    def routed(
        self, exchange: str, key: str = "", headers: dict[str, object] | None = None, vhost: str = "/"
    ) -> set[str]:
        found = route(self.metadata.state.vhosts[vhost], exchange, key, lambda: headers or {})
        names = [queue.name for queue in found]
        assert len(names) == len(set(names)), "every queue once"
        return set(names)


class Client:
    """A channel of a connection. ``counts`` are what queues answer when asked."""

    def __init__(self, cluster: Cluster, connection: str, user: str, node: int) -> None:
        self.cluster = cluster
        self.counts = (0, 0)
        self.asked: list[AskQueue] = []
        self.committed: list[Command] = []
        self.context = Context("/", user, connection, node, self._new_name, lambda: cluster.live)

    def _new_name(self, prefix: str) -> str:
        self.cluster.names += 1
        return f"{prefix}-{self.cluster.names}"

    def last_queue(self, name: str) -> Client:
        self.context = replace(self.context, last_queue=name)
        return self

    def call(self, method: Method) -> Method | AmqpError | None:
        """Do what is decided until there is an answer."""
        decision = decide(self.cluster.metadata, self.context, method)
        while True:
            match decision:
                case Commit():
                    self.committed.append(decision.command)
                    decision = decision.then(self.cluster.commit(decision.command))
                case AskQueue():
                    self.asked.append(decision)
                    decision = decision.then(*self.counts)
                case _:
                    return decision

    def ok(self, method: Method) -> Method | None:
        answer = self.call(method)
        assert not isinstance(answer, AmqpError), str(answer)
        return answer

    def refused(self, method: Method) -> str:
        """The code and text of the error that ``method`` is answered with."""
        answer = self.call(method)
        assert isinstance(answer, AmqpError), f"not refused: {answer!r}"
        return str(answer)
