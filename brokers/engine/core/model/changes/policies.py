"""Policies and limits of vhosts."""

from __future__ import annotations

from brokers.engine.core.amqp import errors
from brokers.engine.core.model.arguments import arguments_from_json
from brokers.engine.core.model.changes.fields import flag, mapping, number, text
from brokers.engine.core.model.commands import Command
from brokers.engine.core.model.events import Event, PoliciesChanged, VHostChanged
from brokers.engine.core.model.policies import Policy
from brokers.engine.core.model.state import State


def set_policy(state: State, command: Command) -> tuple[object, list[Event]]:
    """Create or replace a policy; refused (530) without its vhost."""
    vhost = state.vhost(text(command, "vhost"))
    policy = Policy(
        text(command, "name"),
        text(command, "pattern"),
        text(command, "apply_to"),
        number(command, "priority"),
        arguments_from_json(command.get("definition")),
    )
    policies = vhost.operator_policies if flag(command, "operator") else vhost.policies
    if policies.get(policy.name) == policy:
        return None, []
    policies[policy.name] = policy
    return None, [PoliciesChanged(vhost.name)]


def delete_policy(state: State, command: Command) -> tuple[object, list[Event]]:
    """Delete a policy; 404 when there is none."""
    vhost, name = state.vhost(text(command, "vhost")), text(command, "name")
    policies = vhost.operator_policies if flag(command, "operator") else vhost.policies
    if policies.pop(name, None) is None:
        raise errors.not_found(f"no policy '{name}' in vhost '{vhost.name}'")
    return None, [PoliciesChanged(vhost.name)]


def set_vhost_limits(state: State, command: Command) -> tuple[object, list[Event]]:
    """Set all limits of a vhost anew. What is above one by now stays."""
    vhost = state.vhost(text(command, "vhost"))
    limits = mapping(command, "limits")
    chosen = {name: value for name, value in limits.items() if isinstance(value, int)}
    if vhost.limits == chosen:
        return None, []
    vhost.limits = chosen
    return None, [VHostChanged(vhost.name)]
