"""The commands of the metadata group: how they are made and how they are written.

A command is a JSON object; ``op`` says what to do and ``id`` who asked (see ``sessions.py``). These
functions make commands without an id; the node that sends one stamps it. What a command means stands with
the function in ``changes/`` that applies it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping

from brokers.engine.core.model.arguments import arguments_to_json
from brokers.engine.core.model.authorize import check_pattern
from brokers.engine.core.model.events import Reason
from brokers.engine.core.model.passwords import parse
from brokers.engine.core.model.policies import Policy
from brokers.engine.core.model.policy_checks import check_limits, check_policy
from brokers.engine.core.model.topology import Binding, Exchange, NodeInfo, QueueInfo

Command = dict[str, object]


def encode_command(command: Command) -> bytes:
    """The payload of a log entry. Raises ``TypeError`` for what is not JSON."""
    return json.dumps(command, separators=(",", ":")).encode("ascii")


def decode_command(payload: bytes) -> Command:
    """Read what ``encode_command`` wrote. Raises ``ValueError`` for anything else."""
    command = json.loads(payload)
    if not isinstance(command, dict) or not isinstance(command.get("op"), str):
        raise ValueError(f"not a metadata command: {payload[:100]!r}")
    return command


def stamp(command: Command, boot: int, serial: int, low: int = 0) -> Command:
    """The command with its id: it is applied once per (boot, serial).

    ``low`` is the lowest serial whose answer the sender still waits for; older answers are forgotten.
    """
    return {**command, "id": [boot, serial], "low": low}


# The cluster


def bootstrap(cluster: str, user: str, password_hash: str, nodes: Iterable[NodeInfo] = ()) -> Command:
    """The first command of a cluster: vhost ``/`` with one administrator and the nodes it begins with.

    Raises ``ValueError`` for a malformed password hash.
    """
    parse(password_hash)
    return {
        "op": "bootstrap",
        "cluster": cluster,
        "user": user,
        "password_hash": password_hash,
        "nodes": [[node.id, node.name, dict(node.addresses)] for node in nodes],
    }


def add_node(name: str, addresses: Mapping[str, str], node: int | None = None) -> Command:
    """A node joins; the value of the result is its id, the next free one unless ``node`` is given."""
    return {"op": "add_node", "name": name, "addresses": dict(addresses), "node": node}


def remove_node(node: int) -> Command:
    return {"op": "remove_node", "node": node}


def node_started(node: int, boot: int) -> Command:
    """The node's process is a new one: the transient queues of the one before are gone."""
    return {"op": "node_started", "node": node, "boot": boot}


def node_lost(node: int, boot: int) -> Command:
    """The node's process ``boot`` is out of reach, running or not: its transient queues count as gone, as
    clients elsewhere have no use for names that nobody serves."""
    return {"op": "node_lost", "node": node, "boot": boot}


def node_gone(node: int, boot: int) -> Command:
    """The node's process ``boot`` is known to be over (and no newer one has started): its transient queues
    are gone."""
    return {"op": "node_gone", "node": node, "boot": boot}


# Vhosts and people


def set_vhost(name: str, description: str = "", tags: Iterable[str] = ()) -> Command:
    return {"op": "set_vhost", "vhost": name, "description": description, "tags": list(tags)}


def delete_vhost(name: str) -> Command:
    return {"op": "delete_vhost", "vhost": name}


def set_user(name: str, password_hash: str | None = None, tags: Iterable[str] | None = None) -> Command:
    """Create or change a user; None leaves what a user has, and means none for a new one.

    An empty ``password_hash`` takes the password away. Raises ``ValueError`` for a malformed one.
    """
    if password_hash:
        parse(password_hash)
    return {
        "op": "set_user",
        "user": name,
        "password_hash": password_hash,
        "tags": None if tags is None else list(tags),
    }


def delete_user(name: str) -> Command:
    return {"op": "delete_user", "user": name}


def set_permissions(user: str, vhost: str, configure: str, write: str, read: str) -> Command:
    """What a user may do in a vhost. Raises ``AmqpError`` 406 for a malformed regular expression."""
    for pattern in (configure, write, read):
        check_pattern(pattern)
    return {
        "op": "set_permissions",
        "user": user,
        "vhost": vhost,
        "configure": configure,
        "write": write,
        "read": read,
    }


def clear_permissions(user: str, vhost: str) -> Command:
    return {"op": "clear_permissions", "user": user, "vhost": vhost}


def set_topic_permissions(user: str, vhost: str, exchange: str, write: str, read: str) -> Command:
    """Which routing keys a user may use at a topic exchange. Raises ``AmqpError`` 406 for a malformed regular
    expression."""
    for pattern in (write, read):
        check_pattern(pattern)
    return {
        "op": "set_topic_permissions",
        "user": user,
        "vhost": vhost,
        "exchange": exchange,
        "write": write,
        "read": read,
    }


