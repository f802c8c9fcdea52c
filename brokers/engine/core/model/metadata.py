"""The replicated state machine of the metadata group: vhosts, users, permissions, exchanges, bindings,
queues and nodes.

Every node applies the same commands in the same order and comes to the same state and the same results: a
change is a function of state and command alone. Reads are local.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

from brokers.engine.core.amqp import errors
from brokers.engine.core.amqp.errors import AmqpError
from brokers.engine.core.model import snapshot
from brokers.engine.core.model.authorize import Authorizer, may_open
from brokers.engine.core.model.changes import CHANGES, Change
from brokers.engine.core.model.commands import Command
from brokers.engine.core.model.events import Event, NodeChanged, NodeRemoved
from brokers.engine.core.model.sessions import Answer, StaleCommand
from brokers.engine.core.model.state import State
from brokers.engine.core.model.topology import Permission


class UnknownCommand(Exception):
    """A command of a kind this program does not know: a newer one wrote it.

    To skip it would make this node's state differ from the others' for ever; the node has to stop and be
    upgraded.
    """


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a command.

    ``error`` is why it was refused (then nothing changed), ``value`` what it gave (JSON), ``events`` what
    it changed. A command seen before has the first one's error and value, no events, and is ``repeated``.
    """

    error: AmqpError | None = None
    events: tuple[Event, ...] = ()
    value: object = None
    repeated: bool = False


class Metadata:
    """One node's copy of the metadata. ``state`` is for reading; it changes by ``apply`` and ``restore``."""

    def __init__(self) -> None:
        self.state = State()
        self.generation = 0
        """Rises whenever a route or a permission may have changed: what was worked out from the topology
        holds as long as it stays. A count of this process's own, not replicated."""

    def apply(self, command: Command) -> Result:
        """Apply one committed command.

        What is wrong with a command is in the result; all replicas refuse alike. Raises ``UnknownCommand``
        for an ``op`` of a newer version.
        """
        change = CHANGES.get(str(command.get("op")))
        if change is None:
            raise UnknownCommand(f"metadata command {command.get('op')!r} is unknown: this node is too old")
        try:
            identity = _identity(command)
            known = None if identity is None else self.state.sessions.find(identity.boot, identity.serial)
        except StaleCommand as stale:
            return Result(errors.internal_error(str(stale)), repeated=True)
        except ValueError as error:
            return Result(_malformed(error))
        if known is not None:
            return _repeat(known)
        result = self._change(change, command)
        if identity is not None:
            self.state.sessions.record(identity.boot, identity.serial, _answer(result), identity.low)
        if any(not isinstance(event, NodeChanged | NodeRemoved) for event in result.events):
            self.generation += 1
        return result

    def _change(self, change: Change, command: Command) -> Result:
        try:
            value, events = change(self.state, command)
        except AmqpError as error:
            return Result(error)
        except ValueError as error:
            return Result(_malformed(error))
        return Result(None, tuple(events), value)

    def snapshot(self) -> bytes:
        """The whole state, equal on replicas that applied the same commands. ``restore`` reads it."""
        return snapshot.dump(self.state)

    def restore(self, data: bytes) -> list[Event]:
        """Take over the state of a snapshot; returns what changed by it, for the node to follow.

        Raises ``ValueError`` for a snapshot that cannot be read, leaving the state as it was.
        """
        before, self.state = self.state, snapshot.load(data)
        self.generation += 1
        return snapshot.difference(before, self.state)

    def digest(self) -> str:
        """A hash of the state, to compare replicas by."""
        return hashlib.sha256(self.snapshot()).hexdigest()

    def authorizer(self, user: str | None, vhost: str) -> Authorizer:
        """Checks of what ``user`` (None: an operator of the cluster) may do in ``vhost``, as of now."""
        if user is None:
            everything = {"": {vhost: Permission(".*", ".*", ".*")}}
            return Authorizer(everything, "", vhost)
        return Authorizer(self.state.permissions, user, vhost)

    def check_open(self, user: str, vhost: str) -> None:
        """Whether ``user`` may open ``vhost``. Raises ``AmqpError`` 530 when it is missing or refused."""
        self.state.vhost(vhost)
        if not may_open(self.state.permissions, user, vhost):
            raise errors.vhost_refused(vhost, user)


class _Identity(NamedTuple):
    boot: int
    serial: int
    low: int


def _identity(command: Command) -> _Identity | None:
    """Who sent a command, or None when its sender did not number it."""
    identity, low = command.get("id"), command.get("low", 0)
    if identity is None:
        return None
    match identity, low:
        case [int(boot), int(serial)], int():
            return _Identity(boot, serial, low)
    raise ValueError(f"id of a command must be [boot, serial], not {identity!r} (low {low!r})")


def _malformed(error: ValueError) -> AmqpError:
    return errors.precondition_failed(f"malformed metadata command: {error}")


def _answer(result: Result) -> Answer:
    error = result.error
    return (None if error is None else [error.code, error.text, error.scope], result.value)


def _repeat(answer: Answer) -> Result:
    fields, value = answer
    return Result(None if fields is None else AmqpError(*fields), (), value, repeated=True)  # type: ignore[arg-type]  # as _answer wrote them
