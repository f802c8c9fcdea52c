"""The cluster itself: its beginning, and its nodes coming and going."""

from __future__ import annotations

from dataclasses import replace

from brokers.engine.core.amqp import errors
from brokers.engine.core.model.changes.fields import number, optional_number, text, text_mapping
from brokers.engine.core.model.changes.people import create_vhost
from brokers.engine.core.model.commands import Command
from brokers.engine.core.model.events import (
    Event,
    NodeChanged,
    NodeRemoved,
    PermissionsChanged,
    Reason,
    UserChanged,
)
from brokers.engine.core.model.state import State
from brokers.engine.core.model.topology import NodeInfo, Permission, User

DEFAULT_VHOST = "/"
MAX_NODE = 65535


def bootstrap(state: State, command: Command) -> tuple[object, list[Event]]:
    """Begin the cluster; again with the same cluster id changes nothing, with another is refused (406)."""
    cluster, user = text(command, "cluster"), text(command, "user")
    password_hash = text(command, "password_hash")
    nodes = command.get("nodes")
    if not cluster or not user or not isinstance(nodes, list):
        raise ValueError("a cluster begins with an id, a user and a list of nodes")
    if state.cluster:
        if state.cluster != cluster:
            raise errors.precondition_failed(f"this cluster is '{state.cluster}' already, not '{cluster}'")
        return {"created": False}, []
    infos = [_first_node(node) for node in nodes]
    if len({info.id for info in infos}) != len(infos):
        raise ValueError(f"two nodes of one id: {sorted(info.id for info in infos)}")

    state.cluster = cluster
    events = create_vhost(state, DEFAULT_VHOST)
    state.users[user] = User(user, password_hash, ("administrator",))
    state.permissions[user] = {DEFAULT_VHOST: Permission(".*", ".*", ".*")}
    events += [UserChanged(user), PermissionsChanged(user, DEFAULT_VHOST)]
    for info in infos:
        events += _add(state, info)
    return {"created": True}, events


def _first_node(node: object) -> NodeInfo:
    match node:
        case [int(id_), str(name), dict(addresses)] if 1 <= id_ <= MAX_NODE:
            return NodeInfo(id_, name, {str(key): str(value) for key, value in addresses.items()})
    raise ValueError(f"node {node!r} must be [id in 1..{MAX_NODE}, name, addresses]")


def add_node(state: State, command: Command) -> tuple[object, list[Event]]:
    """A node joins under a new id, or a known one (by id) is reached elsewhere now."""
    name, addresses = text(command, "name"), text_mapping(command, "addresses")
    id_ = optional_number(command, "node")
    if id_ is None:
        id_ = state.next_node
    known = state.nodes.get(id_)
    if known is None and id_ < state.next_node:
        raise errors.precondition_failed(f"node {id_} was in the cluster before; ids are not used again")
    if id_ > MAX_NODE:
        raise errors.precondition_failed(f"node ids are used up to {MAX_NODE}")
    for node in state.nodes.values():
        if node.name == name and node.id != id_:
            raise errors.precondition_failed(
                f"node name '{name}' is taken by node {node.id}: remove that first"
            )
    info = NodeInfo(id_, name, addresses, known.boot if known is not None else 0)
    return id_, [] if info == known else _add(state, info)


def _add(state: State, node: NodeInfo) -> list[Event]:
    state.nodes[node.id] = node
    state.next_node = max(state.next_node, node.id + 1)
    return [NodeChanged(node)]


def remove_node(state: State, command: Command) -> tuple[object, list[Event]]:
    """A node leaves for good; refused (406) while queues have replicas on it."""
    node = _node(state, command)
    hosted = [queue for queue in state.queues() if node.id in queue.replicas]
    if hosted:
        raise errors.precondition_failed(
            f"node {node.id} still has replicas of {len(hosted)} queues: move them first"
        )
    events = _process_over(state, node)
    del state.nodes[node.id]
    return None, [*events, NodeRemoved(node)]


def node_started(state: State, command: Command) -> tuple[object, list[Event]]:
    """A node runs a new process: what the one before kept in memory is gone."""
    node, boot = _node(state, command), number(command, "boot")
    if node.boot == boot:
        return None, []
    events = _process_over(state, node)
    state.nodes[node.id] = replace(node, boot=boot)
    return None, [*events, NodeChanged(state.nodes[node.id])]


def node_lost(state: State, command: Command) -> tuple[object, list[Event]]:
    """A node's process is out of reach, and may come back: only its transient queues go. Nothing happens if
    another one runs by now."""
    node = _node(state, command)
    if node.boot != number(command, "boot"):
        return None, []
    return None, state.remove_queues(state.queues_at(node.id), Reason.NODE_GONE)


def node_gone(state: State, command: Command) -> tuple[object, list[Event]]:
    """A node's process is over. Nothing happens if it runs another one by now."""
    node = _node(state, command)
    if node.boot != number(command, "boot"):
        return None, []
    return None, _process_over(state, node)


def _process_over(state: State, node: NodeInfo) -> list[Event]:
    events = state.remove_queues(state.queues_at(node.id), Reason.NODE_GONE)
    if node.boot:
        state.sessions.end(node.boot)
    return events


def _node(state: State, command: Command) -> NodeInfo:
    id_ = number(command, "node")
    node = state.nodes.get(id_)
    if node is None:
        raise errors.not_found(f"no node {id_} in the cluster")
    return node
