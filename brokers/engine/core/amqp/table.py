"""Field tables: the typed name-value maps of the protocol, with RabbitMQ's type letters.

The specification's letters and RabbitMQ's differ; clients follow RabbitMQ
(https://www.rabbitmq.com/amqp-0-9-1-errata, section 3). Python types:

======  =====================================  =======================
letter  meaning                                Python
======  =====================================  =======================
t       boolean                                bool
b B     signed, unsigned 8 bits                int
s u     signed, unsigned 16 bits               int
I i     signed, unsigned 32 bits               int
l L     signed, unsigned 64 bits               int
f d     IEEE 754, 32 and 64 bits               float
D       8 bits scale, 32 bits value            decimal.Decimal
S       long string                            str (surrogateescape)
A       array                                  list
T       seconds since 1970, 64 bits            Timestamp
F       table                                  dict
V       nothing                                None
x       octets                                 bytes
======  =====================================  =======================

An int is written as ``I`` when it fits and as ``l`` or ``L`` otherwise. Strings that are no UTF-8 survive a
round trip (surrogateescape).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal

from brokers.engine.core.amqp.errors import AmqpError, syntax_error

Table = dict[str, object]

MAX_DEPTH = 16
"""How deep tables and arrays may nest, the outermost counted."""


class Timestamp(int):
    """Seconds since 1970 as the protocol has them (64 bits, no zone, no fractions)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Timestamp({int(self)})"


_U32 = struct.Struct(">I")
_DECIMAL = struct.Struct(">BI")
_SCALARS: dict[int, struct.Struct] = {
    ord(letter): struct.Struct(">" + code) for letter, code in zip("bBsuIilLfd", "bBhHiIqQfd", strict=True)
}


def decode_table(buf: bytes, pos: int, end: int, depth: int = 1) -> tuple[Table, int]:
    """Read the table (its 32-bit length first) at ``pos``; nothing at or beyond ``end`` belongs to it.

    Returns the table and the position after it. Raises ``AmqpError`` 502 on anything malformed. What is
    allocated is bounded by the octets read: lengths are checked before they are used.
    """
    pos, stop = _span(buf, pos, end, depth, "table")
    table: Table = {}
    while pos < stop:
        key_end = pos + 1 + buf[pos]
        if key_end >= stop:
            raise _overrun("field name", pos)
        key = buf[pos + 1 : key_end].decode("utf-8", "surrogateescape")
        table[key], pos = _decode_value(buf, key_end, stop, depth)
    return table, pos


def _span(buf: bytes, pos: int, end: int, depth: int, what: str) -> tuple[int, int]:
    if depth > MAX_DEPTH:
        raise syntax_error(f"tables nested deeper than {MAX_DEPTH} levels")
    if pos + 4 > end:
        raise _overrun(what, pos)
    start = pos + 4
    stop = start + int.from_bytes(buf[pos:start], "big")
    if stop > end:
        raise _overrun(what, pos)
    return start, stop


def _overrun(what: str, pos: int) -> AmqpError:
    return syntax_error(f"{what} at octet {pos} is longer than what holds it")


def _unknown(kind: int, pos: int) -> AmqpError:
    return syntax_error(f"unknown field type 0x{kind:02x} at octet {pos} of a table")


def _decode_value(buf: bytes, pos: int, end: int, depth: int) -> tuple[object, int]:
    kind = buf[pos]
    pos += 1
    scalar = _SCALARS.get(kind)
    if scalar is not None:
        after = pos + scalar.size
        if after > end:
            raise _overrun("field value", pos)
        return scalar.unpack_from(buf, pos)[0], after
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise _unknown(kind, pos - 1)
    return decoder(buf, pos, end, depth)


def _decode_bool(buf: bytes, pos: int, end: int, depth: int) -> tuple[object, int]:
    if pos >= end:
        raise _overrun("field value", pos)
    return buf[pos] != 0, pos + 1


def _decode_decimal(buf: bytes, pos: int, end: int, depth: int) -> tuple[object, int]:
    if pos + 5 > end:
        raise _overrun("field value", pos)
    scale, value = _DECIMAL.unpack_from(buf, pos)
    return Decimal((0, tuple(int(digit) for digit in str(value)), -scale)), pos + 5


def _decode_timestamp(buf: bytes, pos: int, end: int, depth: int) -> tuple[object, int]:
    if pos + 8 > end:
        raise _overrun("field value", pos)
    return Timestamp(int.from_bytes(buf[pos : pos + 8], "big")), pos + 8


def _decode_string(buf: bytes, pos: int, end: int, depth: int) -> tuple[object, int]:
    start, stop = _span(buf, pos, end, 1, "long string")
    return buf[start:stop].decode("utf-8", "surrogateescape"), stop


def _decode_octets(buf: bytes, pos: int, end: int, depth: int) -> tuple[object, int]:
    start, stop = _span(buf, pos, end, 1, "octets")
    return bytes(buf[start:stop]), stop


def _decode_array(buf: bytes, pos: int, end: int, depth: int) -> tuple[object, int]:
    pos, stop = _span(buf, pos, end, depth + 1, "array")
    values: list[object] = []
    while pos < stop:
        value, pos = _decode_value(buf, pos, stop, depth + 1)
        values.append(value)
    return values, pos


def _decode_nested(buf: bytes, pos: int, end: int, depth: int) -> tuple[object, int]:
    return decode_table(buf, pos, end, depth + 1)


def _decode_void(buf: bytes, pos: int, end: int, depth: int) -> tuple[object, int]:
    return None, pos


