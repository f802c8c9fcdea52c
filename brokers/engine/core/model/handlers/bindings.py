"""queue.bind, queue.unbind, exchange.bind and exchange.unbind."""

from __future__ import annotations

from brokers.engine.core.amqp import errors
from brokers.engine.core.amqp.methods import (
    ExchangeBind,
    ExchangeBindOk,
    ExchangeUnbind,
    ExchangeUnbindOk,
    QueueBind,
    QueueBindOk,
    QueueUnbind,
    QueueUnbindOk,
)
from brokers.engine.core.model import commands
from brokers.engine.core.model.arguments import type_name
from brokers.engine.core.model.authorize import check_not_default_exchange, check_topic
from brokers.engine.core.model.delayed import DELAYED_MESSAGE, DELAYED_TYPE
from brokers.engine.core.model.equivalence import check_access
from brokers.engine.core.model.handlers.decision import Commit, Context, Decision, after
from brokers.engine.core.model.handlers.names import clean, queue_name
from brokers.engine.core.model.hashing import CONSISTENT_HASH, check_weight
from brokers.engine.core.model.metadata import Metadata
from brokers.engine.core.model.tables import X_MATCH, X_MATCH_MODES
from brokers.engine.core.model.topology import Binding, Exchange, Kind


def bind_queue(metadata: Metadata, context: Context, method: QueueBind) -> Decision:
    """queue.bind. Without a queue's name it is the last declared one, and without a key as well, its name
    is the key."""
    return _bind(metadata, context, _queue_binding(context, method), None if method.nowait else QueueBindOk())


def unbind_queue(metadata: Metadata, context: Context, method: QueueUnbind) -> Decision:
    """queue.unbind; a binding that is not there counts as removed."""
    return _unbind(metadata, context, _queue_binding(context, method), QueueUnbindOk())


def bind_exchange(metadata: Metadata, context: Context, method: ExchangeBind) -> Decision:
    """exchange.bind (RabbitMQ's extension): from one exchange to another."""
    reply = None if method.nowait else ExchangeBindOk()
    return _bind(metadata, context, _exchange_binding(context, method), reply)


def unbind_exchange(metadata: Metadata, context: Context, method: ExchangeUnbind) -> Decision:
    """exchange.unbind; a binding that is not there counts as removed."""
    reply = None if method.nowait else ExchangeUnbindOk()
    return _unbind(metadata, context, _exchange_binding(context, method), reply)


def _queue_binding(context: Context, method: QueueBind | QueueUnbind) -> Binding:
    queue = queue_name(context, method.queue)
    key = method.routing_key
    if not method.queue and not key:
        key = queue
    return Binding(context.vhost, clean(method.exchange), Kind.QUEUE, queue, key, method.arguments)


def _exchange_binding(context: Context, method: ExchangeBind | ExchangeUnbind) -> Binding:
    return Binding(
        context.vhost,
        clean(method.source),
        Kind.EXCHANGE,
        clean(method.destination),
        method.routing_key,
        method.arguments,
    )


Reply = QueueBindOk | QueueUnbindOk | ExchangeBindOk | ExchangeUnbindOk | None


def _authorize(metadata: Metadata, context: Context, binding: Binding) -> None:
    allowed = metadata.authorizer(context.user, context.vhost)
    allowed.write(binding.kind, binding.destination)
    if binding.kind is Kind.EXCHANGE:
        check_not_default_exchange(binding.destination)
    check_not_default_exchange(binding.source)
    allowed.read(Kind.EXCHANGE, binding.source)


def _authorize_topic(metadata: Metadata, context: Context, source: Exchange, binding: Binding) -> None:
    if source.type == "topic" and context.user is not None:
        topics, key = metadata.state.topic_permissions, binding.routing_key
        check_topic(topics, context.user, context.vhost, source.name, key, write=False)


def _bind(metadata: Metadata, context: Context, binding: Binding, reply: Reply) -> Decision:
    _authorize(metadata, context, binding)
    source = metadata.state.exchange(context.vhost, binding.source)
    _authorize_topic(metadata, context, source, binding)
    if binding.kind is Kind.QUEUE:
        check_access(metadata.state.queue(context.vhost, binding.destination), context.connection)
    else:
        metadata.state.exchange(context.vhost, binding.destination)
    _validate(source, binding)
    if metadata.state.vhosts[context.vhost].has_binding(binding.key):
        return reply
    return Commit(commands.bind(binding, context.connection), after(reply))


def _unbind(metadata: Metadata, context: Context, binding: Binding, reply: Reply) -> Decision:
    _authorize(metadata, context, binding)
    vhost = metadata.state.vhost(context.vhost)
    if not vhost.has_binding(binding.key):
        return reply
    if binding.kind is Kind.QUEUE:
        check_access(vhost.queues[binding.destination], context.connection)
    return Commit(commands.unbind(binding, context.connection), after(reply))


def _validate(source: Exchange, binding: Binding) -> None:
    type_ = source.type
    if type_ == DELAYED_MESSAGE:
        type_ = str(source.arguments.get(DELAYED_TYPE))
    if type_ == CONSISTENT_HASH:
        check_weight(binding.routing_key)
    if type_ != "headers" or X_MATCH not in binding.arguments:
        return
    mode = binding.arguments[X_MATCH]
    if not isinstance(mode, str):
        raise errors.precondition_failed(
            f"Invalid x-match field type {type_name(mode)} (value {mode}); expected longstr"
        )
    if mode not in X_MATCH_MODES:
        raise errors.precondition_failed(
            f"Invalid x-match field value '{mode}'; expected all, any, all-with-x, or any-with-x"
        )
