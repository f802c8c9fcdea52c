"""A channel in transaction mode: what it holds back until ``tx.commit``.

As in RabbitMQ a transaction covers publishes and acknowledgements of one channel. Stronger than there: the
acknowledgements take effect when every queue has committed its publishes, and ``commit-ok`` follows, so a
commit that is cut short by a crash repeats work instead of losing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from brokers.engine.core.amqp.errors import unknown_delivery_tag
from brokers.engine.core.amqp.port import Outcome
from brokers.engine.core.amqp.unacked import Groups, Unacked


class HeldPublish(NamedTuple):
    """A ``basic.publish`` that waits for its commit."""

    route: bytes
    header: bytes
    body: bytes
    mandatory: bool
    special: bool
    """See ``assembly.accept_header``."""


class Transaction:
    """What happened on one channel since ``tx.select`` or the last commit or rollback."""

    __slots__ = ("_done", "_missing", "_refused", "_settlements", "_tags", "published", "publishes", "size")

    def __init__(self) -> None:
        self.published = 0
        """The last publish sequence number given out at a commit; the first is 1."""
        self.publishes: list[HeldPublish] = []
        self.size = 0
        """Octets of the bodies held."""
        self._settlements: list[tuple[Outcome, list[int]]] = []
        self._tags: set[int] = set()
        self._missing = 0
        self._refused = False
        self._done: Callable[[bool], None] | None = None

    def hold(self, publish: HeldPublish) -> None:
        self.publishes.append(publish)
        self.size += len(publish.body)

    def settle(self, unacked: Unacked, tag: int, multiple: bool, outcome: Outcome) -> None:
        """Note an ack, nack or reject; the messages stay the channel's until the commit.

        Raises ``AmqpError`` 406 for a tag that is not held, or is settled in this transaction already.
        """
        if tag in self._tags or (tag not in unacked and not (multiple and tag == 0)):
            raise unknown_delivery_tag(tag)
        tags = [tag]
        if multiple:
            tags = [held for held in unacked if (held <= tag or tag == 0) and held not in self._tags]
        self._tags.update(tags)
        self._settlements.append((outcome, tags))

    def recover(self, unacked: Unacked) -> Groups:
        """Take what was delivered and is not settled in this transaction out of ``unacked``."""
        return unacked.take_some([tag for tag in unacked if tag not in self._tags])

    def settlements(self, unacked: Unacked) -> Iterable[tuple[Groups, Outcome]]:
        """What is to be settled now that the publishes are safe, in order; the transaction starts anew."""
        settlements, self._settlements = self._settlements, []
        self._tags.clear()
        return [(unacked.take_some(tags), outcome) for outcome, tags in settlements]

    def rollback(self) -> int:
        """Forget everything; the octets that were held."""
        size, self.size = self.size, 0
        self.publishes = []
        self._settlements = []
        self._tags.clear()
        return size

    def begin(self, publishes: int, done: Callable[[bool], None]) -> None:
        """A commit of ``publishes`` messages begins; ``done(whole)`` when all of them are answered.

        One more answer is awaited than there are messages: ``sent`` gives it.
        """
        self._missing = publishes + 1
        self._refused = False
        self._done = done

    def sent(self) -> None:
        """All publishes of the commit are on their way."""
        self.answered(1)

    def answered(self, count: int, refused: bool = False) -> None:
        """The queues have committed, or ``refused``, ``count`` of the publishes."""
        self._refused |= refused
        self._missing -= count
        if not self._missing and self._done is not None:
            done, self._done = self._done, None
            done(not self._refused)
