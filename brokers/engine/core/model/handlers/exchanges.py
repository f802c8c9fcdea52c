"""exchange.declare and exchange.delete."""

from __future__ import annotations

from brokers.engine.core.amqp import errors
from brokers.engine.core.amqp.methods import (
    ExchangeDeclare,
    ExchangeDeclareOk,
    ExchangeDelete,
    ExchangeDeleteOk,
)
from brokers.engine.core.model import commands
from brokers.engine.core.model.authorize import check_not_default_exchange, check_not_reserved
from brokers.engine.core.model.delayed import DELAYED_MESSAGE, check_delayed_arguments
from brokers.engine.core.model.equivalence import check_exchange_equivalent, check_string
from brokers.engine.core.model.handlers.decision import Commit, Context, Decision, after
from brokers.engine.core.model.handlers.names import clean
from brokers.engine.core.model.hashing import CONSISTENT_HASH, check_hash_arguments
from brokers.engine.core.model.metadata import Metadata
from brokers.engine.core.model.placement import group_size
from brokers.engine.core.model.routing import ALTERNATE_EXCHANGE
from brokers.engine.core.model.tables import TABLES
from brokers.engine.core.model.topology import RESERVED_PREFIX, Exchange, Kind, resource


def declare(metadata: Metadata, context: Context, method: ExchangeDeclare) -> Decision:
    """exchange.declare. A passive one needs the exchange and any permission on it, and nothing else."""
    name = clean(method.exchange)
    allowed = metadata.authorizer(context.user, context.vhost)
    reply = None if method.nowait else ExchangeDeclareOk()
    if method.passive:
        check_not_default_exchange(name)
        allowed.any(Kind.EXCHANGE, name)
        metadata.state.exchange(context.vhost, name)
        return reply

    if method.type not in TABLES:
        raise errors.unknown_exchange_type(method.type)
    check_not_default_exchange(name)
    allowed.configure(Kind.EXCHANGE, name)
    existing = metadata.state.vhost(context.vhost).exchanges.get(name)
    if existing is not None:
        check_exchange_equivalent(
            existing, method.type, method.durable, method.auto_delete, method.internal, method.arguments
        )
        return reply
    check_not_reserved(Kind.EXCHANGE, name)
    alternate = check_string(Kind.EXCHANGE, name, context.vhost, method.arguments, ALTERNATE_EXCHANGE)
    if alternate is not None:
        allowed.read(Kind.EXCHANGE, name)
        allowed.write(Kind.EXCHANGE, alternate)
    exchange = Exchange(
        context.vhost,
        name,
        method.type,
        method.durable,
        method.auto_delete,
        method.internal,
        method.arguments,
    )
    if method.type == CONSISTENT_HASH:
        check_hash_arguments(method.arguments)
    if method.type == DELAYED_MESSAGE:
        check_delayed_arguments(method.arguments, TABLES)
        nodes = context.live_nodes()
        command = commands.declare_exchange(exchange, group_size(None, len(nodes)), nodes, context.node)
        return Commit(command, after(reply))
    return Commit(commands.declare_exchange(exchange), after(reply))


def delete(metadata: Metadata, context: Context, method: ExchangeDelete) -> Decision:
    """exchange.delete; one that is not there counts as deleted."""
    name = clean(method.exchange)
    check_not_default_exchange(name)
    if name.startswith(RESERVED_PREFIX):
        named = resource(Kind.EXCHANGE, name, context.vhost)
        raise errors.access_refused(f"deletion of system {named} not allowed")
    metadata.authorizer(context.user, context.vhost).configure(Kind.EXCHANGE, name)
    reply = None if method.nowait else ExchangeDeleteOk()
    if name not in metadata.state.vhost(context.vhost).exchanges:
        return reply
    return Commit(commands.delete_exchange(context.vhost, name, method.if_unused), after(reply))
