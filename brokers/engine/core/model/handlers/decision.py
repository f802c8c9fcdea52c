"""What a node has to do about a method: the answers of ``decide``."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from brokers.engine.core.amqp.errors import AmqpError
from brokers.engine.core.amqp.methods import Method
from brokers.engine.core.model.commands import Command
from brokers.engine.core.model.metadata import Result
from brokers.engine.core.model.topology import QueueInfo


@dataclass(frozen=True, slots=True)
class Context:
    """On whose behalf a method is handled; without a user it is the operators', who may do everything.

    ``new_name(prefix)`` makes a unique name for a queue whose client left the naming to the server, and
    ``live_nodes()`` says which nodes can take replicas now (this one included). ``last_queue`` is the
    queue last declared on the channel, which an empty name stands for; empty when there is none.
    """

    vhost: str
    user: str | None
    connection: str
    node: int
    new_name: Callable[[str], str]
    live_nodes: Callable[[], Collection[int]]
    last_queue: str = ""


@dataclass(frozen=True, slots=True)
class AskQueue:
    """Ask the queue's leader first: for its counts (``count``), or to drop what is ready (``purge``).

    Then ``then(messages, consumers)`` says how to go on; ``messages`` are those ready, or those purged.
    When ``required`` is false, and the queue cannot be asked now, ``then(0, 0)`` will do.
    """

    info: QueueInfo
    action: Literal["count", "purge"]
    then: Callable[[int, int], Decision]
    required: bool = True


@dataclass(frozen=True, slots=True)
class Commit:
    """Have ``command`` committed by the metadata group, then go on as ``then`` says of its result."""

    command: Command
    then: Callable[[Result], Decision]


Decision = Method | AmqpError | AskQueue | Commit | None
"""A method to answer with, an error to close with, something to do first, or nothing to say (nowait)."""


def after(reply: Method | None) -> Callable[[Result], Decision]:
    """Go on from a commit: its error if it was refused, else ``reply``."""

    def then(result: Result) -> Decision:
        return result.error if result.error is not None else reply

    return then
