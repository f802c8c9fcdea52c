"""The prefetch limit that all consumers of a channel share (``basic.qos`` with global=True).

Queues know of consumers, not of channels: each may send a consumer as much as the consumer alone may hold.
What that is too much for the channel waits here until acknowledgements make room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brokers.engine.core.amqp.consumer import Consumer
    from brokers.engine.core.amqp.port import Delivery


class SharedPrefetch:
    """The limit of one channel. Consumers without acknowledgements and ``basic.get`` are outside of it."""

    __slots__ = ("_unacked", "fetched", "held", "limit")

    def __init__(self, unacked: Sized) -> None:
        self._unacked = unacked
        self.limit = 0
        """How many messages the channel's consumers may hold unsettled together, 0 for no limit."""
        self.held: deque[tuple[Consumer, Delivery]] = deque()
        self.fetched = 0
        """Unsettled messages that came by ``basic.get``."""

    def applies_to(self, consumer: Consumer) -> bool:
        return self.limit > 0 and not consumer.no_ack

    def prefetch_of(self, consumer: Consumer) -> int:
        """How many messages ``consumer`` may hold at most: the lower of its own limit and the shared one."""
        return min(filter(None, (consumer.own_prefetch, self.limit)), default=0)

    def deliver(self, consumer: Consumer, batch: Sequence[Delivery]) -> None:
        """Send what there is room for, now and after what waits already."""
        consumer.unsettled += len(batch)
        consumer.held += len(batch)
        self.held.extend((consumer, delivery) for delivery in batch)
        self.refill()

    def refill(self) -> None:
        """Send what waits, oldest first, as far as there is room."""
        unacked, held, limit = self._unacked, self.held, self.limit
        while held and (not limit or len(unacked) - self.fetched < limit):
            consumer, delivery = held.popleft()
            consumer.held -= 1
            consumer.unsettled -= 1
            consumer.send((delivery,))

    def positions_of(self, consumer: Consumer) -> list[int]:
        """What waits for ``consumer``."""
        return [delivery[0] for owner, delivery in self.held if owner is consumer]

    def withdraw(self, consumer: Consumer) -> list[int]:
        """``consumer`` gets nothing more; the positions that waited for it."""
        positions = self.positions_of(consumer)
        if positions:
            self.held = deque(entry for entry in self.held if entry[0] is not consumer)
            consumer.unsettled -= len(positions)
            consumer.held = 0
        return positions
