import struct
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.engine.core.amqp.errors import AmqpError
from brokers.engine.core.amqp.table import MAX_DEPTH, Timestamp, check_table, decode_table, encode_table
from tests.unit.amqp.recording import protocol_error
from tests.unit.amqp.strategies import tables


def decode(raw: bytes) -> dict[str, object]:
    table, end = decode_table(raw, 0, len(raw))
    assert end == len(raw) == check_table(raw, 0, len(raw))
    return table


def agree(raw: bytes) -> None:
    """Reading and mere checking find the same octets sound, and raise nothing but 502."""
    read, checked = (
        protocol_error(decode_table, raw, 0, len(raw)),
        protocol_error(check_table, raw, 0, len(raw)),
    )
    assert (read is None) == (checked is None)
    assert read is None or read.code == 502
    assert checked is None or checked.code == 502


def table_of(field: bytes) -> bytes:
    """A table with one field "k" of the given type and value."""
    content = b"\x01k" + field
    return len(content).to_bytes(4, "big") + content


@given(tables)
def test_a_table_survives_the_wire(table: dict[str, object]) -> None:
    back = decode(encode_table(table))
    assert back == table
    assert [type(value) for value in back.values()] == [type(value) for value in table.values()]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"t\x01", True),
        (b"t\x00", False),
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xfe", -2),
        (b"u\xff\xfe", 65534),
        (b"I\xff\xff\xff\xfd", -3),
        (b"i\xff\xff\xff\xfd", 2**32 - 3),
        (b"l" + b"\xff" * 8, -1),
        (b"L" + b"\xff" * 8, 2**64 - 1),
        (b"f" + struct.pack(">f", 0.5), 0.5),
        (b"d" + struct.pack(">d", 0.1), 0.1),
        (b"D\x02\x00\x00\x01\x3a", Decimal("3.14")),
        (b"S\x00\x00\x00\x02\xc3\xa9", "é"),
        (b"S\x00\x00\x00\x01\xff", "\udcff"),
        (b"A\x00\x00\x00\x03Vt\x01", [None, True]),
        (b"T\x00\x00\x00\x00\x00\x00\x00\x07", Timestamp(7)),
        (b"F\x00\x00\x00\x03\x01aV", {"a": None}),
        (b"V", None),
        (b"x\x00\x00\x00\x02\x00\xff", b"\x00\xff"),
    ],
)
def test_every_type_letter_is_read_as_rabbitmq_writes_it(field: bytes, value: object) -> None:
    read = decode(table_of(field))["k"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (5, b"I\x00\x00\x00\x05"),
        (-(2**31), b"I\x80\x00\x00\x00"),
        (2**31, b"l\x00\x00\x00\x00\x80\x00\x00\x00"),
        (2**63, b"L\x80" + b"\x00" * 7),
        (Timestamp(1), b"T" + b"\x00" * 7 + b"\x01"),
        (True, b"t\x01"),
        (b"\xff", b"x\x00\x00\x00\x01\xff"),
        ("a", b"S\x00\x00\x00\x01a"),
        ((1,), b"A\x00\x00\x00\x05I\x00\x00\x00\x01"),
        (Decimal("1E+2"), b"D\x00\x00\x00\x00\x64"),
    ],
)
def test_the_narrowest_fitting_letter_is_written(value: object, field: bytes) -> None:
    assert encode_table({"k": value}) == table_of(field)


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        -(2**63) - 1,
        Timestamp(-1),
        Decimal(-1),
        Decimal("NaN"),
        Decimal("1E+20"),
        Decimal(2**32),
        object(),
    ],
)
def test_what_no_table_holds_is_refused_by_name(value: object) -> None:
    with pytest.raises(ValueError, match="decimal|64 bits|holds no"):
        encode_table({"k": value})


def test_a_field_name_has_at_most_255_octets() -> None:
    assert decode(encode_table({"k" * 255: None})) == {"k" * 255: None}
    with pytest.raises(ValueError, match="256 octets"):
        encode_table({"k" * 256: None})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00\x00\x00",
        b"\x00\x00\x00\x01",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x01\x05",
        b"\x00\x00\x00\x02\x01k",
        table_of(b"?"),
        table_of(b"t"),
        table_of(b"I\x00"),
        table_of(b"D\x00"),
        table_of(b"T\x00"),
        table_of(b"S\x00"),
        table_of(b"S\xff\xff\xff\xff"),
        table_of(b"A\x00\x00\x00\x02V"),
        table_of(b"A\x00\x00\x00\x01S"),
        table_of(b"F\x00\x00\x01\x00"),
        table_of(b"x\x7f\xff\xff\xffabc"),
    ],
)
def test_malformed_tables_are_syntax_errors(raw: bytes) -> None:
    with pytest.raises(AmqpError):
        decode_table(raw, 0, len(raw))
    agree(raw)


def nested(depth: int, wrap: bytes) -> bytes:
    """A table with ``depth`` levels, itself counted."""
    raw = b"\x00\x00\x00\x00"
    for level in range(depth - 1):
        inner = wrap + raw
        if wrap == b"F" or level == depth - 2:
            inner = b"\x01k" + inner
        raw = len(inner).to_bytes(4, "big") + inner
    return raw


@pytest.mark.parametrize("wrap", [b"F", b"A"])
def test_nesting_has_a_limit(wrap: bytes) -> None:
    decode(nested(MAX_DEPTH, wrap))
    for depth in (MAX_DEPTH + 1, 10_000):
        raw = nested(depth, wrap)
        for read in (decode_table, check_table):
            with pytest.raises(AmqpError, match="nested deeper than 16"):
                read(raw, 0, len(raw))


def test_what_is_too_deep_to_read_is_not_written_either() -> None:
    table: dict[str, object] = {}
    array: list[object] = []
    for _ in range(MAX_DEPTH - 1):
        table = {"k": table}
        array = [array]
    encode_table(table)
    with pytest.raises(ValueError, match="nested"):
        encode_table({"k": table})
    encode_table({"k": array[0]})
    with pytest.raises(ValueError, match="nested"):
        encode_table({"k": array})


@given(st.binary(max_size=200))
def test_any_octets_give_a_table_or_a_syntax_error(raw: bytes) -> None:
    agree(raw)


@given(tables, st.data())
def test_damaged_tables_give_a_table_or_a_syntax_error(table: dict[str, object], data: st.DataObject) -> None:
    raw = bytearray(encode_table(table))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    agree(bytes(raw))
