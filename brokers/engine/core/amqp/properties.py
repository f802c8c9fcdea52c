"""The content header: class, weight, body size, property flags and the basic properties (section 4.2.6.1).

The broker passes headers on as they came; ``check_header`` only makes sure that a consumer will be able to
read one. Decoding is for those who need a property, e.g. headers exchanges and the console.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields

from brokers.engine.core.amqp.constants import CLASS_BASIC
from brokers.engine.core.amqp.errors import AmqpError, syntax_error
from brokers.engine.core.amqp.table import Table, Timestamp, check_table, decode_table, encode_table

HEADER = struct.Struct(">HHQH")
"""Class, weight, size of the body, property flags."""

USER_ID = 0x0010
"""The flag of the property ``user_id``."""
HEADERS = 0x2000
"""The flag of the property ``headers``."""
REPLY_TO = 0x0200
"""The flag of the property ``reply_to``."""


@dataclass(frozen=True, slots=True)
class BasicProperties:
    """The properties of a message; None where the publisher gave none. In wire order."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Table | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: Timestamp | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None


_STRING, _TABLE = 0, -1
_SPECIAL = {"headers": _TABLE, "delivery_mode": 1, "priority": 1, "timestamp": 8}
PROPERTIES: list[tuple[int, str, int]] = [
    (0x8000 >> place, field.name, _SPECIAL.get(field.name, _STRING))
    for place, field in enumerate(fields(BasicProperties))
]
"""(flag, name, octets; 0 for a short string, -1 for a table)."""

_KNOWN = sum(flag for flag, _, _ in PROPERTIES)
_shapes: dict[int, tuple[int, ...]] = {0: ()}


def _shape(flags: int) -> tuple[int, ...]:
    """The widths of the properties that ``flags`` announces; at most 2**14 of these are ever kept."""
    shape = _shapes.get(flags)
    if shape is None:
        if flags & ~_KNOWN:
            raise syntax_error(f"unknown property flags 0x{flags & ~_KNOWN:04x} in a content header")
        shape = _shapes[flags] = tuple(width for flag, _, width in PROPERTIES if flags & flag)
    return shape


def _fixed_part(header: bytes) -> tuple[int, int]:
    """(size of the body, flags)."""
    if len(header) < HEADER.size:
        raise syntax_error(f"content header of {len(header)} octets; {HEADER.size} at least")
    class_id, weight, body_size, flags = HEADER.unpack_from(header)
    if class_id != CLASS_BASIC or weight != 0:
        raise syntax_error(f"content header of class {class_id}, weight {weight}; expected {CLASS_BASIC}, 0")
    return body_size, flags


def check_header(header: bytes) -> None:
    """Raise ``AmqpError`` 502 unless ``header`` (a content header frame's payload) can be decoded."""
    _, flags = _fixed_part(header)
    pos, end = HEADER.size, len(header)
    for width in _shape(flags):
        if width == _STRING:
            if pos >= end:
                raise _ends_early()
            pos += 1 + header[pos]
        elif width == _TABLE:
            pos = check_table(header, pos, end)
        else:
            pos += width
    if pos > end:
        raise _ends_early()
    if pos != end:
        raise syntax_error(f"{end - pos} octets too many after the properties of a content header")


def _ends_early() -> AmqpError:
    return syntax_error("content header ends before the end of its properties")


def decode_properties(header: bytes) -> BasicProperties:
    """The properties in ``header``, a content header frame's payload. Raises ``AmqpError`` 502."""
    check_header(header)
    _, flags = _fixed_part(header)
    pos = HEADER.size
    values: dict[str, object] = {}
    for flag, name, width in PROPERTIES:
        if not flags & flag:
            continue
        if width == _STRING:
            start = pos + 1
            pos = start + header[pos]
            values[name] = header[start:pos].decode("utf-8", "surrogateescape")
        elif width == _TABLE:
            values[name], pos = decode_table(header, pos, len(header))
        else:
            number = int.from_bytes(header[pos : pos + width], "big")
            values[name] = Timestamp(number) if name == "timestamp" else number
            pos += width
    return BasicProperties(**values)  # type: ignore[arg-type]  # each value has its field's type by _SPECIAL


def body_size(header: bytes) -> int:
    """How long the body is, in octets."""
    return _fixed_part(header)[0]


def encode_header(properties: BasicProperties, body_size: int) -> bytes:
    """A content header frame's payload. Raises ``ValueError`` for a property that does not fit."""
    flags = 0
    parts: list[bytes] = [b""]
    for flag, name, width in PROPERTIES:
        value = getattr(properties, name)
        if value is None:
            continue
        flags |= flag
        if width == _STRING:
            raw = value.encode("utf-8", "surrogateescape")
            if len(raw) > 255:
                raise ValueError(f"property {name} of {len(raw)} octets; 255 at most")
            parts += (bytes((len(raw),)), raw)
        elif width == _TABLE:
            parts.append(encode_table(value))
        else:
            try:
                parts.append(int(value).to_bytes(width, "big"))
            except OverflowError as exc:
                raise ValueError(f"property {name} does not fit {width} octets: {value}") from exc
    parts[0] = HEADER.pack(CLASS_BASIC, 0, body_size, flags)
    return b"".join(parts)
