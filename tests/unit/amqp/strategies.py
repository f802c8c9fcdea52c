"""Hypothesis strategies for what travels on the wire."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from brokers.engine.core.amqp.methods import Method, all_methods
from brokers.engine.core.amqp.properties import BasicProperties
from brokers.engine.core.amqp.table import Timestamp

SURROGATE = "\udcff"
"""Stands for an octet that is no UTF-8."""

octet_strings = st.binary(max_size=255).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
short_strings = st.text(max_size=60)
field_names = octet_strings

scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.none(),
    st.binary(max_size=40),
    octet_strings,
    st.integers(0, 2**64 - 1).map(Timestamp),
    st.builds(
        lambda number, places: Decimal(number).scaleb(-places),
        st.integers(0, 2**32 - 1),
        st.integers(0, 255),
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(field_names, inner, max_size=4),
    max_leaves=12,
)
tables = st.dictionaries(field_names, values, max_size=6)

_WIRE: dict[str, st.SearchStrategy[Any]] = {
    "bit": st.booleans(),
    "octet": st.integers(0, 2**8 - 1),
    "short": st.integers(0, 2**16 - 1),
    "long": st.integers(0, 2**32 - 1),
    "longlong": st.integers(0, 2**64 - 1),
    "shortstr": short_strings,
    "key": octet_strings,
    "longstr": st.binary(max_size=300),
    "table": tables,
}


def _instances(cls: type[Method]) -> st.SearchStrategy[Method]:
    arguments = {name: _WIRE[kind] for name, kind, reserved in cls._wire if not reserved}
    return st.builds(cls, **arguments)


methods = st.sampled_from(all_methods()).flatmap(_instances)

_octet = st.integers(0, 255)
properties = st.builds(
    BasicProperties,
    headers=st.none() | tables,
    delivery_mode=st.none() | _octet,
    priority=st.none() | _octet,
    timestamp=st.none() | st.integers(0, 2**64 - 1).map(Timestamp),
    **{
        name: st.none() | octet_strings
        for name in (
            "content_type",
            "content_encoding",
            "correlation_id",
            "reply_to",
            "expiration",
            "message_id",
            "type",
            "user_id",
            "app_id",
            "cluster_id",
        )
    },
)