_DECODERS: dict[int, Callable[[bytes, int, int, int], tuple[object, int]]] = {
    ord("t"): _decode_bool,
    ord("D"): _decode_decimal,
    ord("S"): _decode_string,
    ord("A"): _decode_array,
    ord("T"): _decode_timestamp,
    ord("F"): _decode_nested,
    ord("V"): _decode_void,
    ord("x"): _decode_octets,
}


_SIZED, _TABLE, _ARRAY = -1, -2, -3
_WIDTHS: dict[int, int] = {kind: scalar.size for kind, scalar in _SCALARS.items()} | {
    ord("t"): 1,
    ord("D"): _DECIMAL.size,
    ord("T"): 8,
    ord("V"): 0,
    ord("S"): _SIZED,
    ord("x"): _SIZED,
    ord("F"): _TABLE,
    ord("A"): _ARRAY,
}
"""How many octets follow a type letter; negative: a 32-bit length and as many octets as that says."""


def check_table(buf: bytes, pos: int, end: int) -> int:
    """Like ``decode_table``, but builds nothing: the position after the table. Raises ``AmqpError`` 502."""
    pos, stop = _span(buf, pos, end, 1, "table")
    _check_fields(buf, pos, stop, 1, True)
    return stop


def _check_fields(buf: bytes, pos: int, stop: int, depth: int, named: bool) -> None:
    if depth > MAX_DEPTH:
        raise syntax_error(f"tables nested deeper than {MAX_DEPTH} levels")
    widths = _WIDTHS
    while pos < stop:
        start = pos
        if named:
            pos += 1 + buf[pos]
            if pos >= stop:
                raise _overrun("field name", start)
        width = widths.get(buf[pos])
        pos += 1
        if width is None:
            raise _unknown(buf[pos - 1], pos - 1)
        if width < 0:
            width, kind = int.from_bytes(buf[pos : pos + 4], "big"), width
            pos += 4
            if pos + width > stop:
                raise _overrun("field value", start)
            if kind != _SIZED:
                _check_fields(buf, pos, pos + width, depth + 1, kind == _TABLE)
        pos += width
    if pos > stop:
        raise _overrun("field value", stop)


def raw_fields(buf: bytes, pos: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of each field of the table at ``pos``, which ``check_table`` has found sound."""
    stop = pos + 4 + int.from_bytes(buf[pos : pos + 4], "big")
    pos += 4
    while pos < stop:
        start = pos
        value = pos + 1 + buf[pos]
        width = _WIDTHS[buf[value]]
        pos = value + 1
        if width < 0:
            pos += 4 + int.from_bytes(buf[pos : pos + 4], "big")
        else:
            pos += width
        yield buf[start + 1 : value], start, pos


def encode_field(name: str, value: object) -> bytes:
    """One field of a table. Raises ``ValueError`` for what no table can hold."""
    return _encode_table({name: value}, 1)[4:]


def encode_table(table: Mapping[str, object]) -> bytes:
    """The table with its length in front. Raises ``ValueError`` for what no table can hold."""
    return _encode_table(table, 1)


def _encode_table(table: Mapping[str, object], depth: int) -> bytes:
    if depth > MAX_DEPTH:
        raise ValueError(f"tables nested deeper than {MAX_DEPTH} levels cannot be sent")
    parts: list[bytes] = []
    for key, value in table.items():
        name = key.encode("utf-8", "surrogateescape")
        if len(name) > 255:
            raise ValueError(f"field name of {len(name)} octets; 255 at most: {key[:40]!r}...")
        parts += (bytes((len(name),)), name, _encode_value(value, depth))
    content = b"".join(parts)
    return _U32.pack(len(content)) + content


def _encode_value(value: object, depth: int) -> bytes:
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogateescape")
        return b"S" + _U32.pack(len(raw)) + raw
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, int):
        return _encode_int(value)
    if value is None:
        return b"V"
    if isinstance(value, float):
        return b"d" + _SCALARS[ord("d")].pack(value)
    if isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value)
        return b"x" + _U32.pack(len(raw)) + raw
    if isinstance(value, Mapping):
        return b"F" + _encode_table(value, depth + 1)
    if isinstance(value, list | tuple):
        if depth >= MAX_DEPTH:
            raise ValueError(f"tables nested deeper than {MAX_DEPTH} levels cannot be sent")
        content = b"".join([_encode_value(item, depth + 1) for item in value])
        return b"A" + _U32.pack(len(content)) + content
    if isinstance(value, Decimal):
        return _encode_decimal(value)
    raise ValueError(f"a field table holds no {type(value).__name__}: {value!r}")


def _encode_int(value: int) -> bytes:
    if isinstance(value, Timestamp):
        letter = b"L"
    elif -(2**31) <= value < 2**31:
        letter = b"I"
    elif -(2**63) <= value < 2**63:
        letter = b"l"
    else:
        letter = b"L"
    try:
        raw = _SCALARS[letter[0]].pack(value)
    except struct.error as exc:
        raise ValueError(f"{value} does not fit into 64 bits") from exc
    return (b"T" if isinstance(value, Timestamp) else letter) + raw


def _encode_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    number = int("".join(map(str, digits)) or "0")
    if isinstance(exponent, int) and 0 < exponent <= 10:
        number, exponent = number * 10**exponent, 0
    if sign or not isinstance(exponent, int) or not -255 <= exponent <= 0 or number >= 2**32:
        raise ValueError(f"{value} is no decimal of the protocol: 32 bits unsigned, up to 255 places")
    return b"D" + _DECIMAL.pack(-exponent, number)
