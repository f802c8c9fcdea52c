"""Publisher confirms: which ``basic.ack`` and ``basic.nack`` tell a publisher what became of its messages.

Messages of one channel go to several queues and are settled in any order. A range that begins with the
oldest message still open is told by one method with ``multiple``; one further on is told message by
message, since ``multiple`` would speak for the older ones too. So a queue without a quorum delays its own
confirms alone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from brokers.engine.core.amqp.constants import CLASS_BASIC, FRAME_END, FRAME_METHOD

_FRAME = struct.Struct(">BHIHHQBB")
_ACK, _NACK = 80, 120


class Confirms:
    """The publish sequence of one channel in confirm mode."""

    __slots__ = ("_channel", "_head", "_settled", "published")

    def __init__(self, channel: int) -> None:
        self.published = 0
        """The last publish sequence number given out; the first is 1."""
        self._channel = channel
        self._head = 1
        self._settled: dict[int, int] = {}

    @property
    def outstanding(self) -> int:
        """How many messages are published and not settled yet."""
        settled = sum(last - first + 1 for first, last in self._settled.items())
        return self.published - self._head + 1 - settled

    def confirmed(self, first: int, last: int) -> bytes:
        """The frames that confirm the messages ``first`` to ``last``."""
        return self._frames(_ACK, self._settle(first, last))

    def refused(self, first: int, last: int) -> bytes:
        """The frames that say that the messages ``first`` to ``last`` were not taken."""
        return self._frames(_NACK, self._settle(first, last))

    def _settle(self, first: int, last: int) -> Sequence[tuple[int, bool]]:
        """(delivery tag, multiple) of the methods to send."""
        head = self._head
        if first > head:
            self._settled[first] = last
            return [(tag, False) for tag in range(first, last + 1)]
        following = last + 1
        while following in self._settled:
            following = self._settled.pop(following) + 1
        self._head = following
        return ((last, last > head),)

    def _frames(self, method_id: int, settled: Sequence[tuple[int, bool]]) -> bytes:
        pack, channel = _FRAME.pack, self._channel
        return b"".join(
            [
                pack(FRAME_METHOD, channel, 13, CLASS_BASIC, method_id, tag, multiple, FRAME_END)
                for tag, multiple in settled
            ]
        )
