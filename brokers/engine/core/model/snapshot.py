"""The metadata's snapshot: the whole state as compact JSON.

Nothing is sorted: everything stands in the order in which it came, which is replicated like all else, and
is restored in that order. So replicas that applied the same commands have equal snapshots.
"""

from __future__ import annotations

import json
from typing import Any

from brokers.engine.core.model.arguments import arguments_from_json, arguments_to_json
from brokers.engine.core.model.events import (
    Event,
    ExchangeCreated,
    ExchangeDeleted,
    NodeChanged,
    NodeRemoved,
    PermissionsChanged,
    PoliciesChanged,
    QueueChanged,
    QueueCreated,
    QueueDeleted,
    Reason,
    TopicPermissionsChanged,
    UserChanged,
    UserDeleted,
    VHostCreated,
    VHostDeleted,
)
from brokers.engine.core.model.policies import Policy
from brokers.engine.core.model.sessions import Sessions
from brokers.engine.core.model.state import State
from brokers.engine.core.model.topology import (
    Binding,
    Exchange,
    Kind,
    NodeInfo,
    Permission,
    QueueInfo,
    TopicPermission,
    User,
)
from brokers.engine.core.model.vhost import VHost

FORMAT = 1


def dump(state: State) -> bytes:
    """Write a state."""
    value = {
        "format": FORMAT,
        "cluster": state.cluster,
        "next_group": state.next_group,
        "next_node": state.next_node,
        "vhosts": [_dump_vhost(vhost) for vhost in state.vhosts.values()],
        "users": [[user.name, user.password_hash, list(user.tags)] for user in state.users.values()],
        "permissions": [
            [user, vhost, granted.configure, granted.write, granted.read]
            for user, vhosts in state.permissions.items()
            for vhost, granted in vhosts.items()
        ],
        "topic_permissions": [
            [user, vhost, exchange, granted.write, granted.read]
            for user, vhosts in state.topic_permissions.items()
            for vhost, exchanges in vhosts.items()
            for exchange, granted in exchanges.items()
        ],
        "nodes": [[node.id, node.name, dict(node.addresses), node.boot] for node in state.nodes.values()],
        "sessions": state.sessions.to_json(),
        "closed_connections": list(state.closed_connections),
    }
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _dump_vhost(vhost: VHost) -> dict[str, object]:
    return {
        "name": vhost.name,
        "description": vhost.description,
        "tags": list(vhost.tags),
        "limits": vhost.limits,
        "policies": _dump_policies(vhost.policies),
        "operator_policies": _dump_policies(vhost.operator_policies),
        "exchanges": [
            [
                exchange.name,
                exchange.type,
                exchange.durable,
                exchange.auto_delete,
                exchange.internal,
                arguments_to_json(exchange.arguments),
            ]
            for exchange in vhost.exchanges.values()
        ],
        "queues": [
            [
                queue.name,
                queue.durable,
                queue.auto_delete,
                queue.exclusive,
                arguments_to_json(queue.arguments),
                queue.group,
                list(queue.replicas),
                queue.home,
                queue.type,
            ]
            for queue in (*vhost.queues.values(), *vhost.delays.values())
        ],
        "bindings": [
            [
                binding.source,
                binding.kind.value,
                binding.destination,
                binding.routing_key,
                arguments_to_json(binding.arguments),
            ]
            for binding in vhost.bindings
        ],
    }


def _dump_policies(policies: dict[str, Policy]) -> list[object]:
    return [
        [p.name, p.pattern, p.apply_to, p.priority, arguments_to_json(p.definition)]
        for p in policies.values()
    ]


def _load_policies(value: list[list[Any]]) -> dict[str, Policy]:
    return {
        name: Policy(name, pattern, apply_to, priority, arguments_from_json(definition))
        for name, pattern, apply_to, priority, definition in value
    }


def load(data: bytes) -> State:
    """Read a state. Raises ``ValueError`` when ``data`` is no snapshot, or one of a newer format."""
    value = json.loads(data)
    if not isinstance(value, dict) or "format" not in value:
        raise ValueError("not a snapshot of the metadata")
    if value["format"] != FORMAT:
        raise ValueError(f"metadata snapshot of format {value['format']}; this program reads format {FORMAT}")
    try:
        return _load(value)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"damaged metadata snapshot: {error!r}") from error


