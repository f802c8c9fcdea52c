"""queue.declare, queue.delete and queue.purge."""

from __future__ import annotations

from brokers.engine.core.amqp import errors
from brokers.engine.core.amqp.methods import (
    QueueDeclare,
    QueueDeclareOk,
    QueueDelete,
    QueueDeleteOk,
    QueuePurge,
    QueuePurgeOk,
)
from brokers.engine.core.model import commands
from brokers.engine.core.model.arguments import Arguments, string_argument
from brokers.engine.core.model.authorize import check_not_reserved
from brokers.engine.core.model.equivalence import (
    DEAD_LETTER_EXCHANGE,
    QUEUE_TYPE,
    check_access,
    check_queue_arguments,
    check_queue_equivalent,
    check_quorum_properties,
    check_string,
)
from brokers.engine.core.model.handlers.decision import AskQueue, Commit, Context, Decision
from brokers.engine.core.model.handlers.names import clean, queue_name, usable_queue
from brokers.engine.core.model.metadata import Metadata, Result
from brokers.engine.core.model.placement import group_size
from brokers.engine.core.model.topology import Kind, QueueInfo

NAME_PREFIX = "x-name-prefix"
SERVER_PREFIX = "amq.gen"
MAX_QUEUES = 100_000
"""Queues a cluster takes. Nodes look at what they know: together they may let a few more in."""


def declare(metadata: Metadata, context: Context, method: QueueDeclare) -> Decision:
    """queue.declare. An exclusive queue is never durable, whatever was asked for (as in RabbitMQ)."""
    if method.passive:
        return _declare_passive(metadata, context, method)
    name = clean(method.queue)
    if name:
        check_not_reserved(Kind.QUEUE, name)
    else:
        name = clean(context.new_name(_prefix(method.arguments)))
    allowed = metadata.authorizer(context.user, context.vhost)
    allowed.configure(Kind.QUEUE, name)
    arguments = {key: value for key, value in method.arguments.items() if key != NAME_PREFIX}
    durable = method.durable and not method.exclusive
    owner = context.connection if method.exclusive else None

    existing = metadata.state.vhost(context.vhost).queues.get(name)
    if existing is not None:
        check_queue_equivalent(existing, durable, method.auto_delete, owner, arguments)
        return _counted(existing, method)
    if len(metadata.state.by_group) >= MAX_QUEUES:
        raise errors.precondition_failed(
            f"cannot declare queue '{name}': the cluster has {MAX_QUEUES} queues, as many as it may"
        )
    dead_letters = check_string(Kind.QUEUE, name, context.vhost, arguments, DEAD_LETTER_EXCHANGE)
    if dead_letters is not None:
        allowed.read(Kind.QUEUE, name)
        allowed.write(Kind.EXCHANGE, dead_letters)
    check_queue_arguments(context.vhost, name, arguments)
    check_quorum_properties(context.vhost, name, durable, method.auto_delete, owner is not None, arguments)

    transient = owner is not None or method.auto_delete or not durable
    queue = QueueInfo(
        context.vhost,
        name,
        durable,
        method.auto_delete,
        owner,
        arguments,
        group=0,
        home=context.node if transient else None,
        type=string_argument(arguments, QUEUE_TYPE) or "classic",
    )

    def then(result: Result) -> Decision:
        if result.error is not None:
            return result.error
        vhost = metadata.state.vhosts.get(context.vhost)
        winner = vhost.queues.get(name) if vhost is not None else None
        if winner is not None and result.value != {"created": True, "group": winner.group}:
            return _counted(winner, method)
        return None if method.nowait else QueueDeclareOk(name, 0, 0)

    if transient:
        return Commit(commands.declare_queue(queue), then)
    nodes = context.live_nodes()
    size = group_size(arguments.get("x-quorum-initial-group-size"), len(nodes))
    return Commit(commands.declare_queue(queue, size, nodes, context.node), then)


def _prefix(arguments: Arguments) -> str:
    prefix = clean(string_argument(arguments, NAME_PREFIX) or "") or SERVER_PREFIX
    if len(prefix.encode("utf-8", "surrogateescape")) > 64:
        raise errors.precondition_failed(f"Queue name prefix '{prefix}' exceeds the 64-byte limit")
    return prefix


def _declare_passive(metadata: Metadata, context: Context, method: QueueDeclare) -> Decision:
    name = clean(method.queue)
    metadata.authorizer(context.user, context.vhost).any(Kind.QUEUE, name)
    queue = metadata.state.queue(context.vhost, name)
    check_access(queue, context.connection)
    return _counted(queue, method)


def _counted(queue: QueueInfo, method: QueueDeclare) -> Decision:
    if method.nowait:
        return None
    return AskQueue(
        queue, "count", lambda messages, consumers: QueueDeclareOk(queue.name, messages, consumers)
    )


def delete(metadata: Metadata, context: Context, method: QueueDelete) -> Decision:
    """queue.delete; one that is not there counts as deleted."""
    name = queue_name(context, method.queue)
    metadata.authorizer(context.user, context.vhost).configure(Kind.QUEUE, name)
    queue = metadata.state.vhost(context.vhost).queues.get(name)
    if queue is None:
        return None if method.nowait else QueueDeleteOk(0)
    check_access(queue, context.connection)
    command = commands.delete_queue(queue.vhost, queue.name, queue.group)

    def counted(messages: int, consumers: int) -> Decision:
        if method.if_unused and consumers:
            return errors.in_use(Kind.QUEUE, name, context.vhost)
        if method.if_empty and messages:
            return errors.not_empty(name, context.vhost)
        reply = None if method.nowait else QueueDeleteOk(messages)
        return Commit(command, lambda result: result.error if result.error is not None else reply)

    return AskQueue(queue, "count", counted, required=method.if_unused or method.if_empty)


def purge(metadata: Metadata, context: Context, method: QueuePurge) -> Decision:
    """queue.purge: drop what is ready, and say how much that was."""
    queue = usable_queue(metadata, context, queue_name(context, method.queue))
    return AskQueue(
        queue, "purge", lambda messages, consumers: None if method.nowait else QueuePurgeOk(messages)
    )
