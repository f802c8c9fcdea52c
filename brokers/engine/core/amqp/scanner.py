"""The hot loop: cuts a chunk of bytes into frames.

A whole ``basic.publish`` (method, header and body frame, all in the chunk) of an idle channel becomes one
call of its target, single acknowledgements are collected per consumer, and everything else goes to
``Connection.frame`` one frame at a time. The two ways must not differ in what they do: whatever the fast
one does not recognise at once it leaves to the other.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from brokers.engine.core.amqp.assembly import accept_header
from brokers.engine.core.amqp.constants import FRAME_END
from brokers.engine.core.amqp.errors import AmqpError
from brokers.engine.core.amqp.frames import FRAME, frame_too_large, invalid_frame_end
from brokers.engine.core.amqp.port import Outcome
from brokers.engine.core.amqp.routes import PUBLISH_IDS, check_route

if TYPE_CHECKING:
    from brokers.engine.core.amqp.channel import Channel
    from brokers.engine.core.amqp.connection import Connection
    from brokers.engine.core.amqp.consumer import Consumer

_METHOD = struct.Struct(">BHII")
"""Frame header, class and method."""
_HEADER = struct.Struct(">BHIIQ")
"""Frame header, class and weight, size of the body."""
_ACK_ARGUMENTS = struct.Struct(">QB")
_PUBLISH = 60 << 16 | 40
_ACK = 60 << 16 | 80
_BASIC_HEADER = 60 << 16


def scan(connection: Connection, buf: bytes) -> tuple[int, int]:
    """Take all whole frames in ``buf``.

    Returns how much of ``buf`` was taken and how many octets from there are needed to go on. Raises
    ``AmqpError`` 501 when the frames themselves are broken: nothing after that can be read.
    """
    length = len(buf)
    limit = connection.payload_limit
    channels = connection.channels
    routes = connection.routes
    method_at, header_at, frame_at, ack_at = (
        _METHOD.unpack_from,
        _HEADER.unpack_from,
        FRAME.unpack_from,
        _ACK_ARGUMENTS.unpack_from,
    )
    number = 0
    channel: Channel | None = None
    settling: Consumer | None = None
    positions: list[int] = []
    published = 0
    pos = 0
    try:
        while True:
            ident = 0
            if pos + 11 <= length:
                kind, frame_channel, size, ident = method_at(buf, pos)
            elif pos + 7 <= length:
                kind, frame_channel, size = frame_at(buf, pos)
            else:
                return pos, 7
            if size > limit:
                raise frame_too_large(kind, size, limit)
            end = pos + 7 + size
            if end >= length:
                return pos, size + 8
            if buf[end] != FRAME_END:
                raise invalid_frame_end(kind, buf[pos + 7 : end], buf[end])
            if kind == 1 and frame_channel:
                if frame_channel != number:
                    number = frame_channel
                    channel = channels.get(number)
                if channel is not None and channel.ready:
                    if ident == _PUBLISH:
                        # The smallest content header frame takes 22 octets; an empty body has no frame.
                        header_pos = end + 1
                        if buf[end - 1] <= 1 and header_pos + 22 <= length:
                            kind, frame_channel, size, ident, body_size = header_at(buf, header_pos)
                            header_end = header_pos + 7 + size
                            if (
                                kind == 2
                                and frame_channel == number
                                and ident == _BASIC_HEADER
                                and size <= limit
                                and header_end < length
                                and buf[header_end] == FRAME_END
                            ):
                                body_pos = last = header_end
                                if body_size and header_end + 9 <= length:
                                    kind, frame_channel, size = frame_at(buf, header_end + 1)
                                    body_pos = header_end + 8
                                    last = body_pos + size
                                    whole = (
                                        kind == 3
                                        and frame_channel == number
                                        and size == body_size <= connection.body_limit
                                        and last < length
                                        and buf[last] == FRAME_END
                                    )
                                else:
                                    whole = not body_size
                                if whole:
                                    route = buf[pos + 13 : end - 1]
                                    header = buf[header_pos + 7 : header_end]
                                    mandatory = buf[end - 1] == 1
                                    pos = last + 1
                                    try:
                                        target = routes.get(route)
                                        if target is None:
                                            check_route(route)
                                        if header != connection.checked_header and accept_header(
                                            connection, header
                                        ):
                                            target = channel.resolve_special(route, header)
                                        if target is None:
                                            target = channel.resolve(route)
                                    except AmqpError as exc:
                                        if settling is not None:
                                            settling.channel.settle_one(settling, positions, Outcome.ACK)
                                            settling = None
                                        connection.failed(exc.during(*PUBLISH_IDS), channel)
                                        continue
                                    published += 1
                                    confirms = channel.confirms
                                    if confirms is None:
                                        tag = 0
                                    else:
                                        tag = confirms.published = confirms.published + 1
                                    target.publish(channel, tag, route, header, buf[body_pos:last], mandatory)
                                    continue
                        kind = 1
                    elif ident == _ACK and size == 13:
                        tag, multiple = ack_at(buf, pos + 11)
                        if not multiple & 1:
                            entry = channel.unacked.pop(tag, None)
                            if entry is not None:
                                pos = end + 1
                                consumer, position = entry
                                if consumer is not settling:
                                    if settling is not None:
                                        settling.channel.settle_one(settling, positions, Outcome.ACK)
                                    settling = consumer
                                    positions = []
                                positions.append(position)
                                continue
            if settling is not None:
                settling.channel.settle_one(settling, positions, Outcome.ACK)
                settling = None
            payload_pos, payload_number = pos + 7, int.from_bytes(buf[pos + 1 : pos + 3], "big")
            pos = end + 1
            connection.frame(kind, payload_number, buf[payload_pos:end])
            if connection.stalled or connection.ended:
                return pos, 0
            limit = connection.payload_limit
            number = 0
    finally:
        connection.counts.publish += published
        if settling is not None:
            settling.channel.settle_one(settling, positions, Outcome.ACK)
