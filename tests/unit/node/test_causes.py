"""What dead letters have in common, in few words."""

from __future__ import annotations

import pytest

from brokers.engine.core.amqp.properties import BasicProperties, encode_header
from brokers.engine.core.model.death import join_route
from brokers.engine.node.causes import Cause, cause_of, origin_of, shape_of


def header(**headers: object) -> bytes:
    return encode_header(BasicProperties(headers=headers), 0)


DEATH = {"queue": "orders", "reason": "rejected", "exchange": "shop", "routing-keys": ["order.17.new"]}


def test_numbers_and_identifiers_are_the_same_cause() -> None:
    one = header(
        **{"x-death": [DEATH], "x-exception": "order 17 of 3f0c9a52-1111-2222-3333-444455556666\nat x"}
    )
    two = header(**{"x-death": [DEATH], "x-exception": "order 9 of 00000000-aaaa-bbbb-cccc-444455556666"})
    route = join_route("", "dead")
    found = cause_of(route, one, b'{"id": 1}')
    assert found == Cause("rejected", "orders", "order.#.new", "order # of #", "JSON {id}")
    assert cause_of(route, two, b'{"id": 2}').identity == found.identity
    assert cause_of(route, two, b"text").identity != found.identity


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (b"", "empty"),
        (b'{"b": 1, "a": 2}', "JSON {a, b}"),
        (b'[{"b": 1}]', "JSON [JSON {b}]"),
        (b"[1]", "JSON array"),
        (b"{never ends", "text, looks like JSON and is not"),
        (b"[" * 60_000, "text, looks like JSON and is not"),
        (b"<order/>", "XML"),
        (b"hello", "text"),
        (b"\xff\xfe", "binary"),
        (b"x" * 70_000, "large"),
    ],
)
def test_shapes(body: bytes, shape: str) -> None:
    assert shape_of(body) == shape


@pytest.mark.parametrize(
    "deaths", [None, "x", [], ["x"], [{"reason": "rejected"}], [{"queue": 7}], {"queue": "orders"}]
)
def test_deaths_that_make_no_sense_are_none(deaths: object) -> None:
    assert origin_of({"x-death": deaths}) is None
    found = cause_of(join_route("e", "k.1"), header(**{"x-death": deaths}), b"")
    assert found == Cause("", "", "k.#", "", "empty")


def test_long_texts_are_cut() -> None:
    found = cause_of(join_route("", ""), header(error="z" * 10_000), b"{" + b'"' + b"k" * 9000 + b'": 1}')
    assert len(found.exception) == 200
    assert len(found.shape) < 60
