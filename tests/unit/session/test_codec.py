"""Session messages survive the peer link, and nothing else gets through."""

from __future__ import annotations

from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.engine.core.model.entries import Run
from brokers.engine.core.session import messages as m
from brokers.engine.core.session.codec import decode, encode

u64 = st.integers(0, 2**64 - 1)
runs = st.lists(st.tuples(u64, u64), max_size=5)


@st.composite
def pieces(draw: st.DrawFn) -> list[m.Piece]:
    found: list[m.Piece] = []
    for _ in range(draw(st.integers(0, 3))):
        sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        found.append((draw(u64), draw(st.booleans()), ends, b"x" * ends[-1]))
    return found


fields: dict[object, st.SearchStrategy[object]] = {
    int: u64,
    bool: st.booleans(),
    bytes: st.binary(max_size=50),
    list[Run]: runs,
    list[m.Piece]: pieces(),
}


def instances(cls: type) -> st.SearchStrategy[m.Message]:
    own = {name: fields[kind] for name, kind in get_type_hints(cls).items()}
    if "priority" in own:
        own["priority"] = st.integers(-32768, 32767)
    if "mode" in own:
        own["mode"] = st.integers(0, 4)
    if "outcome" in own:
        own["outcome"] = st.integers(0, 2)
    return st.builds(cls, **own)


@pytest.mark.parametrize("cls", m.Message.__args__, ids=lambda cls: cls.__name__)
def test_round_trip(cls: type) -> None:
    @given(instances(cls))
    def check(message: m.Message) -> None:
        assert decode(b"".join(encode(message))) == message

    check()


@given(st.binary(max_size=80))
def test_anything_else_is_a_value_error(data: bytes) -> None:
    try:
        message = decode(data)
    except ValueError:
        return
    assert isinstance(message, tuple)


def test_what_is_cut_short_is_refused() -> None:
    whole = b"".join(encode(m.Deliver(7, 3, [(5, True, [3, 6], b"abcdef")])))
    for size in range(len(whole)):
        with pytest.raises(ValueError, match="."):
            decode(whole[:size])
