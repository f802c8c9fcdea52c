import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.engine.core.amqp.errors import AmqpError
from brokers.engine.core.amqp.properties import (
    BasicProperties,
    body_size,
    check_header,
    decode_properties,
    encode_header,
)
from brokers.engine.core.amqp.table import Timestamp
from tests.unit.amqp.recording import protocol_error
from tests.unit.amqp.strategies import properties


@given(properties, st.integers(0, 2**64 - 1))
def test_properties_survive_the_wire(given_properties: BasicProperties, size: int) -> None:
    header = encode_header(given_properties, size)
    check_header(header)
    assert decode_properties(header) == given_properties
    assert body_size(header) == size


def test_properties_look_as_the_specification_draws_them() -> None:
    header = encode_header(
        BasicProperties(content_type="a", delivery_mode=2, timestamp=Timestamp(1), app_id="b"), 5
    )
    assert header == (
        b"\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x90\x48\x01a\x02" + b"\x00" * 7 + b"\x01\x01b"
    )


@given(properties, st.data())
def test_cut_headers_are_syntax_errors(given_properties: BasicProperties, data: st.DataObject) -> None:
    header = encode_header(given_properties, 0)
    with pytest.raises(AmqpError) as caught:
        check_header(header[: data.draw(st.integers(0, len(header) - 1))])
    assert caught.value.code == 502


@given(st.binary(max_size=80))
def test_any_octets_pass_only_if_they_can_be_decoded(rest: bytes) -> None:
    header = b"\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05" + rest
    checked, decoded = protocol_error(check_header, header), protocol_error(decode_properties, header)
    assert (checked is None) == (decoded is None)
    assert checked is None or checked.code == 502


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"\x00\x3c\x00\x00" + bytes(8) + b"\x00\x01", "unknown property flags 0x0001"),
        (b"\x00\x3c\x00\x00" + bytes(8) + b"\x00\x02\x00", "unknown property flags 0x0002"),
        (b"\x00\x32\x00\x00" + bytes(10), "class 50"),
        (b"\x00\x3c\x00\x01" + bytes(10), "weight 1"),
        (b"\x00\x3c\x00\x00" + bytes(10) + b"x", "1 octets too many"),
        (b"\x00\x3c\x00\x00" + bytes(8) + b"\x20\x00\x00\x00\x00\x02\x01k", "too many|field"),
    ],
)
def test_malformed_headers_say_what_is_wrong(header: bytes, text: str) -> None:
    with pytest.raises(AmqpError, match=text):
        check_header(header)


def test_what_does_not_fit_is_not_written() -> None:
    with pytest.raises(ValueError, match="property message_id of 256 octets"):
        encode_header(BasicProperties(message_id="m" * 256), 0)
    with pytest.raises(ValueError, match="property priority does not fit"):
        encode_header(BasicProperties(priority=256), 0)
