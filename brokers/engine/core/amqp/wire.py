"""How methods are written and read: a method is a frozen dataclass whose annotations name wire types.

``@method(50, 10)`` registers a class; its annotations, in order, are its arguments on the wire. Reserved
arguments are class variables: they are written with their default and skipped when read, and instances
do not carry them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import (
    Annotated,
    Any,
    ClassVar,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from brokers.engine.core.amqp.errors import AmqpError, command_invalid, syntax_error
from brokers.engine.core.amqp.table import Table, decode_table, encode_table

Bit = Annotated[bool, "bit"]
Octet = Annotated[int, "octet"]
Short = Annotated[int, "short"]
Long = Annotated[int, "long"]
LongLong = Annotated[int, "longlong"]
ShortString = Annotated[str, "shortstr"]
"""UTF-8; anything else is a syntax error."""
RoutingKey = Annotated[str, "key"]
"""A short string whose octets may be anything (surrogateescape keeps what is no UTF-8)."""
LongString = Annotated[bytes, "longstr"]
FieldTable = Annotated[Table, "table"]

_INTEGERS = {"octet": 1, "short": 2, "long": 4, "longlong": 8}


class Method:
    """A method of the protocol. ``content`` says that a content header and body follow."""

    __slots__ = ()
    class_id: ClassVar[int]
    method_id: ClassVar[int]
    name: ClassVar[str]
    """As the specification writes it, e.g. ``queue.declare-ok``."""
    content: ClassVar[bool] = False
    _wire: ClassVar[list[tuple[str, str, bool]]]


M = TypeVar("M", bound=Method)
_BY_ID: dict[int, type[Method]] = {}


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def method(class_id: int, method_id: int, *, content: bool = False) -> Callable[[type[M]], type[M]]:
    """Make a class a frozen, slotted dataclass and register it under its two numbers."""

    def register(cls: type[M]) -> type[M]:
        made = dataclass(frozen=True, slots=True)(cls)
        made.class_id = class_id
        made.method_id = method_id
        made.name = _spec_name(made.__name__)
        made.content = content
        made._wire = _layout(made)
        _BY_ID[class_id << 16 | method_id] = made
        return made

    return register


def _spec_name(name: str) -> str:
    words = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name)[1:]
    return words.replace("-", ".", 1)


def _layout(cls: type[Method]) -> list[tuple[str, str, bool]]:
    """(argument, wire type, reserved) in wire order."""
    layout = []
    inherited = get_type_hints(Method)
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if name in inherited:
            continue
        reserved = get_origin(hint) is ClassVar
        layout.append((name, get_args(get_args(hint)[0] if reserved else hint)[1], reserved))
    return layout


def method_class(ident: int) -> type[Method] | None:
    """The class registered for ``class_id << 16 | method_id``."""
    return _BY_ID.get(ident)


def all_methods() -> list[type[Method]]:
    return list(_BY_ID.values())


def decode_method(payload: bytes) -> Method:
    """Read the payload of a method frame.

    Raises ``AmqpError``: 503 COMMAND_INVALID for a method that does not exist, 502 SYNTAX_ERROR for
    arguments that are malformed, missing or too many.
    """
    if len(payload) < 4:
        raise syntax_error(f"method frame of {len(payload)} octets; a method takes 4 at least")
    cls = _BY_ID.get(int.from_bytes(payload[:4], "big"))
    if cls is None:
        class_id, method_id = struct.unpack_from(">HH", payload)
        raise command_invalid(f"unknown method {class_id}.{method_id}").during(class_id, method_id)
    try:
        return cls(*_decode_arguments(cls, payload))
    except AmqpError as exc:
        exc.during(cls.class_id, cls.method_id)
        raise


def _decode_arguments(cls: type[Method], payload: bytes) -> list[Any]:
    arguments: list[Any] = []
    pos, end = 4, len(payload)
    bits = bit = 0
    for name, kind, reserved in cls._wire:
        value: object
        if kind == "bit":
            if not bit:
                if pos >= end:
                    raise _missing(cls, name)
                bits, bit, pos = payload[pos], 1, pos + 1
            value = bits & bit != 0
            bit = bit << 1 & 0xFF
        else:
            bit = 0
            value, pos = _decode_argument(cls, name, kind, payload, pos, end)
        if not reserved:
            arguments.append(value)
    if pos != end:
        raise syntax_error(f"{end - pos} octets too many after the arguments of {cls.name}")
    return arguments


def _decode_argument(
    cls: type[Method], name: str, kind: str, payload: bytes, pos: int, end: int
) -> tuple[object, int]:
    if kind == "table":
        return decode_table(payload, pos, end)
    size = _INTEGERS.get(kind)
    if size is not None:
        after = pos + size
        if after > end:
            raise _missing(cls, name)
        return int.from_bytes(payload[pos:after], "big"), after
    width = 4 if kind == "longstr" else 1
    start = pos + width
    after = start + int.from_bytes(payload[pos:start], "big")
    if start > end or after > end:
        raise _missing(cls, name)
    raw = payload[start:after]
    if kind == "longstr":
        return raw, after
    try:
        return raw.decode("utf-8", "surrogateescape" if kind == "key" else "strict"), after
    except UnicodeDecodeError as exc:
        raise syntax_error(f"{name} of {cls.name} is not UTF-8") from exc


def _missing(cls: type[Method], name: str) -> AmqpError:
    return syntax_error(f"{cls.name} ends before the end of its argument {name}")


def encode(method: Method) -> bytes:
    """The payload of the method's frame.

    Raises ``ValueError`` for an argument that does not fit its wire type, e.g. a short string of more than
    255 octets.
    """
    parts = [struct.pack(">HH", method.class_id, method.method_id)]
    bits = bit = 0
    for name, kind, _ in method._wire:
        value = getattr(method, name)
        if kind == "bit":
            bits |= bit if value else 0
            if bit:
                bit <<= 1
            else:
                bits, bit = int(bool(value)), 2
            continue
        if bit:
            parts.append(bytes((bits,)))
            bits = bit = 0
        parts.append(_encode_argument(method, name, kind, value))
    if bit:
        parts.append(bytes((bits,)))
    return b"".join(parts)


def _encode_argument(method: Method, name: str, kind: str, value: Any) -> bytes:
    if kind == "table":
        return encode_table(value)
    size = _INTEGERS.get(kind)
    try:
        if size is not None:
            return int(value).to_bytes(size, "big")
        if kind == "longstr":
            return len(value).to_bytes(4, "big") + bytes(value)
        raw: bytes = value.encode("utf-8", "surrogateescape" if kind == "key" else "strict")
        return bytes((len(raw),)) + raw
    except (OverflowError, ValueError) as exc:
        raise ValueError(f"{name} of {method.name} does not fit a {kind}: {value!r}") from exc
