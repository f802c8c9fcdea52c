"""Who may do what: RabbitMQ's permissions on names of queues and exchanges.

A user has, for a vhost, three regular expressions: *configure* (declare, delete), *write* (publish, be
bound to) and *read* (consume, get, purge, be bound from). The table of
https://www.rabbitmq.com/docs/access-control#authorisation is what these functions follow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from brokers.engine.core.amqp import errors
from brokers.engine.core.model.topology import (
    DEFAULT_EXCHANGE,
    RESERVED_PREFIX,
    Kind,
    Permission,
    TopicPermission,
)

DEFAULT_EXCHANGE_NAME = "amq.default"
"""What the nameless exchange is called in permissions and texts about them."""

Permissions = Mapping[str, Mapping[str, Permission]]
"""Permissions by user and vhost."""
TopicPermissions = Mapping[str, Mapping[str, Mapping[str, TopicPermission]]]
"""Topic permissions by user, vhost and exchange."""


NOTHING = re.compile(r"(?!)")
"""Matches nothing at all."""


def check_pattern(pattern: str) -> None:
    """Raises ``AmqpError`` 406 when ``pattern`` is no regular expression. To be asked before permissions are
    set."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise errors.precondition_failed(f"invalid regular expression '{pattern}': {error}") from error


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A permission's regular expression; as in RabbitMQ an empty one matches the empty name alone, and a
    malformed one nothing."""
    try:
        return re.compile(pattern or "^$")
    except re.error:
        return NOTHING


class Authorizer:
    """The permissions of one user in one vhost. Methods raise ``AmqpError`` 403 for what is not allowed."""

    def __init__(self, permissions: Permissions, user: str, vhost: str) -> None:
        self._permission = permissions.get(user, {}).get(vhost, Permission())
        self._user = user
        self._vhost = vhost

    def configure(self, kind: Kind, name: str) -> None:
        self._check(self._permission.configure, kind, name)

    def write(self, kind: Kind, name: str) -> None:
        self._check(self._permission.write, kind, name)

    def read(self, kind: Kind, name: str) -> None:
        self._check(self._permission.read, kind, name)

    def any(self, kind: Kind, name: str) -> None:
        """At least one of the three, as passive declarations need."""
        permission = self._permission
        for pattern in (permission.read, permission.write):
            if compile_pattern(pattern).search(_public(kind, name)):
                return
        self.configure(kind, name)

    def _check(self, pattern: str, kind: Kind, name: str) -> None:
        shown = _public(kind, name)
        if compile_pattern(pattern).search(shown) is None:
            raise errors.permission_refused(kind, shown, self._vhost, self._user)


def check_topic(
    permissions: TopicPermissions, user: str, vhost: str, exchange: str, key: str, *, write: bool
) -> None:
    """Whether ``user`` may publish (``write``) or bind with routing key ``key`` at a topic exchange: always
    where no topic permission is set for it. Raises ``AmqpError`` 403."""
    granted = permissions.get(user, {}).get(vhost, {}).get(exchange)
    if granted is None:
        return
    pattern = granted.write if write else granted.read
    for name, value in (("{username}", user), ("{vhost}", vhost)):
        pattern = pattern.replace(name, re.escape(value))
    if compile_pattern(pattern).search(key) is None:
        raise errors.access_refused(
            f"access to topic '{key}' in exchange '{exchange}' in vhost '{vhost}' refused for user '{user}'"
        )


def _public(kind: Kind, name: str) -> str:
    return DEFAULT_EXCHANGE_NAME if kind is Kind.EXCHANGE and name == DEFAULT_EXCHANGE else name


def may_open(permissions: Permissions, user: str, vhost: str) -> bool:
    """Whether ``user`` may connect to ``vhost``: any permission set there will do, empty ones too."""
    return vhost in permissions.get(user, {})


def check_not_reserved(kind: Kind, name: str) -> None:
    """Raises ``AmqpError`` 403 for a name that only the broker may give."""
    if name.startswith(RESERVED_PREFIX):
        raise errors.reserved_name(kind, name)


def check_not_default_exchange(name: str) -> None:
    """Raises ``AmqpError`` 403 for the nameless exchange, which cannot be declared, deleted or bound."""
    if name == DEFAULT_EXCHANGE:
        raise errors.default_exchange_refused()
