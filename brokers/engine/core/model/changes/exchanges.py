"""Exchanges and bindings: declared, deleted, bound, unbound."""

from __future__ import annotations

from brokers.engine.core.amqp import errors
from brokers.engine.core.model.arguments import arguments_from_json
from brokers.engine.core.model.changes.fields import flag, mapping, text
from brokers.engine.core.model.changes.queues import place_replicas
from brokers.engine.core.model.commands import Command
from brokers.engine.core.model.delayed import DELAYED_MESSAGE
from brokers.engine.core.model.equivalence import check_access, check_exchange_equivalent
from brokers.engine.core.model.events import BindingAdded, Event, ExchangeCreated
from brokers.engine.core.model.state import State
from brokers.engine.core.model.topology import DELAY_QUEUE, Binding, Exchange, Kind, QueueInfo


def declare_exchange(state: State, command: Command) -> tuple[object, list[Event]]:
    """Create the exchange unless it is there, in which case the declaration has to fit (406)."""
    exchange = Exchange(
        vhost=text(command, "vhost"),
        name=text(command, "name"),
        type=text(command, "type"),
        durable=flag(command, "durable"),
        auto_delete=flag(command, "auto_delete"),
        internal=flag(command, "internal"),
        arguments=arguments_from_json(command.get("arguments")),
    )
    vhost = state.vhost(exchange.vhost)
    existing = vhost.exchanges.get(exchange.name)
    if existing is not None:
        check_exchange_equivalent(
            existing,
            exchange.type,
            exchange.durable,
            exchange.auto_delete,
            exchange.internal,
            exchange.arguments,
        )
        return {"created": False}, []
    waiting: list[Event] = []
    if exchange.type == DELAYED_MESSAGE:
        replicas = place_replicas(state, mapping(command, "place"))
        waiting = state.add_queue(_delay_queue(state, exchange, replicas))
    vhost.add_exchange(exchange)
    return {"created": True}, [ExchangeCreated(exchange), *waiting]


def _delay_queue(state: State, exchange: Exchange, replicas: tuple[int, ...]) -> QueueInfo:
    group = state.next_group
    state.next_group += 1
    return QueueInfo(
        exchange.vhost,
        exchange.name,
        durable=True,
        auto_delete=False,
        exclusive=None,
        arguments={},
        group=group,
        replicas=replicas,
        type=DELAY_QUEUE,
    )


def delete_exchange(state: State, command: Command) -> tuple[object, list[Event]]:
    """Delete the exchange if it is there; 406 when only an unused one was meant and it has bindings."""
    vhost, name = state.vhost(text(command, "vhost")), text(command, "name")
    if_unused = flag(command, "if_unused")
    if name not in vhost.exchanges:
        return {"deleted": False}, []
    if if_unused and vhost.bindings_from(name):
        raise errors.in_use(Kind.EXCHANGE, name, vhost.name)
    return {"deleted": True}, state.gone(*vhost.remove_exchange(name))


def bind(state: State, command: Command) -> tuple[object, list[Event]]:
    """Add the binding unless it is there; 404 when an end is missing, 405 for others' exclusive queues."""
    binding = _binding(command)
    connection = text(command, "connection")
    state.exchange(binding.vhost, binding.source)
    if binding.kind is Kind.QUEUE:
        check_access(state.queue(binding.vhost, binding.destination), connection)
    else:
        state.exchange(binding.vhost, binding.destination)
    added = state.vhosts[binding.vhost].bind(binding)
    return None, [BindingAdded(binding)] if added else []


def unbind(state: State, command: Command) -> tuple[object, list[Event]]:
    """Remove the binding if it is there, and an auto-delete exchange that loses its last one by it."""
    binding = _binding(command)
    connection = text(command, "connection")
    vhost = state.vhost(binding.vhost)
    if not vhost.has_binding(binding.key):
        return None, []
    if binding.kind is Kind.QUEUE:
        check_access(vhost.queues[binding.destination], connection)
    return None, state.gone(*vhost.unbind(binding.key))


def _binding(command: Command) -> Binding:
    return Binding(
        vhost=text(command, "vhost"),
        source=text(command, "source"),
        kind=Kind(text(command, "kind")),
        destination=text(command, "destination"),
        routing_key=text(command, "routing_key"),
        arguments=arguments_from_json(command.get("arguments")),
    )
