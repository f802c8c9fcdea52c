from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.engine.control.protocol import (
    ControlError,
    LineBuffer,
    check_version,
    decode,
    encode,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.lists(st.dictionaries(st.text(), json_values), max_size=5), st.integers(1, 50))
def test_messages_survive_any_cutting_of_the_stream(messages: list[dict[str, object]], size: int) -> None:
    data = b"".join(map(encode, messages))
    buffer, seen = LineBuffer(), []
    for start in range(0, len(data), size):
        buffer.feed(data[start : start + size])
        while (line := buffer.next_line()) is not None:
            seen.append(decode(line))
    assert seen == messages


def test_names_with_newlines_and_odd_bytes_stay_on_one_line() -> None:
    name = "a\nb\r\x00" + b"\xff".decode(errors="surrogateescape")
    line = encode({"name": name})
    assert line.count(b"\n") == 1
    assert decode(line) == {"name": name}


def test_a_line_at_the_limit_passes_and_one_over_it_does_not() -> None:
    buffer = LineBuffer(max_line=8)
    buffer.feed(b"1234567\n")
    assert buffer.next_line() == b"1234567"
    buffer.feed(b"12345678\n")
    with pytest.raises(ControlError, match="longer than 8 bytes"):
        buffer.next_line()


def test_an_endless_line_is_refused_before_it_ends() -> None:
    buffer = LineBuffer(max_line=8)
    buffer.feed(b"x" * 8)
    with pytest.raises(ControlError, match="longer than 8 bytes"):
        buffer.next_line()


def test_what_is_no_json_is_not_sent() -> None:
    with pytest.raises(ControlError, match="cannot be written as JSON"):
        encode({"lag": float("nan")})


def test_another_version_is_named() -> None:
    with pytest.raises(ControlError, match="version 1 .* version 7"):
        check_version({"v": 7})


def test_an_error_survives_the_wire() -> None:
    error = ControlError.from_wire(ControlError("not-found", "no queue 'x'").as_dict())
    assert (error.code, error.text) == ("not-found", "no queue 'x'")
    assert "not understood: 7" in ControlError.from_wire(7).text
