"""What a channel has delivered and its client has not settled: delivery tags to positions in queues."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from brokers.engine.core.amqp.errors import unknown_delivery_tag

if TYPE_CHECKING:
    from brokers.engine.core.amqp.consumer import Consumer

Groups = list[tuple["Consumer", list[int]]]
"""Positions by the consumer that holds them."""


class Unacked(dict[int, tuple["Consumer", int]]):
    """Delivery tag to (consumer, position), in the order of delivery.

    ``take`` of many looks at each tag once over the life of a channel: it walks up from the lowest tag that
    may still be held, not through the gaps that a dict's iteration would stumble over.
    """

    __slots__ = ("_low",)

    def __init__(self) -> None:
        super().__init__()
        self._low = 1

    def take(self, tag: int, multiple: bool) -> Groups:
        """Remove and return what a client's ack, nack or reject settles; tag 0 with ``multiple`` is all.

        Raises ``AmqpError`` 406 when ``tag`` is not held.
        """
        if multiple and tag == 0:
            return self.take_all()
        if tag not in self:
            raise unknown_delivery_tag(tag)
        if not multiple:
            consumer, position = self.pop(tag)
            return [(consumer, [position])]
        low, self._low = self._low, tag + 1
        tags: Iterable[int] = range(low, tag + 1)
        if tag - low > 4 * len(self):
            tags = [held for held in self if held <= tag]
        pop = self.pop
        return _grouped([entry for held in tags if (entry := pop(held, None)) is not None])

    def take_some(self, tags: Iterable[int]) -> Groups:
        """Remove and return those of ``tags`` that are held."""
        return _grouped([entry for tag in tags if (entry := self.pop(tag, None)) is not None])

    def take_all(self) -> Groups:
        entries = list(self.values())
        if self:
            self._low = next(reversed(self)) + 1
        self.clear()
        return _grouped(entries)


def _grouped(entries: list[tuple[Consumer, int]]) -> Groups:
    groups: dict[Consumer, list[int]] = {}
    for consumer, position in entries:
        if consumer in groups:
            groups[consumer].append(position)
        else:
            groups[consumer] = [position]
    return list(groups.items())
