"""What a queue does beyond keeping messages: limits, expiry, dead letters, retries.

Parsed once from the arguments of its declaration and, where there is one, the definition of a policy. Where
both set a limit the lower one holds; otherwise the argument does (https://www.rabbitmq.com/docs/policies).
Policies name the same keys without the ``x-``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from brokers.engine.core.model.arguments import Arguments
from brokers.engine.core.model.topology import DELAY_QUEUE

DELIVERY_LIMIT = 20
"""The delivery limit of a quorum queue that names none (RabbitMQ 4)."""
RETENTION_BYTES = 1 << 30
RETENTION = 24 * 3600 * 1000
"""What a replicated queue keeps of settled messages: bytes, and milliseconds."""
RETRY_BACKOFF = (1000, 5000, 30_000)
"""Milliseconds before each retry where a queue names attempts and no series."""


class Overflow(StrEnum):
    """What happens to the message too many."""

    DROP_HEAD = "drop-head"
    REJECT_PUBLISH = "reject-publish"
    REJECT_PUBLISH_DLX = "reject-publish-dlx"


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The settings in force. Times are milliseconds; None is no limit.

    ``keeps_unroutable``: dead letters wait until their exchange leads somewhere (strategy at-least-once);
    otherwise those without a way to go are dropped. ``counts_deliveries``: redeliveries carry
    ``x-delivery-count``.
    """

    ttl: int | None = None
    expires: int | None = None
    max_length: int | None = None
    max_bytes: int | None = None
    overflow: Overflow = Overflow.DROP_HEAD
    dead_letter_exchange: str | None = None
    dead_letter_key: str | None = None
    keeps_unroutable: bool = False
    delivery_limit: int | None = None
    counts_deliveries: bool = False
    retry_attempts: int = 0
    retry_backoff: tuple[int, ...] = RETRY_BACKOFF
    single_active: bool = False
    retention_bytes: int = RETENTION_BYTES
    retention: int = RETENTION
    """How much and how long settled messages stay readable, for replay and for reading from an offset."""
    expires_messages: bool = True
    """False for what waits in a delayed exchange: a message's life begins when it is let go."""

    @property
    def bounded(self) -> bool:
        """Whether there is a limit to how much is ready."""
        return self.max_length is not None or self.max_bytes is not None

    @property
    def rejects_publishes(self) -> bool:
        """Whether it is the publisher who learns that the queue is full."""
        return self.bounded and self.overflow is not Overflow.DROP_HEAD

    def backoff(self, attempt: int) -> int:
        """How long the message waits before its retry number ``attempt`` (from 1); the series' last entry
        goes on."""
        return self.retry_backoff[min(attempt, len(self.retry_backoff)) - 1]


DEFAULT = QueueSettings()


def parse_backoff(text: str) -> tuple[int, ...]:
    """A series of milliseconds like ``1000,5000,30000``. Raises ``ValueError`` saying what is wrong."""
    parts = text.split(",")
    series = tuple(int(part) if part.strip().isascii() and part.strip().isdigit() else -1 for part in parts)
    if min(series) < 0:
        wrong = parts[series.index(-1)]
        raise ValueError(f"{wrong.strip()!r} is no number of milliseconds; expected like 1000,5000,30000")
    return series


def settings(arguments: Arguments, type_: str, policy: Mapping[str, object] | None = None) -> QueueSettings:
    """The settings of a queue of ``type_`` with ``arguments`` under a policy's definition.

    Both have been checked where they came in; what is not of its type all the same counts as not given.
    """
    source = _Source(arguments, policy or {})
    limit = source.lower("delivery-limit")
    if limit is None and type_ == "quorum":
        limit = DELIVERY_LIMIT
    counts = limit is not None or type_ == "quorum"
    if limit is not None and limit < 0:
        limit = None
    attempts = source.lower("retry-attempts") or 0
    return QueueSettings(
        ttl=source.lower("message-ttl"),
        expires=source.lower("expires"),
        max_length=source.lower("max-length"),
        max_bytes=source.lower("max-length-bytes"),
        overflow=source.overflow(),
        dead_letter_exchange=source.text("dead-letter-exchange"),
        dead_letter_key=source.text("dead-letter-routing-key"),
        keeps_unroutable=source.text("dead-letter-strategy") == "at-least-once",
        delivery_limit=limit,
        counts_deliveries=counts,
        retry_attempts=max(0, attempts),
        retry_backoff=source.backoff(),
        retention_bytes=source.or_else("retention-bytes", RETENTION_BYTES),
        retention=source.or_else("retention-ms", RETENTION),
        single_active=arguments.get("x-single-active-consumer") is True,
        expires_messages=type_ != DELAY_QUEUE,
    )


class _Source:
    def __init__(self, arguments: Arguments, policy: Mapping[str, object]) -> None:
        self._arguments = arguments
        self._policy = policy

    def _values(self, key: str) -> list[object]:
        return [self._arguments.get(f"x-{key}"), self._policy.get(key)]

    def lower(self, key: str) -> int | None:
        """The lower of the limits given."""
        values = [v for v in self._values(key) if isinstance(v, int) and not isinstance(v, bool)]
        return min(values, default=None)

    def or_else(self, key: str, default: int) -> int:
        """The lower of the limits given, ``default`` where none is."""
        value = self.lower(key)
        return default if value is None else value

    def text(self, key: str) -> str | None:
        """The argument, or else what the policy says."""
        return next((v for v in self._values(key) if isinstance(v, str)), None)

    def overflow(self) -> Overflow:
        named = self.text("overflow")
        return Overflow(named) if named in list(Overflow) else Overflow.DROP_HEAD

    def backoff(self) -> tuple[int, ...]:
        named = self.text("retry-backoff")
        try:
            return RETRY_BACKOFF if named is None else parse_backoff(named)
        except ValueError:
            return RETRY_BACKOFF
