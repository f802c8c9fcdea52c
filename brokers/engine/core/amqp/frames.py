"""Frames: seven octets of type, channel and size, the payload, and an end octet (section 2.3)."""

from __future__ import annotations

import struct

from brokers.engine.core.amqp.constants import (
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD,
)
from brokers.engine.core.amqp.errors import AmqpError, frame_error, unexpected_frame
from brokers.engine.core.amqp.wire import Method, encode

FRAME = struct.Struct(">BHI")
"""Type, channel, size of the payload."""

END = bytes((FRAME_END,))


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return FRAME.pack(kind, channel, len(payload)) + payload + END


HEARTBEAT = frame(FRAME_HEARTBEAT, 0, b"")


def method_frame(channel: int, method: Method) -> bytes:
    return frame(FRAME_METHOD, channel, encode(method))


def content_frames(channel: int, method: bytes, header: bytes, body: bytes, frame_max: int) -> list[bytes]:
    """What carries a message: ``method`` (a method frame's payload), header and body.

    ``frame_max`` is the negotiated limit of a whole frame in octets, 0 for none.
    """
    out = [
        FRAME.pack(FRAME_METHOD, channel, len(method)),
        method,
        END + FRAME.pack(FRAME_HEADER, channel, len(header)),
        header,
    ]
    step = frame_max - FRAME_OVERHEAD if frame_max else len(body)
    if len(body) <= step:
        if body:
            out += (END + FRAME.pack(FRAME_BODY, channel, len(body)), body)
    else:
        for start in range(0, len(body), step):
            piece = body[start : start + step]
            out += (END + FRAME.pack(FRAME_BODY, channel, len(piece)), piece)
    out.append(END)
    return out


def _snippet(payload: bytes) -> str:
    """The beginning of a payload as RabbitMQ's texts show it."""
    which = "all" if len(payload) <= 16 else "first 16"
    return f"{which} octets = <<{','.join(map(str, payload[:16]))}>>"


def frame_too_large(kind: int, size: int, frame_max: int) -> AmqpError:
    most = frame_max - FRAME_OVERHEAD
    return frame_error(f"type {kind}, all octets = <<>>: {{frame_too_large,{size},{most}}}")


def invalid_frame_end(kind: int, payload: bytes, marker: int) -> AmqpError:
    return frame_error(f"type {kind}, {_snippet(payload)}: {{invalid_frame_end_marker,{marker}}}")


def unknown_frame(kind: int, payload: bytes) -> AmqpError:
    return frame_error(f"type {kind}, {_snippet(payload)}: unknown_frame")


def frame_not_expected(kind: int, payload: bytes) -> AmqpError:
    return unexpected_frame(f"type {kind}, {_snippet(payload)}")