def clear_topic_permissions(user: str, vhost: str, exchange: str | None = None) -> Command:
    """Those of one exchange, or all of the vhost."""
    return {"op": "clear_topic_permissions", "user": user, "vhost": vhost, "exchange": exchange}


def set_vhost_limits(vhost: str, limits: Mapping[str, int]) -> Command:
    """All limits of a vhost; those not named end. Raises ``AmqpError`` 406 for unknown ones."""
    check_limits(dict(limits))
    return {"op": "set_vhost_limits", "vhost": vhost, "limits": dict(limits)}


def set_policy(vhost: str, policy: Policy, operator: bool = False) -> Command:
    """Create or replace a policy, or an operator policy. Raises ``AmqpError`` 406 when it makes no sense."""
    check_policy(policy, operator)
    return {
        "op": "set_policy",
        "vhost": vhost,
        "name": policy.name,
        "operator": operator,
        "pattern": policy.pattern,
        "apply_to": policy.apply_to,
        "priority": policy.priority,
        "definition": arguments_to_json(policy.definition),
    }


def delete_policy(vhost: str, name: str, operator: bool = False) -> Command:
    return {"op": "delete_policy", "vhost": vhost, "name": name, "operator": operator}


# Exchanges and bindings


def declare_exchange(
    exchange: Exchange, size: int = 0, nodes: Collection[int] = (), local: int = 0
) -> Command:
    """The value of the result is ``{"created": bool}``. ``size``, ``nodes`` and ``local`` are for what waits
    in a delayed exchange, see ``declare_queue``."""
    return {
        "op": "declare_exchange",
        "vhost": exchange.vhost,
        "name": exchange.name,
        "type": exchange.type,
        "durable": exchange.durable,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "arguments": arguments_to_json(exchange.arguments),
        "place": {"size": size, "nodes": sorted(nodes), "local": local},
    }


def delete_exchange(vhost: str, name: str, if_unused: bool = False) -> Command:
    return {"op": "delete_exchange", "vhost": vhost, "name": name, "if_unused": if_unused}


def bind(binding: Binding, connection: str) -> Command:
    """``connection`` is whose wish it is; bindings of others' exclusive queues are refused."""
    return {"op": "bind", "connection": connection, **_binding(binding)}


def unbind(binding: Binding, connection: str) -> Command:
    """Removes the binding, if it is there."""
    return {"op": "unbind", "connection": connection, **_binding(binding)}


def _binding(binding: Binding) -> Command:
    return {
        "vhost": binding.vhost,
        "source": binding.source,
        "kind": binding.kind.value,
        "destination": binding.destination,
        "routing_key": binding.routing_key,
        "arguments": arguments_to_json(binding.arguments),
    }


# Queues


def declare_queue(queue: QueueInfo, size: int = 0, nodes: Collection[int] = (), local: int = 0) -> Command:
    """Declare ``queue`` (its group number is given out when the command is applied).

    A transient queue names its home. For a replicated one either its replicas are named, or ``size`` of
    ``nodes`` (those up now) are chosen when the command is applied, so that queues declared at the same
    time through different nodes are spread all the same; ``local`` is the client's node. The value of
    the result is ``{"created": bool, "group": int}``.
    """
    return {
        "op": "declare_queue",
        "vhost": queue.vhost,
        "name": queue.name,
        "durable": queue.durable,
        "auto_delete": queue.auto_delete,
        "exclusive": queue.exclusive,
        "arguments": arguments_to_json(queue.arguments),
        "type": queue.type,
        "home": queue.home,
        "replicas": list(queue.replicas),
        "place": {"size": size, "nodes": sorted(nodes), "local": local},
    }


def delete_queue(vhost: str, name: str, group: int | None = None, reason: Reason = Reason.DELETED) -> Command:
    """Delete a queue, with ``group`` only if it is still that one and not a later one of the same name.

    The value of the result is ``{"deleted": bool}``.
    """
    return {"op": "delete_queue", "vhost": vhost, "name": name, "group": group, "reason": reason.value}


def delete_queues_of_connection(connection: str) -> Command:
    """The connection is over, and its exclusive queues with it; later declarations of its are refused."""
    return {"op": "delete_queues_of_connection", "connection": connection}


def set_replicas(vhost: str, name: str, group: int, replicas: Iterable[int]) -> Command:
    """Where the queue's replicas are from now on, the preferred leader first."""
    return {"op": "set_replicas", "vhost": vhost, "name": name, "group": group, "replicas": list(replicas)}
