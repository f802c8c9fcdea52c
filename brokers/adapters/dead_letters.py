"""The part of the port that deals with dead letters: finds them, tells their causes apart, sends them on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from brokers.adapters.base import QueueKey

Message = Mapping[str, Any]
"""position, at (seconds since the epoch), state (ready, unacked), exchange, routing_key, properties, headers,
payload, payload_encoding (string or base64), payload_bytes, truncated, group, cause."""


@dataclass(frozen=True, slots=True)
class DeadLetterQueue:
    """A queue that others' dead letters go to, or whose oldest message is a dead letter (``holds_dead``)."""

    vhost: str
    name: str
    sources: tuple[str, ...]
    """Some of the queues whose dead letters go here; ``source_count`` is how many there are."""
    source_count: int
    holds_dead: bool

    @property
    def key(self) -> QueueKey:
        """What identifies the queue."""
        return self.vhost, self.name


@dataclass(frozen=True, slots=True)
class Group:
    """Dead letters with one cause; numbers and identifiers in texts are written ``#``."""

    id: str
    reason: str
    queue: str
    """Where they died."""
    routing_key: str
    exception: str
    shape: str
    count: int
    position: int
    """Of the oldest one."""
    oldest: float
    newest: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """How many came in ``seconds`` from ``at`` on."""

    at: float
    seconds: float
    count: int


@dataclass(frozen=True, slots=True)
class Groups:
    """What is in a dead-letter queue: the largest groups, of the ``counted`` oldest messages of all.

    ``end`` is the position that the next message will have.
    """

    groups: tuple[Group, ...]
    group_count: int
    counted: int
    messages: int
    end: int
    over_time: tuple[Bucket, ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which messages of a queue: at these positions, or of these groups, or all; before position ``until``."""

    until: int
    positions: tuple[int, ...] | None = None
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Onward:
    """Where redriven messages go: to ``exchange`` under ``key`` (None: the one they had), or, without an
    exchange, back to the queue in which they died.
    """

    exchange: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Messages, and from where the next ones are to be read; None: there are no more."""

    messages: Sequence[Message]
    onward: int | None
    end: int


@dataclass(frozen=True, slots=True)
class Done:
    """What a batch came to. ``onward`` as in ``Page``; ``kept``: why how many were left where they are."""

    onward: int | None
    count: int
    kept: Mapping[str, int] = field(default_factory=dict)
    originals: Sequence[Message] = ()
    came_back: int = 0
    """How many of the run have come into the queue from the position ``watched`` that was given on."""
    watched: int = -1


class DeadLetters(ABC):
    """All methods raise ``ClusterError`` and its subclasses, ``NotFound`` for a queue that is not there."""

    @abstractmethod
    def queues(self) -> tuple[DeadLetterQueue, ...]:
        """All dead-letter queues."""

    @abstractmethod
    def groups(self, queue: QueueKey) -> Groups:
        """What is in one, by cause."""

    @abstractmethod
    def page(self, queue: QueueKey, chosen: Chosen, first: int, count: int, max_bytes: int) -> Page:
        """Messages from position ``first`` on, with up to ``max_bytes`` of their bodies. Fewer than ``count``,
        even none, may come although there are more: ``onward`` tells."""

    @abstractmethod
    def redrive(
        self,
        queue: QueueKey,
        run: str,
        chosen: Chosen,
        first: int,
        count: int,
        onward: Onward,
        *,
        watch: int,
        unsure: bool = False,
        edit: Mapping[str, Any] | None = None,
    ) -> Done:
        """Send a batch from position ``first`` on. Settled only after all queues reached have confirmed it.

        Asked again for the same ``run`` and ``first``, the same batch is answered for, not another one;
        ``unsure`` marks messages as possibly sent before, where that cannot be known. Raises ``NotNow`` while
        confirms are awaited, ``OutcomeUnknown``.
        """

    @abstractmethod
    def discard(self, queue: QueueKey, run: str, chosen: Chosen, first: int, count: int) -> Done:
        """Throw a batch away. Otherwise as ``redrive``."""
