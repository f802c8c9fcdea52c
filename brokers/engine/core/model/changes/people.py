"""Vhosts, users and what users may do in vhosts."""

from __future__ import annotations

from brokers.engine.core.amqp import errors
from brokers.engine.core.model.changes.fields import optional_text, text, texts
from brokers.engine.core.model.commands import Command
from brokers.engine.core.model.events import (
    Event,
    ExchangeDeleted,
    PermissionsChanged,
    Reason,
    TopicPermissionsChanged,
    UserChanged,
    UserDeleted,
    VHostChanged,
    VHostCreated,
    VHostDeleted,
)
from brokers.engine.core.model.state import State
from brokers.engine.core.model.topology import Permission, TopicPermission, User
from brokers.engine.core.model.vhost import VHost


def set_vhost(state: State, command: Command) -> tuple[object, list[Event]]:
    """Create a vhost with its predeclared exchanges, or change its description and tags."""
    name, description, tags = text(command, "vhost"), text(command, "description"), texts(command, "tags")
    if not 0 < len(name.encode("utf-8", "surrogateescape")) <= 255:
        raise errors.precondition_failed("the name of a vhost must have 1 to 255 octets")
    vhost = state.vhosts.get(name)
    if vhost is not None:
        if (vhost.description, vhost.tags) == (description, tags):
            return {"created": False}, []
        vhost.description, vhost.tags = description, tags
        return {"created": False}, [VHostChanged(name)]
    return {"created": True}, create_vhost(state, name, description, tags)


def create_vhost(state: State, name: str, description: str = "", tags: tuple[str, ...] = ()) -> list[Event]:
    vhost = VHost(name, description, tags)
    vhost.declare_predeclared()
    state.vhosts[name] = vhost
    return [VHostCreated(name)]


def delete_vhost(state: State, command: Command) -> tuple[object, list[Event]]:
    """Delete a vhost with everything in it, and all permissions there."""
    name = text(command, "vhost")
    vhost = state.vhost(name)
    events = state.remove_queues((*vhost.queues.values(), *vhost.delays.values()), Reason.VHOST_DELETED)
    events += [ExchangeDeleted(exchange) for exchange in vhost.exchanges.values()]
    del state.vhosts[name]
    for user in list(state.permissions):
        events += _clear(state, user, name)
    for user in list(state.topic_permissions):
        events += _clear_topics(state, user, name)
    return None, [*events, VHostDeleted(name)]


def set_user(state: State, command: Command) -> tuple[object, list[Event]]:
    """Create a user, or change what is given of one."""
    name = text(command, "user")
    password_hash = optional_text(command, "password_hash")
    tags = None if command.get("tags") is None else texts(command, "tags")
    if not name:
        raise errors.precondition_failed("the name of a user must not be empty")
    before = state.users.get(name) or User(name, "")
    after = User(
        name,
        before.password_hash if password_hash is None else password_hash,
        before.tags if tags is None else tags,
    )
    if state.users.get(name) == after:
        return {"created": False}, []
    created = name not in state.users
    state.users[name] = after
    return {"created": created}, [UserChanged(name, password=before.password_hash != after.password_hash)]


def delete_user(state: State, command: Command) -> tuple[object, list[Event]]:
    name = text(command, "user")
    _known(state, name)
    events: list[Event] = []
    for vhost in list(state.permissions.get(name, {})):
        events += _clear(state, name, vhost)
    for vhost in list(state.topic_permissions.get(name, {})):
        events += _clear_topics(state, name, vhost)
    del state.users[name]
    return None, [*events, UserDeleted(name)]


def set_permissions(state: State, command: Command) -> tuple[object, list[Event]]:
    """Set what a user may do in a vhost; refused (404, 530) for unknown ones."""
    user, vhost = text(command, "user"), text(command, "vhost")
    permission = Permission(text(command, "configure"), text(command, "write"), text(command, "read"))
    _known(state, user)
    state.vhost(vhost)
    if state.permissions.get(user, {}).get(vhost) == permission:
        return None, []
    state.permissions.setdefault(user, {})[vhost] = permission
    return None, [PermissionsChanged(user, vhost)]


def clear_permissions(state: State, command: Command) -> tuple[object, list[Event]]:
    user, vhost = text(command, "user"), text(command, "vhost")
    _known(state, user)
    return None, _clear(state, user, vhost)


def _clear(state: State, user: str, vhost: str) -> list[Event]:
    granted = state.permissions.get(user, {})
    if granted.pop(vhost, None) is None:
        return []
    if not granted:
        del state.permissions[user]
    return [PermissionsChanged(user, vhost)]


def set_topic_permissions(state: State, command: Command) -> tuple[object, list[Event]]:
    """Set which routing keys a user may use at an exchange; refused (404, 530) for unknown ones."""
    user, vhost, exchange = text(command, "user"), text(command, "vhost"), text(command, "exchange")
    permission = TopicPermission(text(command, "write"), text(command, "read"))
    _known(state, user)
    state.vhost(vhost)
    granted = state.topic_permissions.setdefault(user, {}).setdefault(vhost, {})
    if granted.get(exchange) == permission:
        return None, []
    granted[exchange] = permission
    return None, [TopicPermissionsChanged(user, vhost)]


def clear_topic_permissions(state: State, command: Command) -> tuple[object, list[Event]]:
    """Clear those of one exchange, or all of a vhost."""
    user, vhost = text(command, "user"), text(command, "vhost")
    _known(state, user)
    return None, _clear_topics(state, user, vhost, optional_text(command, "exchange"))


def _clear_topics(state: State, user: str, vhost: str, exchange: str | None = None) -> list[Event]:
    of_user = state.topic_permissions.get(user, {})
    granted = of_user.get(vhost, {})
    gone = [name for name in granted if exchange in (None, name)]
    for name in gone:
        del granted[name]
    if vhost in of_user and not granted:
        del of_user[vhost]
    if user in state.topic_permissions and not of_user:
        del state.topic_permissions[user]
    return [TopicPermissionsChanged(user, vhost)] if gone else []


def _known(state: State, user: str) -> None:
    if user not in state.users:
        raise errors.not_found(f"no user '{user}'")
