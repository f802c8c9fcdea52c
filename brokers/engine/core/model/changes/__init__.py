"""What each metadata command changes, by its ``op``.

A change checks everything first and touches the state only then, so that a refused command leaves no
trace. It raises ``AmqpError`` to refuse, and returns its value (JSON) and what happened.

A change checks only what every version of this program, and of Python, judges alike: what exists, and who
owns it. Whether a type of exchange is known, or a regular expression or password hash well-formed, is for
the node that makes the command to say; nodes of two versions that disagreed about it here would differ for
ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from brokers.engine.core.model.changes import cluster, exchanges, people, policies, queues
from brokers.engine.core.model.commands import Command
from brokers.engine.core.model.events import Event
from brokers.engine.core.model.state import State

Change = Callable[[State, Command], tuple[object, list[Event]]]

CHANGES: Mapping[str, Change] = {
    "bootstrap": cluster.bootstrap,
    "add_node": cluster.add_node,
    "remove_node": cluster.remove_node,
    "node_started": cluster.node_started,
    "node_gone": cluster.node_gone,
    "node_lost": cluster.node_lost,
    "set_vhost": people.set_vhost,
    "delete_vhost": people.delete_vhost,
    "set_user": people.set_user,
    "delete_user": people.delete_user,
    "set_permissions": people.set_permissions,
    "clear_permissions": people.clear_permissions,
    "set_topic_permissions": people.set_topic_permissions,
    "clear_topic_permissions": people.clear_topic_permissions,
    "set_policy": policies.set_policy,
    "delete_policy": policies.delete_policy,
    "set_vhost_limits": policies.set_vhost_limits,
    "declare_exchange": exchanges.declare_exchange,
    "delete_exchange": exchanges.delete_exchange,
    "bind": exchanges.bind,
    "unbind": exchanges.unbind,
    "declare_queue": queues.declare_queue,
    "delete_queue": queues.delete_queue,
    "delete_queues_of_connection": queues.delete_queues_of_connection,
    "set_replicas": queues.set_replicas,
}
