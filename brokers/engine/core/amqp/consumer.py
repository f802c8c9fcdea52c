"""A consumer: turns messages from a queue into ``basic.deliver`` frames on its channel's connection."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import repeat
from typing import TYPE_CHECKING

from brokers.engine.core.amqp.constants import FRAME_BODY, FRAME_HEADER, FRAME_METHOD, FRAME_OVERHEAD
from brokers.engine.core.amqp.frames import END, FRAME, content_frames
from brokers.engine.core.amqp.port import Outcome

if TYPE_CHECKING:
    from brokers.engine.core.amqp.channel import Channel
    from brokers.engine.core.amqp.port import Delivery, Queue
    from brokers.engine.core.amqp.table import Table

_DELIVER = b"\x00\x3c\x00\x3c"
_TAG = struct.Struct(">QB")
_COPY_LIMIT = 8192
"""Bodies up to this size (octets) are copied into one piece of output together with their frames."""


class Consumer:
    """One ``basic.consume``, or the one-off holder of what a ``basic.get`` fetched.

    The broker sets ``queue`` and may keep whatever it needs in ``handle``. ``prefetch`` is how many
    unsettled messages the queue may let this consumer hold at once, 0 for no limit: its own limit, or a
    lower one that its channel's consumers share. ``unsettled`` is how
    many it holds; ``held`` of these wait for room under a limit that its channel got later: no more should
    be sent while there are any.
    """

    __slots__ = (
        "_template",
        "arguments",
        "channel",
        "early",
        "exclusive",
        "gated",
        "handle",
        "held",
        "holder",
        "live",
        "no_ack",
        "own_prefetch",
        "prefetch",
        "queue",
        "tag",
        "unsettled",
    )

    def __init__(
        self,
        channel: Channel,
        tag: str,
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        arguments: Table | None = None,
        prefetch: int = 0,
        holder: bool = False,
    ) -> None:
        self.channel = channel
        self.tag = tag
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.arguments: Table = arguments or {}
        self.own_prefetch = self.prefetch = prefetch
        self.queue: Queue
        self.unsettled = 0
        self.held = 0
        self.handle: object = None
        self.holder = holder
        self.live = False
        """The client has its consume-ok and has not cancelled."""
        self.gated = True
        """``deliver`` must look before it sends: not live, or the channel limits what may be out."""
        self.early: list[Delivery] = []
        """Deliveries that came before the client had its consume-ok."""
        self._template = (-1, -1, -1, b"", b"", b"")
        """Lengths of the last message's route, header and body, and the octets that follow from these."""

    def __repr__(self) -> str:
        return f"Consumer({self.tag!r}, channel={self.channel.number})"

    def outstanding(self) -> list[int]:
        """The positions this consumer holds unsettled, in the order of delivery."""
        sent = [position for consumer, position in self.channel.unacked.values() if consumer is self]
        return sent + self.channel.shared.positions_of(self) + [delivery[0] for delivery in self.early]

    def deliver(self, batch: Sequence[Delivery]) -> None:
        """Send messages to the client, in order. Called by the broker; see ``port.Delivery``."""
        if self.gated:
            self.channel.deliver_gated(self, batch)
        else:
            self.send(batch)

    def send(self, batch: Sequence[Delivery]) -> None:
        """Write ``batch`` as ``basic.deliver`` frames and note what is unsettled now."""
        channel = self.channel
        connection = channel.connection
        first = channel.delivered + 1
        count = len(batch)
        if not self.no_ack:
            self.unsettled += count
            entries = zip(repeat(self), [delivery[0] for delivery in batch], strict=False)
            channel.unacked.update(zip(range(first, first + count), entries, strict=False))
        channel.delivered += count
        connection.counts.deliver += count
        append, join, pack = connection.out.append, b"".join, _TAG.pack
        copy_limit = min(_COPY_LIMIT, connection.payload_limit - FRAME_OVERHEAD)
        route_size, header_size, body_size, start, middle, last = self._template
        tag = first
        for _, redelivered, route, header, body in batch:
            if len(route) != route_size:
                route_size = len(route)
                start = self._method_start(route_size)
            if len(header) != header_size:
                header_size = len(header)
                middle = END + FRAME.pack(FRAME_HEADER, channel.number, header_size)
            if len(body) != body_size:
                body_size = len(body)
                last = END + FRAME.pack(FRAME_BODY, channel.number, body_size)
            if 0 < body_size <= copy_limit:
                append(join((start, pack(tag, redelivered), route, middle, header, last, body, END)))
            else:
                method = start[FRAME.size :] + pack(tag, redelivered) + route
                connection.out += content_frames(channel.number, method, header, body, connection.frame_max)
            tag += 1
        self._template = (route_size, header_size, body_size, start, middle, last)
        connection.written()

    def _method_start(self, route_size: int) -> bytes:
        """The frame header and the beginning of ``basic.deliver``, up to the consumer tag."""
        tag = self.tag.encode()
        method = _DELIVER + bytes((len(tag),)) + tag
        return FRAME.pack(FRAME_METHOD, self.channel.number, len(method) + _TAG.size + route_size) + method

    def give_back(self, positions: Sequence[int]) -> None:
        """Return deliveries that never reached the client to the queue."""
        self.queue.settle(self, positions, Outcome.REQUEUE)
