"""The part of the port that reads what queues retain, settled messages included, and replays it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from brokers.adapters.base import QueueKey

Message = Mapping[str, Any]
"""position, at (seconds since the epoch), exchange, routing_key, properties, headers, payload, payload_encoding
(string or base64), payload_bytes, truncated; in a history also state (settled, ready, unacked, dying), holder
(the node whose client has it), returned (how often it was given back) and redelivered, None where not known."""


@dataclass(frozen=True, slots=True)
class History:
    """Messages of a queue from position ``first`` on. Retained are the positions ``oldest`` to ``end`` - 1."""

    oldest: int
    end: int
    first: int
    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time of a queue's history: what was published in it and how much of that is settled."""

    at: float
    until: float
    first: int
    end: int
    settled: int

    @property
    def published(self) -> int:
        """How many messages."""
        return self.end - self.first


@dataclass(frozen=True, slots=True)
class Selection:
    """Which retained messages. Positions from ``first`` up to but without ``end``; times in seconds since the
    epoch, likewise; ``key`` is a topic pattern; ``headers`` must have these values, compared as texts.
    """

    first: int | None = None
    end: int | None = None
    since: float | None = None
    until: float | None = None
    key: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """What a selection comes to: ``count`` messages at positions ``first`` to ``end`` - 1.

    ``bytes`` of their bodies; projected from the first ones where nothing had to be read to count them.
    """

    first: int
    end: int
    oldest: int
    count: int
    bytes: int
    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class Target:
    """Where replayed messages go: a queue, or an exchange with each message's own key or another."""

    vhost: str
    queue: str | None = None
    exchange: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """How a replay goes. All before ``cursor`` is done with; ``published`` counts since it was (re)started.

    ``unroutable`` had no queue to go to, ``gone`` was let go by retention before it was reached. ``waiting``
    says why nothing moves.
    """

    node: str
    state: Literal["running", "done", "failed", "cancelled"]
    cursor: int
    end: int
    published: int
    unroutable: int
    gone: int
    waiting: str
    error: str


class Retained(ABC):
    """All methods raise ``ClusterError`` and its subclasses, ``NotFound`` for queues and positions."""

    @abstractmethod
    def page(self, queue: QueueKey, *, first: int | None, at: float | None, count: int) -> History:
        """``count`` messages from a position or a time on; the newest ones when neither is given."""

    @abstractmethod
    def message(self, queue: QueueKey, position: int, max_bytes: int) -> Message:
        """One message with up to ``max_bytes`` of its body."""

    @abstractmethod
    def timeline(self, queue: QueueKey) -> Sequence[Stretch]:
        """All that is retained, in equal stretches of time; empty when nothing is."""

    @abstractmethod
    def find(self, queue: QueueKey, selection: Selection, to: Target | None, preview: int) -> Found:
        """What ``selection`` comes to now, exactly, with the first ``preview`` messages.

        Raises ``NotFound`` when ``to`` is not there.
        """

    @abstractmethod
    def replay(
        self, job: str, queue: QueueKey, found: tuple[int, int], selection: Selection, to: Target, rate: int
    ) -> Replay:
        """Begin (or go on) publishing what of positions ``found`` matches ``selection``'s key and headers.

        ``job`` names it; one that runs by that name on the node asked is only told of. ``rate``: messages a
        second, 0 for no limit. Raises ``OutcomeUnknown``.
        """

    @abstractmethod
    def replay_status(self, job: str, node: str) -> Replay:
        """How it goes. Raises ``NotFound`` when the node has been restarted since."""

    @abstractmethod
    def replay_cancel(self, job: str, node: str) -> Replay:
        """Stop it; what is on its way is waited for."""