def _load(value: dict[str, Any]) -> State:
    state = State()
    state.cluster = value["cluster"]
    state.next_group = value["next_group"]
    state.next_node = value["next_node"]
    for item in value["vhosts"]:
        _load_vhost(state, item)
    state.users = {name: User(name, hash_, tuple(tags)) for name, hash_, tags in value["users"]}
    for user, vhost, configure, write, read in value["permissions"]:
        state.permissions.setdefault(user, {})[vhost] = Permission(configure, write, read)
    for user, vhost, exchange, write, read in value.get("topic_permissions", ()):
        of_user = state.topic_permissions.setdefault(user, {})
        of_user.setdefault(vhost, {})[exchange] = TopicPermission(write, read)
    state.nodes = {id_: NodeInfo(id_, name, where, boot) for id_, name, where, boot in value["nodes"]}
    state.sessions = Sessions.from_json(value["sessions"])
    state.closed_connections = dict.fromkeys(value["closed_connections"])
    return state


def _load_vhost(state: State, value: dict[str, Any]) -> None:
    vhost = VHost(value["name"], value["description"], value["tags"])
    state.vhosts[vhost.name] = vhost
    vhost.limits = dict(value.get("limits", {}))
    vhost.policies = _load_policies(value.get("policies", []))
    vhost.operator_policies = _load_policies(value.get("operator_policies", []))
    for name, type_, durable, auto_delete, internal, arguments in value["exchanges"]:
        vhost.add_exchange(
            Exchange(vhost.name, name, type_, durable, auto_delete, internal, arguments_from_json(arguments))
        )
    for name, durable, auto_delete, exclusive, arguments, group, replicas, home, type_ in value["queues"]:
        state.add_queue(
            QueueInfo(
                vhost.name,
                name,
                durable,
                auto_delete,
                exclusive,
                arguments_from_json(arguments),
                group,
                tuple(replicas),
                home,
                type_,
            )
        )
    for source, kind, destination, routing_key, arguments in value["bindings"]:
        vhost.bind(
            Binding(vhost.name, source, Kind(kind), destination, routing_key, arguments_from_json(arguments))
        )


def difference(before: State, after: State) -> list[Event]:
    """What a node that knew ``before`` has to do to follow ``after``, as if it had seen the changes.

    Why a queue is gone is not known any more; ``Reason.DELETED`` is said. Bindings are not listed.
    """
    events: list[Event] = [VHostDeleted(name) for name in before.vhosts if name not in after.vhosts]
    events += [VHostCreated(name) for name in after.vhosts if name not in before.vhosts]
    events += _queue_differences(before, after)
    events += _exchange_differences(before, after)
    events += [UserDeleted(name) for name in before.users if name not in after.users]
    for name, user in after.users.items():
        known = before.users.get(name)
        if known != user:
            same = known is not None and known.password_hash == user.password_hash
            events.append(UserChanged(name, password=not same))
    events += [PoliciesChanged(v.name) for v in after.vhosts.values() if _policies_differ(before, v)]
    if before.topic_permissions != after.topic_permissions:
        users = before.topic_permissions.keys() | after.topic_permissions.keys()
        events += [TopicPermissionsChanged(user, name) for user in sorted(users) for name in after.vhosts]
    old, new = _permissions(before), _permissions(after)
    events += [PermissionsChanged(*key) for key in {**old, **new} if old.get(key) != new.get(key)]
    events += [NodeRemoved(node) for id_, node in before.nodes.items() if id_ not in after.nodes]
    events += [NodeChanged(node) for id_, node in after.nodes.items() if before.nodes.get(id_) != node]
    return events


def _policies_differ(before: State, vhost: VHost) -> bool:
    old = before.vhosts.get(vhost.name)
    if old is None:
        return bool(vhost.policies or vhost.operator_policies)
    return (old.policies, old.operator_policies) != (vhost.policies, vhost.operator_policies)


def _queue_differences(before: State, after: State) -> list[Event]:
    events: list[Event] = []
    for group, queue in before.by_group.items():
        now = after.by_group.get(group)
        if now is None:
            events.append(QueueDeleted(queue, Reason.DELETED))
        elif now != queue:
            events.append(QueueChanged(queue, now))
    events += [QueueCreated(queue) for group, queue in after.by_group.items() if group not in before.by_group]
    return events


def _exchange_differences(before: State, after: State) -> list[Event]:
    old, new = _exchanges(before), _exchanges(after)
    events: list[Event] = [ExchangeDeleted(old[key]) for key in old if new.get(key) != old[key]]
    return events + [ExchangeCreated(new[key]) for key in new if old.get(key) != new[key]]


def _exchanges(state: State) -> dict[tuple[str, str], Exchange]:
    return {
        (vhost.name, exchange.name): exchange
        for vhost in state.vhosts.values()
        for exchange in vhost.exchanges.values()
    }


def _permissions(state: State) -> dict[tuple[str, str], Permission]:
    return {
        (user, vhost): granted
        for user, vhosts in state.permissions.items()
        for vhost, granted in vhosts.items()
    }
