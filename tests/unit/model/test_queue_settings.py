"""What a queue's arguments and a policy's definition come to."""

from __future__ import annotations

import pytest

from brokers.engine.core.model.queue_settings import DEFAULT, Overflow, parse_backoff, settings


def test_nothing_given() -> None:
    assert settings({}, "classic") == DEFAULT


def test_arguments() -> None:
    found = settings(
        {
            "x-message-ttl": 1000,
            "x-expires": 2000,
            "x-max-length": 3,
            "x-max-length-bytes": 4,
            "x-overflow": "reject-publish",
            "x-dead-letter-exchange": "dlx",
            "x-dead-letter-routing-key": "key",
            "x-dead-letter-strategy": "at-least-once",
            "x-delivery-limit": 5,
            "x-retry-attempts": 6,
            "x-retry-backoff": "10, 20",
            "x-single-active-consumer": True,
        },
        "classic",
    )
    assert (found.ttl, found.expires, found.max_length, found.max_bytes) == (1000, 2000, 3, 4)
    assert found.overflow is Overflow.REJECT_PUBLISH
    assert (found.dead_letter_exchange, found.dead_letter_key) == ("dlx", "key")
    assert found.keeps_unroutable
    assert (found.delivery_limit, found.counts_deliveries) == (5, True)
    assert (found.retry_attempts, found.retry_backoff) == (6, (10, 20))
    assert found.single_active


def test_of_two_limits_the_lower_one_holds_and_of_two_names_the_argument() -> None:
    policy = {"message-ttl": 50, "max-length": 100, "dead-letter-exchange": "policy", "overflow": "drop-head"}
    arguments = {"x-message-ttl": 100, "x-max-length": 7, "x-dead-letter-exchange": ""}
    found = settings(arguments, "classic", policy)
    assert (found.ttl, found.max_length, found.dead_letter_exchange) == (50, 7, "")


def test_a_policy_alone() -> None:
    found = settings({}, "classic", {"retry-attempts": 2, "retry-backoff": "5", "dead-letter-exchange": "x"})
    assert (found.retry_attempts, found.retry_backoff, found.dead_letter_exchange) == (2, (5,), "x")


@pytest.mark.parametrize(
    ("arguments", "type_", "limit", "counts"),
    [
        ({}, "classic", None, False),
        ({}, "quorum", 20, True),
        ({"x-delivery-limit": 0}, "classic", 0, True),
        ({"x-delivery-limit": -1}, "quorum", None, True),
    ],
)
def test_delivery_limit(arguments: dict[str, object], type_: str, limit: int | None, counts: bool) -> None:
    found = settings(arguments, type_)
    assert (found.delivery_limit, found.counts_deliveries) == (limit, counts)


def test_the_last_backoff_goes_on() -> None:
    found = settings({"x-retry-attempts": 5, "x-retry-backoff": "1,2,3"}, "classic")
    assert [found.backoff(attempt) for attempt in range(1, 6)] == [1, 2, 3, 3, 3]


@pytest.mark.parametrize("text", ["", "1,", "1,x", "-1", "1.5", "٣"])
def test_a_series_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="no number of milliseconds"):
        parse_backoff(text)
