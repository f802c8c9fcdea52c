"""The property ``expiration``: what RabbitMQ 3.10 takes and how it refuses the rest."""

from __future__ import annotations

import pytest

from brokers.engine.core.amqp.errors import AmqpError
from brokers.engine.core.amqp.expiration import parse_expiration


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("00100", 100), ("+5", 5), ("315360000000", 315360000000)]
)
def test_taken(text: str, value: int) -> None:
    assert parse_expiration(text) == value


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("hello", "no_integer"),
        ("", "no_integer"),
        (" 5", "no_integer"),
        ("\u0663", "no_integer"),
        ("5x", '{leftover_string,"x"}'),
        ("1.5", '{leftover_string,".5"}'),
        ("-5", "{value_negative,-5}"),
        ("315360000001", "{value_too_large,315360000001}"),
        ("9" * 255, "{value_too_large," + "9" * 255 + "}"),
    ],
)
def test_refused(text: str, wrong: str) -> None:
    with pytest.raises(AmqpError) as caught:
        parse_expiration(text)
    assert (caught.value.code, caught.value.text) == (
        406,
        f"PRECONDITION_FAILED - invalid expiration '{text}': {wrong}",
    )
