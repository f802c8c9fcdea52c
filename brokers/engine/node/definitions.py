"""A cluster's definitions in the layout of RabbitMQ's: all that is declared and set, without messages.

Only what lasts is exported: durable queues and exchanges and what binds them. Password hashes are of the
form that ``passwords.py`` makes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from brokers.engine.control import protocol
from brokers.engine.control.protocol import ControlError
from brokers.engine.core.model.arguments import arguments_to_json
from brokers.engine.core.model.policies import Policy
from brokers.engine.core.model.state import State
from brokers.engine.core.model.topology import DEFAULT_EXCHANGE, PREDECLARED_EXCHANGES, Binding, Kind
from brokers.engine.core.model.vhost import VHost

Row = dict[str, Any]
Method = Callable[[dict[str, Any]], Awaitable[object]]

CALLS: Mapping[str, str] = {
    "vhosts": "set_vhost",
    "vhost_limits": "set_vhost_limits",
    "users": "set_user",
    "permissions": "set_permissions",
    "topic_permissions": "set_topic_permissions",
    "policies": "set_policy",
    "operator_policies": "set_operator_policy",
    "exchanges": "declare_exchange",
    "queues": "declare_queue",
    "bindings": "bind",
}
"""Section -> the call that makes one of its items, in the order in which they depend on each other."""


def export(state: State) -> dict[str, list[Row]]:
    """The definitions of a cluster."""
    sections: dict[str, list[Row]] = {name: [] for name in CALLS}
    for vhost in state.vhosts.values():
        sections["vhosts"].append(
            {"name": vhost.name, "description": vhost.description, "tags": list(vhost.tags)}
        )
        if vhost.limits:
            sections["vhost_limits"].append({"vhost": vhost.name, "limits": dict(vhost.limits)})
        sections["policies"] += [_policy(vhost, policy) for policy in vhost.policies.values()]
        sections["operator_policies"] += [_policy(vhost, p) for p in vhost.operator_policies.values()]
        sections["exchanges"] += _exchanges(vhost)
        sections["queues"] += _queues(vhost)
        sections["bindings"] += [_binding(b) for b in vhost.bindings if _lasts(vhost, b)]
    sections["users"] = [
        {"name": user.name, "password_hash": user.password_hash, "tags": list(user.tags)}
        for user in state.users.values()
    ]
    sections["permissions"] = [
        {"user": user, "vhost": vhost, "configure": p.configure, "write": p.write, "read": p.read}
        for user, vhosts in state.permissions.items()
        for vhost, p in vhosts.items()
    ]
    sections["topic_permissions"] = [
        {"user": user, "vhost": vhost, "exchange": exchange, "write": p.write, "read": p.read}
        for user, vhosts in state.topic_permissions.items()
        for vhost, exchanges in vhosts.items()
        for exchange, p in exchanges.items()
    ]
    return sections


async def import_definitions(
    state: State, methods: Mapping[str, Method], definitions: Mapping[str, Any]
) -> dict[str, Any]:
    """Make what is not there yet; what is there stays as it is.

    Gives ``made`` and ``kept``, counts by section, and ``conflicts``: what is there, and is different.
    """
    made = dict.fromkeys(CALLS, 0)
    kept = dict.fromkeys(CALLS, 0)
    conflicts: list[str] = []
    for section, call in CALLS.items():
        rows = definitions.get(section, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ControlError(protocol.BAD_PARAMS, f"definitions: {section!r} must be a list of objects")
        known = {_identity(section, row) for row in export(state)[section]}
        for row in rows:
            if _identity(section, row) in known:
                kept[section] += 1
                continue
            try:
                await methods[call](dict(row))
            except ControlError as error:
                if error.code not in (protocol.CONFLICT, protocol.NOT_FOUND):
                    raise
                conflicts.append(f"{section}: {error.text}")
            else:
                made[section] += 1
    return {"made": made, "kept": kept, "conflicts": conflicts}


def _identity(section: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    if section == "bindings":
        return tuple(
            repr(row.get(key))
            for key in ("vhost", "source", "kind", "destination", "routing_key", "arguments")
        )
    return tuple(repr(row.get(key)) for key in ("vhost", "user", "exchange", "name"))


def _policy(vhost: VHost, policy: Policy) -> Row:
    return {
        "vhost": vhost.name,
        "name": policy.name,
        "pattern": policy.pattern,
        "apply_to": policy.apply_to,
        "priority": policy.priority,
        "definition": arguments_to_json(policy.definition),
    }


def _exchanges(vhost: VHost) -> list[Row]:
    return [
        {
            "vhost": vhost.name,
            "name": exchange.name,
            "type": exchange.type,
            "durable": True,
            "auto_delete": exchange.auto_delete,
            "internal": exchange.internal,
            "arguments": arguments_to_json(exchange.arguments),
        }
        for exchange in vhost.exchanges.values()
        if exchange.durable and exchange.name not in PREDECLARED_EXCHANGES
    ]


def _queues(vhost: VHost) -> list[Row]:
    return [
        {
            "vhost": vhost.name,
            "name": queue.name,
            "durable": True,
            "auto_delete": False,
            "arguments": arguments_to_json(queue.arguments),
        }
        for queue in vhost.queues.values()
        if queue.home is None
    ]


def _binding(binding: Binding) -> Row:
    return {
        "vhost": binding.vhost,
        "source": binding.source,
        "kind": binding.kind.value,
        "destination": binding.destination,
        "routing_key": binding.routing_key,
        "arguments": arguments_to_json(binding.arguments),
    }


def _lasts(vhost: VHost, binding: Binding) -> bool:
    """Whether both ends of a binding are there after a restart."""
    source = vhost.exchanges.get(binding.source)
    if source is None or not source.durable or binding.source == DEFAULT_EXCHANGE:
        return False
    if binding.kind is Kind.QUEUE:
        queue = vhost.queues.get(binding.destination)
        return queue is not None and queue.home is None
    exchange = vhost.exchanges.get(binding.destination)
    return exchange is not None and exchange.durable
