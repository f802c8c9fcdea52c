"""The headers of dead letters, against the shape that RabbitMQ gives them."""

from __future__ import annotations

from typing import Any

import pytest

from brokers.engine.core.amqp.properties import (
    HEADER,
    HEADERS,
    BasicProperties,
    decode_properties,
    encode_header,
)
from brokers.engine.core.amqp.table import Timestamp
from brokers.engine.core.model.death import (
    DeadLetter,
    bury,
    is_cycle,
    join_route,
    split_route,
    with_delivery_count,
)


def dead(header: bytes, reason: str = "rejected", queue: str = "work", **given: Any) -> DeadLetter:
    fields: dict[str, Any] = {"seconds": 1_700_000_000, "exchange": "dlx", "key": None}
    fields.update(given)
    route = fields.pop("route", join_route("orders", "eu.new"))
    return bury(route, header, queue=queue, reason=reason, **fields)


def plain(**properties: Any) -> bytes:
    return encode_header(BasicProperties(**properties), 7)


def headers(letter: DeadLetter) -> dict[str, Any]:
    found = decode_properties(letter.header).headers
    assert found is not None
    return found


def test_first_death() -> None:
    letter = dead(plain(content_type="text/plain", headers={"mine": 1}, message_id="m1"))
    assert split_route(letter.route) == ("dlx", "eu.new")
    assert letter.keys == ("eu.new",)
    properties = decode_properties(letter.header)
    assert (properties.content_type, properties.message_id) == ("text/plain", "m1")
    assert headers(letter) == {
        "mine": 1,
        "x-death": [
            {
                "count": 1,
                "reason": "rejected",
                "queue": "work",
                "time": 1_700_000_000,
                "exchange": "orders",
                "routing-keys": ["eu.new"],
            }
        ],
        "x-first-death-reason": "rejected",
        "x-first-death-queue": "work",
        "x-first-death-exchange": "orders",
        "x-last-death-reason": "rejected",
        "x-last-death-queue": "work",
        "x-last-death-exchange": "orders",
    }
    death = headers(letter)["x-death"][0]
    assert isinstance(death["time"], Timestamp)
    assert list(death) == ["count", "reason", "queue", "time", "exchange", "routing-keys"]


def test_count_is_a_long_whatever_its_value() -> None:
    letter = dead(plain())
    assert b"\x05countl\0\0\0\0\0\0\0\x01" in letter.header
    again = dead(letter.header)
    assert b"\x05countl\0\0\0\0\0\0\0\x02" in again.header


def test_dying_again_for_the_same_reason_counts_and_comes_first() -> None:
    first = dead(plain(), seconds=1)
    second = dead(first.header, "expired", "later", route=join_route("dlx", "k"), seconds=2)
    third = dead(second.header, seconds=3)
    deaths = headers(third)["x-death"]
    assert [(d["queue"], d["reason"], d["count"], d["time"]) for d in deaths] == [
        ("work", "rejected", 2, 1),
        ("later", "expired", 1, 2),
    ]
    assert third.deaths == (("work", "rejected"), ("later", "expired"))
    assert headers(third)["x-first-death-queue"] == "work"
    assert headers(second)["x-last-death-queue"] == "later"
    assert headers(second)["x-first-death-reason"] == "rejected"


def test_another_reason_in_the_same_queue_is_another_death() -> None:
    letter = dead(dead(plain()).header, "expired")
    assert [(d["reason"], d["count"]) for d in headers(letter)["x-death"]] == [
        ("expired", 1),
        ("rejected", 1),
    ]


def test_expiration_goes_and_is_kept() -> None:
    letter = dead(plain(expiration="500", priority=3), "expired")
    properties = decode_properties(letter.header)
    assert (properties.expiration, properties.priority) == (None, 3)
    assert headers(letter)["x-death"][0]["original-expiration"] == "500"


def test_a_key_of_the_queue_replaces_the_others() -> None:
    header = plain(headers={"CC": ["copy"], "other": "stays"})
    letter = dead(header, key="graveyard")
    assert letter.keys == ("graveyard",)
    assert split_route(letter.route) == ("dlx", "graveyard")
    assert "CC" not in headers(letter)
    assert headers(letter)["other"] == "stays"
    assert headers(letter)["x-death"][0]["routing-keys"] == ["eu.new", "copy"]


def test_without_one_the_copies_keep_their_keys() -> None:
    letter = dead(plain(headers={"CC": ["copy"]}))
    assert letter.keys == ("eu.new", "copy")
    assert headers(letter)["CC"] == ["copy"]


def test_what_the_publisher_wrote_stays_octet_for_octet() -> None:
    short = b"\x01as\0\x01"  # a 16-bit integer: encoded anew it would be wider
    letter = dead(HEADER.pack(60, 0, 7, HEADERS) + len(short).to_bytes(4, "big") + short)
    assert short in letter.header


@pytest.mark.parametrize("odd", ["no array", [1, "two"], {"queue": "work"}])
def test_a_forged_header_does_no_harm(odd: object) -> None:
    letter = dead(plain(headers={"x-death": odd}))
    assert headers(letter)["x-death"][0]["count"] == 1


def test_a_forged_count_does_no_harm() -> None:
    forged = [{"queue": "work", "reason": "rejected", "count": "many"}, {"queue": "b", "count": [1]}]
    letter = dead(plain(headers={"x-death": forged}))
    assert [d["count"] for d in headers(letter)["x-death"]] == [2, [1]]


@pytest.mark.parametrize(
    ("deaths", "cycle"),
    [
        ((("here", "expired"),), True),
        ((("here", "maxlen"),), True),
        ((("here", "delivery_limit"),), True),
        ((("there", "expired"),), False),
        ((("there", "expired"), ("here", "expired")), True),
        ((("there", "rejected"), ("here", "expired")), False),
        ((("here", "rejected"),), False),
        ((("here", "expired"), ("there", "rejected")), True),
        ((), False),
    ],
)
def test_cycles(deaths: tuple[tuple[str, str], ...], cycle: bool) -> None:
    assert is_cycle("here", deaths) is cycle


def test_delivery_count() -> None:
    header = plain(headers={"a": "b"}, delivery_mode=2)
    once = with_delivery_count(header, 1)
    assert decode_properties(once).headers == {"a": "b", "x-delivery-count": 1}
    assert decode_properties(with_delivery_count(once, 2)).headers == {"a": "b", "x-delivery-count": 2}
    assert b"\x10x-delivery-countl" in once
    assert decode_properties(with_delivery_count(plain(), 1)).headers == {"x-delivery-count": 1}
    assert decode_properties(once).delivery_mode == 2
