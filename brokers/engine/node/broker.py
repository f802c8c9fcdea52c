"""What this node offers to its AMQP connections: the implementation of ``core.amqp.port.Broker``."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from weakref import WeakKeyDictionary

from brokers.engine import __version__
from brokers.engine.core.amqp import errors
from brokers.engine.core.amqp.channel import Channel
from brokers.engine.core.amqp.connection import Connection
from brokers.engine.core.amqp.consumer import Consumer
from brokers.engine.core.amqp.errors import AmqpError
from brokers.engine.core.amqp.methods import (
    BasicConsume,
    BasicConsumeOk,
    BasicGet,
    Method,
    QueueDeclare,
    QueueDeclareOk,
)
from brokers.engine.core.amqp.port import DIRECT_REPLY_TO, Delivery, Done, Target
from brokers.engine.core.amqp.properties import decode_properties
from brokers.engine.core.amqp.rewriting import rewrite
from brokers.engine.core.model import commands
from brokers.engine.core.model.deduplication import seen_keys
from brokers.engine.core.model.delayed import delay_of
from brokers.engine.core.model.handlers import (
    AskQueue,
    Commit,
    Context,
    Decision,
    decide,
    publishable,
    queue_name,
    usable_queue,
)
from brokers.engine.core.model.hashing import MessageHeaders
from brokers.engine.core.model.metadata import Result
from brokers.engine.core.model.policies import MAX_CONNECTIONS
from brokers.engine.core.model.routing import needs_headers, route
from brokers.engine.core.model.sender_routes import BCC, sender_routes
from brokers.engine.core.model.topology import DEFAULT_EXCHANGE, QueueInfo
from brokers.engine.core.session.link import QueueLink
from brokers.engine.core.session.stream import OFFSET, parse_offset
from brokers.engine.node.barrier import Barrier
from brokers.engine.node.departures import Departures
from brokers.engine.node.logins import Logins
from brokers.engine.node.lost_nodes import lost
from brokers.engine.node.metadata_service import MetadataService
from brokers.engine.node.queues import Queues
from brokers.engine.node.replies import ADDRESS_PREFIX, Replies, ReplyTarget
from brokers.engine.node.targets import (
    ComputedTarget,
    DeduplicatingTarget,
    FanoutTarget,
    Gather,
    NoTarget,
    QueueTarget,
    RewritingTarget,
    names,
)

PATIENCE = 15.0
"""Seconds that a client waits for a queue or cluster without a leader before it is refused."""
COMPATIBLE_VERSION = "3.13.7"
"""The version of RabbitMQ whose behaviour clients may count on."""

CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "consumer_priorities": True,
    "authentication_failure_close": True,
    "per_consumer_qos": True,
    "direct_reply_to": True,
}


class NodeBroker:
    """One for all connections of a node."""

    def __init__(
        self,
        node: int,
        name: str,
        boot: int,
        cluster_name: str,
        loop: asyncio.AbstractEventLoop,
        service: MetadataService,
        queues: Queues,
        live_nodes: Callable[[], Collection[int]],
        replies: Replies,
        barrier: Barrier,
    ) -> None:
        self._node = node
        self._boot = boot
        self._loop = loop
        self._service = service
        self._metadata = service.metadata
        self._queues = queues
        self._live_nodes = live_nodes
        self._replies = replies
        self._barrier = barrier
        self.connections: dict[Connection, str] = {}
        """Open connections and their ids."""
        self._owners: set[str] = set()
        """Connections that may own exclusive queues."""
        self._generation = 0
        self._next_connection = 0
        self._next_consumer = 0
        self._departures = Departures()
        self._gathers: WeakKeyDictionary[Channel, Gather] = WeakKeyDictionary()
        self._logins = Logins(self._metadata, loop)
        self.elsewhere: dict[int, Counter[str]] = {}
        """Connections per vhost on other nodes, as these last told."""
        self._nowhere = NoTarget()
        self._properties: dict[str, object] = {
            "product": "RabbitMQ",  # why: docs/decisions/0030-presented-as-rabbitmq.md
            "version": COMPATIBLE_VERSION,
            "platform": f"mqconsole {__version__} (Python)",
            "copyright": "mqconsole contributors",
            "information": "Not RabbitMQ, but compatible. Licensed under the Apache License 2.0",
            "cluster_name": cluster_name,
            "node": name,
            "capabilities": CAPABILITIES,
        }

    # -- connections ----------------------------------------------------------------------------------

    def server_properties(self) -> dict[str, object]:
        """See ``port.Broker``."""
        return self._properties

    def opened(self, connection: Connection) -> str:
        """A client connected; the connection's id, unique in the cluster for ever."""
        self._next_connection += 1
        identity = f"{self._boot:016x}-{self._next_connection}"
        self.connections[connection] = identity
        return identity

    def authenticate(
        self, connection: Connection, user: str, password: str, done: Callable[[AmqpError | None], None]
    ) -> None:
        """See ``port.Broker``."""
        self._logins.check(connection, user, password, done)

    def open(self, connection: Connection, vhost: str, done: Callable[[AmqpError | None], None]) -> None:
        """See ``port.Broker``."""
        try:
            self._metadata.check_open(connection.user, vhost)
            self._check_connections(connection, vhost)
        except AmqpError as error:
            done(error)
        else:
            done(None)

    def _check_connections(self, connection: Connection, vhost: str) -> None:
        """Raises ``AmqpError`` 530 when the vhost has as many connections as it may. What other nodes have is
        known with the delay of their reports: together they may let in a few more."""
        limit = self._metadata.state.vhosts[vhost].limits.get(MAX_CONNECTIONS, -1)
        if limit < 0:
            return
        mine = sum(1 for other in self.connections if other.vhost == vhost)
        live = self._live_nodes()
        others = sum(counts[vhost] for node, counts in self.elsewhere.items() if node in live)
        if mine + others >= limit:
            raise errors.not_allowed(
                f"access to vhost '{vhost}' refused for user '{connection.user}': "
                f"connection limit ({limit}) is reached"
            )

    def disconnect(self, meant: Callable[[Connection], bool], why: str) -> int:
        """Close the connections that are ``meant``, telling them ``why``; how many that were."""
        found = [connection for connection in self.connections if meant(connection)]
        for connection in found:
            connection.close(320, f"CONNECTION_FORCED - {why}")
        return len(found)

    def administer(self, vhost: str, method: Method, done: Done) -> None:
        """Do what a method says on behalf of the cluster's operators, whom no permission binds."""
        context = Context(vhost, None, "", self._node, _new_name, self._live_nodes)
        self._follow(decide(self._metadata, context, method), done)

    def submit(self, command: commands.Command, done: Callable[[Result | AmqpError], None]) -> None:
        """Have a command applied by the cluster; an error when that takes longer than a client's patience."""
        self._submit(command, done, done)  # type: ignore[arg-type]  # refusals are errors, never methods

    def closed(self, connection: Connection) -> None:
        """See ``port.Broker``."""
        identity = self.connections.pop(connection, None)
        if identity in self._owners:
            self._owners.discard(identity)
            over = self._once(*self._departure(connection))
            self._submit(commands.delete_queues_of_connection(identity), over)

    def departed(self, connection: Connection, done: Callable[[], None]) -> None:
        """See ``port.Broker``."""
        self._departures.wait(connection, done)

    def _departure(self, connection: Connection) -> tuple[Callable[..., None], Done, Callable[[], AmqpError]]:
        over = self._departures.begin(connection)
        return lambda *result: over(), lambda error: over(), lambda: errors.internal_error("")

    def _left(self, connection: Connection, link: QueueLink) -> None:
        """A consumer of ``connection`` left: if it was the last one of an auto-delete queue, that goes too."""
        info = self._metadata.state.by_group.get(link.group)
        if info is None or not info.auto_delete:
            return
        over = self._once(*self._departure(connection))
        link.ask(False, lambda ready, consumers: over() if consumers else link.on_closed.append(over))

    def topology_changed(self) -> None:
        """Routes that connections have kept may be wrong now, if anything of them changed."""
        if self._generation == self._metadata.generation:
            return
        self._generation = self._metadata.generation
        for connection in self.connections:
            connection.routes.clear()

    def _context(self, channel: Channel) -> Context:
        connection = channel.connection
        return Context(
            connection.vhost,
            connection.user,
            self.connections.get(connection, ""),
            self._node,
            _new_name,
            self._live_nodes,
            channel.last_queue,
        )

    # -- publishing -----------------------------------------------------------------------------------

    def resolve(self, channel: Channel, route: bytes) -> Target:
        """See ``port.Broker``."""
        exchange, key = names(route)
        connection = channel.connection
        vhost = publishable(self._metadata, connection.vhost, connection.user, exchange, (key,))
        if key.startswith(ADDRESS_PREFIX) and exchange == DEFAULT_EXCHANGE:
            return ReplyTarget(self._replies, key)
        if needs_headers(vhost, exchange):
            return ComputedTarget(lambda header: self._target(connection.vhost, exchange, key, header))
        target = self._target(connection.vhost, exchange, key, b"")
        connection.routes[route] = target
        return target

    def resolve_special(self, channel: Channel, route: bytes, header: bytes) -> Target:
        """See ``port.Broker``."""
        connection = channel.connection
        properties = decode_properties(header)
        keys = sender_routes(properties.headers)
        if keys:
            exchange, key = names(route)
            publishable(self._metadata, connection.vhost, connection.user, exchange, (key, *keys))
            target: Target = self._target(connection.vhost, exchange, key, header, keys)
        else:
            target = connection.routes.get(route) or channel.resolve(route)
        direct = properties.reply_to == DIRECT_REPLY_TO
        hidden = properties.headers is not None and BCC in properties.headers
        if hidden and self._waits(connection.vhost, route, properties.headers or {}):
            hidden = False  # its keys are needed when it is let go, and then it is hidden
        if not direct and not hidden:
            return target
        reply_to = self._replies.address(channel) if direct else None
        return RewritingTarget(target, rewrite(header, reply_to=reply_to, drop=(BCC,)))

    def _waits(self, vhost: str, route: bytes, headers: Mapping[str, object]) -> bool:
        exchange, _ = names(route)
        return exchange in self._metadata.state.vhost(vhost).delays and delay_of(headers) > 0

    def _target(self, vhost: str, exchange: str, key: str, header: bytes, also: Sequence[str] = ()) -> Target:
        def headers() -> Mapping[str, object]:
            properties = decode_properties(header)
            return MessageHeaders(properties, properties.headers or {})

        queues = route(self._metadata.state.vhost(vhost), exchange, key, headers, also)
        if not queues:
            return self._nowhere
        links = tuple(map(self._queues.link, queues))
        target = QueueTarget(links[0]) if len(links) == 1 else FanoutTarget(links, self._gather)
        found = self._metadata.state.vhost(vhost).exchanges.get(exchange)
        window = seen_keys(found.arguments) if found is not None else None
        return target if window is None else DeduplicatingTarget(target, links, window)

    def _gather(self, channel: Channel) -> Gather:
        gather = self._gathers.get(channel)
        if gather is None:
            gather = self._gathers[channel] = Gather(channel)
        return gather

    # -- methods with an answer -----------------------------------------------------------------------

    def call(self, channel: Channel, method: Method, done: Done) -> None:
        """See ``port.Broker``."""
        if isinstance(method, QueueDeclare) and method.queue.startswith(DIRECT_REPLY_TO):
            self._declare_reply_queue(channel, method, done)
            return
        context = self._context(channel)
        if isinstance(method, QueueDeclare):
            given_up = self._out_of_reach(context.vhost, method.queue)
            if given_up is not None:
                self._submit(given_up, lambda result: self.call(channel, method, done), done)
                return
        if isinstance(method, QueueDeclare) and method.exclusive:
            self._owners.add(context.connection)
        self._follow(decide(self._metadata, context, method), done)

    def _declare_reply_queue(self, channel: Channel, method: QueueDeclare, done: Done) -> None:
        """The pseudo-queue is always there, an address as long as its channel waits for replies."""
        missing = errors.no_queue(method.queue, channel.connection.vhost)

        def found(exists: bool) -> None:
            done(QueueDeclareOk(method.queue, 0, 1) if exists else missing)

        if method.queue == DIRECT_REPLY_TO:
            found(True)
        else:
            self._replies.exists(method.queue, self._once(found, done, lambda: missing))

    def _out_of_reach(self, vhost: str, queue: str) -> commands.Command | None:
        """What gives up ``queue`` where that lived in the memory of a node out of reach."""
        info = self._metadata.state.vhost(vhost).queues.get(queue)
        if info is None or info.home is None or info.home in self._live_nodes():
            return None
        return lost(self._metadata.state, info)

    def _follow(self, decision: Decision, done: Done) -> None:
        if isinstance(decision, AskQueue):
            self._ask(decision, done)
        elif isinstance(decision, Commit):
            then = decision.then
            self._submit(decision.command, lambda result: self._follow(then(result), done), done)
        else:
            done(decision)

    def _submit(
        self, command: commands.Command, answered: Callable[..., None], refused: Done | None = None
    ) -> None:
        once = self._once(answered, refused, lambda: errors.internal_error(_no_quorum("the cluster")))

        def applied(result: Result) -> None:
            if result.events:
                self._barrier.wait(lambda: once(result))
            else:
                once(result)

        self._service.submit(command, applied, self._loop.time())

    def _ask(self, ask: AskQueue, done: Done) -> None:
        info = ask.info
        link = self._queues.link(info)
        if link.leader is None and not ask.required:
            self._follow(ask.then(0, 0), done)
            return
        answered = self._once(
            lambda ready, consumers: self._follow(ask.then(ready, consumers), done),
            done,
            lambda: _unavailable(info),
        )
        link.ask(ask.action == "purge", answered)

    def _once(
        self, answered: Callable[..., None], refused: Done | None, why: Callable[[], AmqpError]
    ) -> Callable[..., None]:
        """``answered``, unless the answer takes longer than a client's patience: then ``refused``."""
        timer: asyncio.TimerHandle | None = None
        over = False

        def give_up() -> None:
            nonlocal over
            over = True
            if refused is not None:
                refused(why())

        def answer(*values: object) -> None:
            nonlocal over
            if not over:
                over = True
                if timer is not None:
                    timer.cancel()
                answered(*values)

        if refused is not None:
            timer = self._loop.call_later(PATIENCE, give_up)
        return answer

    # -- consumers ------------------------------------------------------------------------------------

    def consume(self, channel: Channel, consumer: Consumer, method: BasicConsume, done: Done) -> None:
        """See ``port.Broker``."""
        if method.queue == DIRECT_REPLY_TO:
            self._replies.consume(channel, consumer)
            done(BasicConsumeOk(consumer.tag))
            return
        context = self._context(channel)
        try:
            info = usable_queue(self._metadata, context, queue_name(context, method.queue))
            check_offset(consumer.arguments)
        except AmqpError as error:
            done(error)
            return
        link = self._queues.link(info)

        def joined(in_use: bool | None) -> None:
            if in_use is None:
                done(errors.no_queue(info.name, info.vhost))
            elif in_use:
                done(errors.exclusive_use(info.name, info.vhost))
            else:
                done(BasicConsumeOk(consumer.tag))

        def refused(error: Method | AmqpError | None) -> None:
            link.release(consumer)
            done(error)

        link.attach(
            consumer, self._consumer_number(), self._once(joined, refused, lambda: _unavailable(info))
        )

    def _consumer_number(self) -> int:
        self._next_consumer += 1
        return self._next_consumer

    def cancel(self, consumer: Consumer) -> None:
        """See ``port.Broker``."""
        if self._replies.is_ours(consumer):
            self._replies.forget(consumer.channel)
        else:
            self._link_of(consumer, lambda link: link.cancel(consumer))
            self._link_of(consumer, lambda link: self._left(consumer.channel.connection, link))

    def get(self, channel: Channel, consumer: Consumer, method: BasicGet, done: Callable[..., None]) -> None:
        """See ``port.Broker``."""
        context = self._context(channel)
        try:
            info = usable_queue(self._metadata, context, queue_name(context, method.queue))
        except AmqpError as error:
            done(error, 0)
            return
        link = self._queues.link(info)

        def got(delivery: Delivery | None, ready: int) -> None:
            if delivery is not None and not method.no_ack:
                link.hold(consumer)
            done(delivery, ready)

        def refused(error: Method | AmqpError | None) -> None:
            link.release(consumer)
            done(error, 0)

        answered = self._once(got, refused, lambda: _unavailable(info))
        link.get(consumer, self._consumer_number(), method.no_ack, answered)

    def release(self, channel: Channel, consumers: Sequence[Consumer]) -> None:
        """See ``port.Broker``."""
        for consumer in consumers:
            if consumer.handle is not None:
                self._link_of(consumer, lambda link, consumer=consumer: link.release(consumer))
                if not consumer.holder:
                    self._link_of(consumer, lambda link: self._left(channel.connection, link))
        self._replies.forget(channel)
        self._gathers.pop(channel, None)

    def _link_of(self, consumer: Consumer, act: Callable[..., None]) -> None:
        link = getattr(consumer, "queue", None)
        if link is not None and self._queues.links.get(link.group) is link:
            act(link)


def check_offset(arguments: Mapping[str, object]) -> None:
    """Raises ``AmqpError`` 406 for an ``x-stream-offset`` that means nothing."""
    if OFFSET in arguments:
        try:
            parse_offset(arguments[OFFSET])
        except ValueError as error:
            raise errors.precondition_failed(str(error)) from None


def _new_name(prefix: str) -> str:
    return f"{prefix}-{secrets.token_urlsafe(16)}"


def _unavailable(info: QueueInfo) -> AmqpError:
    return errors.not_found(_no_quorum(f"queue '{info.name}' in vhost '{info.vhost}'"))


def _no_quorum(what: str) -> str:
    return f"{what} has had no leader for {PATIENCE:g} s: a majority of its replicas is out of reach"
