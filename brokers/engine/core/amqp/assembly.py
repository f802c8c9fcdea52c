"""Puts the frames of a ``basic.publish`` together: method, content header, body in any number of pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brokers.engine.core.amqp.constants import CLASS_BASIC, FRAME_BODY, FRAME_HEADER
from brokers.engine.core.amqp.errors import (
    AmqpError,
    not_implemented,
    precondition_failed,
    resource_error,
    syntax_error,
    unexpected_frame,
)
from brokers.engine.core.amqp.expiration import EXPIRATION, parse_expiration
from brokers.engine.core.amqp.port import DIRECT_REPLY_TO
from brokers.engine.core.amqp.properties import (
    HEADER,
    HEADERS,
    REPLY_TO,
    USER_ID,
    check_header,
    decode_properties,
)
from brokers.engine.core.amqp.routes import PUBLISH_IDS, check_route

if TYPE_CHECKING:
    from brokers.engine.core.amqp.connection import Connection

PUBLISH = b"\x00\x3c\x00\x28"
"""How the payload of ``basic.publish`` begins."""
_CC, _BCC = b"\x02CC", b"\x03BCC"
"""Names of header fields as they stand in a table; what merely looks like one is sorted out by the broker."""
_DIRECT_REPLY = bytes((len(DIRECT_REPLY_TO),)) + DIRECT_REPLY_TO.encode()


class Assembly:
    """One message on its way in; ``complete`` once all of it is there."""

    __slots__ = ("_body", "_connection", "_missing", "complete", "header", "mandatory", "route", "special")

    def __init__(self, connection: Connection, payload: bytes) -> None:
        """``payload`` is the method frame's. Raises ``AmqpError`` 502, or 540 for immediate=true."""
        self._connection = connection
        self.route = payload[6:-1]
        bits = payload[-1]
        check_route(self.route)
        if bits & 2:
            raise not_implemented("immediate=true").during(*PUBLISH_IDS)
        self.mandatory = bits & 1 == 1
        self.header = b""
        self.special = False
        """See ``accept_header``."""
        self.complete = False
        self._missing = 0
        self._body = bytearray()

    @property
    def body(self) -> bytes:
        return bytes(self._body)

    def add(self, kind: int, payload: bytes) -> None:
        """Take the next frame. Raises ``AmqpError``, which names basic.publish."""
        try:
            if self.header:
                self._add_body(kind, payload)
            else:
                self._add_header(kind, payload)
        except AmqpError as exc:
            raise exc.during(*PUBLISH_IDS) from None
        self.complete = not self._missing

    def drop(self) -> None:
        """It is handed over or given up: the connection does not hold it any more."""
        self._connection.assembling -= len(self._body)

    def _add_header(self, kind: int, payload: bytes) -> None:
        expected = f"expected content header for class {CLASS_BASIC}, got"
        if kind != FRAME_HEADER:
            raise unexpected_frame(f"{expected} non content header frame instead")
        class_id = int.from_bytes(payload[:2], "big")
        if len(payload) >= 2 and class_id != CLASS_BASIC:
            raise unexpected_frame(f"{expected} one for class {class_id} instead")
        self.special = accept_header(self._connection, payload)
        size = HEADER.unpack_from(payload)[2]
        limit = self._connection.settings.max_message_size
        if size > limit:
            raise precondition_failed(f"message size {size} is larger than configured max size {limit}")
        self.header = payload
        self._missing = size

    def _add_body(self, kind: int, payload: bytes) -> None:
        if kind != FRAME_BODY:
            raise unexpected_frame("expected content body, got non content body frame instead")
        size = len(payload)
        if size > self._missing:
            raise syntax_error(f"content body is {size - self._missing} octets longer than its header says")
        self._body += payload
        self._missing -= size
        connection = self._connection
        connection.assembling += size
        limit = connection.settings.max_assembling
        if connection.assembling > limit:
            raise resource_error(f"unfinished messages on this connection take more than {limit} octets")


def accept_header(connection: Connection, header: bytes) -> bool:
    """Make sure that consumers can read ``header`` and that it names no other user as the publisher.

    Whether the message is *special*: its header names further routes (CC, BCC) or has to be rewritten
    (BCC, direct reply-to), see ``port.Broker.resolve_special``. Raises ``AmqpError`` 502, 406. A header that
    passed is remembered, as many messages have the same.
    """
    check_header(header)
    flags = HEADER.unpack_from(header)[3]
    if flags & USER_ID:
        claimed, user = decode_properties(header).user_id, connection.user
        if claimed != user:
            raise precondition_failed(
                f"user_id property set to '{claimed}' but authenticated user was '{user}'"
            )
    if flags & EXPIRATION:
        parse_expiration(decode_properties(header).expiration or "")
    if flags & REPLY_TO and _DIRECT_REPLY in header:
        return True
    if flags & HEADERS and (_CC in header or _BCC in header):
        return True
    connection.checked_header = header
    return False
