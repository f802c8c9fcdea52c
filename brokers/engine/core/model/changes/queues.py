"""Queues: declared, deleted, moved."""

from __future__ import annotations

from dataclasses import replace

from brokers.engine.core.amqp import errors
from brokers.engine.core.model.arguments import arguments_from_json
from brokers.engine.core.model.changes.fields import (
    flag,
    mapping,
    number,
    numbers,
    optional_number,
    optional_text,
    text,
)
from brokers.engine.core.model.commands import Command
from brokers.engine.core.model.equivalence import check_queue_equivalent
from brokers.engine.core.model.events import Event, Reason
from brokers.engine.core.model.placement import place
from brokers.engine.core.model.policies import MAX_QUEUES
from brokers.engine.core.model.state import State
from brokers.engine.core.model.topology import Kind, QueueInfo, resource


def declare_queue(state: State, command: Command) -> tuple[object, list[Event]]:
    """Create the queue unless it is there, in which case the declaration has to fit (405, 406)."""
    wanted = QueueInfo(
        vhost=text(command, "vhost"),
        name=text(command, "name"),
        durable=flag(command, "durable"),
        auto_delete=flag(command, "auto_delete"),
        exclusive=optional_text(command, "exclusive"),
        arguments=arguments_from_json(command.get("arguments")),
        group=state.next_group,
        replicas=numbers(command, "replicas"),
        home=optional_number(command, "home"),
        type=text(command, "type"),
    )
    existing = state.vhost(wanted.vhost).queues.get(wanted.name)
    if existing is not None:
        check_queue_equivalent(
            existing, wanted.durable, wanted.auto_delete, wanted.exclusive, wanted.arguments
        )
        return {"created": False, "group": existing.group}, []
    limit = state.vhosts[wanted.vhost].limits.get(MAX_QUEUES, -1)
    if 0 <= limit <= len(state.vhosts[wanted.vhost].queues):
        raise errors.precondition_failed(
            f"cannot declare queue '{wanted.name}': "
            f"queue limit in vhost '{wanted.vhost}' ({limit}) is reached"
        )
    if wanted.exclusive in state.closed_connections:
        raise errors.queue_locked(wanted.name, wanted.vhost)
    if wanted.home is None and not wanted.replicas:
        wanted = replace(wanted, replicas=place_replicas(state, mapping(command, "place")))
    state.next_group += 1
    return {"created": True, "group": wanted.group}, state.add_queue(wanted)


def place_replicas(state: State, wish: Command) -> tuple[int, ...]:
    """The nodes for a new queue's replicas, as a command's ``place`` wishes; 406 when none can take one."""
    nodes = [node for node in numbers(wish, "nodes") if not state.nodes or node in state.nodes]
    if not nodes:
        raise errors.precondition_failed("no node of the cluster can take a replica of the queue now")
    return place(
        number(wish, "size"), nodes, state.replica_counts, state.leader_counts, number(wish, "local")
    )


def delete_queue(state: State, command: Command) -> tuple[object, list[Event]]:
    """Delete the queue if it is there and, where a group is named, still the one meant."""
    vhost, name = text(command, "vhost"), text(command, "name")
    group, reason = optional_number(command, "group"), Reason(text(command, "reason"))
    queue = state.vhost(vhost).queues.get(name)
    if queue is None or group not in (None, queue.group):
        return {"deleted": False}, []
    return {"deleted": True}, state.remove_queue(queue, reason)


def delete_queues_of_connection(state: State, command: Command) -> tuple[object, list[Event]]:
    return None, state.close_connection(text(command, "connection"))


def set_replicas(state: State, command: Command) -> tuple[object, list[Event]]:
    """Say where a replicated queue's members are; 406 for nodes that cannot be or a queue without any."""
    vhost, name, replicas = text(command, "vhost"), text(command, "name"), numbers(command, "replicas")
    # By its group: what waits in a delayed exchange has the name of that, and is no queue to others.
    queue = state.by_group.get(number(command, "group")) or state.queue(vhost, name)
    named = resource(Kind.QUEUE, name, vhost)
    if (queue.vhost, queue.name, queue.group) != (vhost, name, number(command, "group")):
        raise errors.precondition_failed(f"{named} was deleted and declared again meanwhile")
    if queue.home is not None:
        raise errors.precondition_failed(f"{named} is transient: it lives on node {queue.home} alone")
    if not replicas or len(set(replicas)) != len(replicas):
        raise errors.precondition_failed(f"replicas of {named} must be one or more different nodes")
    unknown = [node for node in replicas if node not in state.nodes]
    if unknown:
        raise errors.precondition_failed(f"node {unknown[0]} is not in the cluster")
    if queue.replicas == replicas:
        return None, []
    return None, state.replace_queue(queue, replace(queue, replicas=replicas))
