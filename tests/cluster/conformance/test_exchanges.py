"""Exchanges of all types, bindings, exchange-to-exchange bindings, returns of what is routed nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.conformance.conftest import Place
from tests.cluster.conformance.driver import Channel, Refused


def exchange(place: Place, channel: Channel, kind: str, **flags: Any) -> str:
    name = place.name("exchange")
    channel("exchange_declare", name=name, type=kind, durable=True, **flags)
    return name


def routed(channel: Channel, queue: str) -> list[str]:
    """Everything in the queue."""
    found = []
    while "empty" not in (got := channel("get", queue=queue, no_ack=True)):
        found.append(got["body"])
    return found


def test_direct(place: Place) -> None:
    queue = place.queue()
    channel = place.channel()
    name = exchange(place, channel, "direct")
    channel("queue_bind", queue=queue, exchange=name, key="yes")
    place.move(queue)
    for key in ("yes", "no"):
        channel.publish(key, key, name)
    assert routed(channel, queue) == ["yes"]
    channel("queue_unbind", queue=queue, exchange=name, key="yes")
    channel.publish("yes", "late", name)
    assert routed(channel, queue) == []


def test_fanout_reaches_all(place: Place) -> None:
    queues = [place.queue() for _ in range(3)]
    channel = place.channel(confirm=True)
    name = exchange(place, channel, "fanout")
    for queue in queues:
        channel("queue_bind", queue=queue, exchange=name, key="")
    place.move(queues[0])
    for i in range(20):
        channel.publish("any", str(i), name)
    assert channel.confirmed()
    for queue in queues:
        assert routed(channel, queue) == [str(i) for i in range(20)]


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("a.*.c", ["a.b.c", "a..c"]),
        ("a.#", ["a", "a.b", "a.b.c", "a..c"]),
        ("#", ["a", "a.b", "a.b.c", "a..c", "x"]),
    ],
)
def test_topic(place: Place, pattern: str, keys: list[str]) -> None:
    queue = place.queue()
    channel = place.channel()
    name = exchange(place, channel, "topic")
    channel("queue_bind", queue=queue, exchange=name, key=pattern)
    place.move(queue)
    for key in ("a", "a.b", "a.b.c", "a..c", "x"):
        channel.publish(key, key, name)
    assert routed(channel, queue) == keys


@pytest.mark.parametrize(("match", "bodies"), [("all", ["both"]), ("any", ["both", "one"])])
def test_headers(place: Place, match: str, bodies: list[str]) -> None:
    queue = place.queue()
    channel = place.channel()
    name = exchange(place, channel, "headers")
    channel("queue_bind", {"x-match": match, "kind": "pdf", "pages": 3}, queue=queue, exchange=name, key="")
    place.move(queue)
    channel.publish("", "both", name, {"kind": "pdf", "pages": 3})
    channel.publish("", "one", name, {"kind": "pdf", "pages": 4})
    channel.publish("", "none", name, {"kind": "txt"})
    assert routed(channel, queue) == bodies


def test_exchange_to_exchange(place: Place) -> None:
    queue = place.queue()
    channel = place.channel()
    source, destination = exchange(place, channel, "topic"), exchange(place, channel, "fanout", internal=True)
    channel("exchange_bind", destination=destination, source=source, key="a.#")
    channel("queue_bind", queue=queue, exchange=destination, key="")
    place.move(queue)
    channel.publish("a.b", "in", source)
    channel.publish("b", "out", source)
    assert routed(channel, queue) == ["in"]
    channel("exchange_unbind", destination=destination, source=source, key="a.#")
    channel.publish("a.b", "late", source)
    assert routed(channel, queue) == []


def test_alternate_exchange(place: Place) -> None:
    queue = place.queue()
    channel = place.channel()
    lost = exchange(place, channel, "fanout")
    channel("queue_bind", queue=queue, exchange=lost, key="")
    name = place.name("exchange")
    channel("exchange_declare", {"alternate-exchange": lost}, name=name, type="direct", durable=True)
    place.move(queue)
    channel.publish("nowhere", "caught", name, mandatory=True)
    assert routed(channel, queue) == ["caught"]
    assert channel.quiet()


def test_what_is_routed_nowhere_is_returned_if_mandatory_and_confirmed(place: Place) -> None:
    channel = place.channel(confirm=True)
    channel.publish("nowhere", "lost", mandatory=True)
    channel.publish("nowhere", "forgotten")
    returned = channel.event("return")
    assert (returned["code"], returned["text"]) == ("312", "NO_ROUTE")
    assert (returned["exchange"], returned["key"], returned["body"]) == ("", "nowhere", "lost")
    assert channel.confirmed()
    assert channel.quiet()


def test_exchanges_that_are_missing_unequal_or_in_use(place: Place) -> None:
    queue = place.queue()
    channel = place.channel()
    name = exchange(place, channel, "direct")
    channel("exchange_declare", name=name, type="direct", passive=True)
    channel("queue_bind", queue=queue, exchange=name, key="k")
    with pytest.raises(Refused) as refused:
        place.channel()("exchange_declare", name=name, type="fanout", durable=True)
    assert refused.value.text == (
        f"PRECONDITION_FAILED - inequivalent arg 'type' for exchange '{name}' in vhost '/': "
        "received 'fanout' but current is 'direct'"
    )
    with pytest.raises(Refused) as refused:
        place.channel()("exchange_delete", name=name, if_unused=True)
    assert refused.value.text == f"PRECONDITION_FAILED - exchange '{name}' in vhost '/' in use"
    channel("exchange_delete", name=name)
    with pytest.raises(Refused) as refused:
        place.channel()("exchange_declare", name=name, type="direct", passive=True)
    assert (refused.value.code, refused.value.text) == (404, f"NOT_FOUND - no exchange '{name}' in vhost '/'")
    with pytest.raises(Refused) as refused:
        place.channel()("exchange_declare", name="amq.mine", type="direct")
    assert refused.value.code == 403


def test_publishing_to_no_exchange_closes_the_channel(place: Place) -> None:
    channel = place.channel()
    name = place.name("exchange")
    channel.publish("key", "body", name)
    closed = channel.event("closed")
    assert (closed["code"], closed["text"]) == ("404", f"NOT_FOUND - no exchange '{name}' in vhost '/'")


def test_auto_delete_exchange_goes_with_its_last_binding(place: Place) -> None:
    queue = place.queue()
    channel = place.channel()
    name = exchange(place, channel, "direct", auto_delete=True)
    channel("queue_bind", queue=queue, exchange=name, key="k")
    channel("queue_unbind", queue=queue, exchange=name, key="k")
    with pytest.raises(Refused) as refused:
        channel("exchange_declare", name=name, type="direct", passive=True)
    assert refused.value.code == 404
