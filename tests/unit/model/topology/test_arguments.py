"""Table values and their JSON form."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.engine.core.amqp.table import Timestamp
from brokers.engine.core.model.arguments import (
    arguments_from_json,
    arguments_to_json,
    canonical,
    same_value,
    to_json,
    type_name,
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(0, 2**64 - 1).map(Timestamp),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.binary(max_size=8).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    st.binary(max_size=8),
)
keys = st.one_of(st.text(max_size=4), st.sampled_from(["$bytes", "$time", "$table", "$decimal", "$x"]))
tables = st.dictionaries(
    keys,
    st.recursive(
        scalars,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    ),
    max_size=4,
)


def typed(value: object) -> object:
    """The value with the types of all its parts, for == to see."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return (type(value), value)


@settings(deadline=None)
@given(tables)
def test_json_loses_nothing(table: dict[str, object]) -> None:
    text = json.dumps(arguments_to_json(table))
    assert typed(arguments_from_json(json.loads(text))) == typed(table)


@settings(deadline=None)
@given(tables)
def test_canonical_is_blind_to_order_only(table: dict[str, object]) -> None:
    assert canonical(table) == canonical(dict(reversed(table.items())))
    assert canonical({**table, "one more": 1}) != canonical(table)


def test_types() -> None:
    for value, name in (
        (None, "void"),
        (True, "bool"),
        (2**31 - 1, "signedint"),
        (-(2**31) - 1, "long"),
        (Timestamp(5), "timestamp"),
        (1.5, "double"),
        (Decimal("1.5"), "decimal"),
        ("x", "longstr"),
        (b"x", "binary"),
        ([], "array"),
        ({}, "table"),
    ):
        assert type_name(value) == name
    for function in (type_name, to_json):
        with pytest.raises(TypeError, match="no AMQP table value"):
            function(object())


def test_same_value_compares_types_loosely_but_not_too_loosely() -> None:
    assert same_value(5, 5)
    assert same_value(5, Decimal(5))
    assert not same_value(1, True)
    assert not same_value(1, 1.0)
    assert not same_value(5, Timestamp(5))
    assert not same_value("5", 5)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown form '\$future'"):
        arguments_from_json({"a": {"$future": 1}})
