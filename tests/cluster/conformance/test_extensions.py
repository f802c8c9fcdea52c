"""RabbitMQ's extensions: what ends in dead letters and when, limits, orders of delivery, retries and delays,
further exchanges, transactions, direct replies, de-duplication, reading from an offset.

Alternate exchanges and bindings between exchanges are in test_exchanges.py.
"""

from __future__ import annotations

from typing import Any

from tests.cluster.conformance.conftest import Place
from tests.cluster.conformance.driver import Channel, Fields
from tests.cluster.conformance.test_exchanges import exchange, routed

REPLY_TO = "amq.rabbitmq.reply-to"


def mortal(place: Place, **arguments: Any) -> tuple[str, str]:
    """A queue for dead letters, and one that has them."""
    dead = place.queue()
    given = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    queue = place.queue(**{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}, **given)
    return dead, queue


def dead_letter(place: Place, dead: str) -> Fields:
    """The next dead letter. (Across a fail-over it may be repeated.)"""
    channel = place.channel()
    channel("consume", queue=dead, no_ack=True)
    return channel.event("deliver")


def check_death(letter: Fields, reason: str, queue: str) -> None:
    assert {name: letter[f"h.x-death.0.{name}"] for name in ("reason", "queue", "exchange", "count")} == {
        "reason": reason,
        "queue": queue,
        "exchange": "",
        "count": "1",
    }
    assert letter["h.x-death.0.routing-keys.0"] == queue
    assert letter["h.x-first-death-reason"] == reason
    assert letter["h.x-first-death-queue"] == queue
    assert letter["h.x-first-death-exchange"] == ""


def publish_all(channel: Channel, queue: str, *bodies: str) -> None:
    for body in bodies:
        channel.publish(queue, body)
    assert channel.confirmed()


# How long messages and queues are kept


def test_message_ttl(place: Place) -> None:
    dead, queue = mortal(place, message_ttl=150)
    channel = place.channel(confirm=True)
    publish_all(channel, queue, "late")
    place.move(queue)
    letter = dead_letter(place, dead)
    assert (letter["body"], letter["exchange"], letter["key"]) == ("late", "", dead)
    check_death(letter, "expired", queue)
    assert channel.count(queue) == 0


def test_expiration_of_a_message(place: Place) -> None:
    dead, queue = mortal(place)
    channel = place.channel(confirm=True)
    channel.publish(queue, "brief", expiration="150")
    channel.publish(queue, "stays")
    assert channel.confirmed()
    place.move(queue)
    letter = dead_letter(place, dead)
    assert letter["body"] == "brief"
    assert "expiration" not in letter
    assert letter["h.x-death.0.original-expiration"] == "150"
    check_death(letter, "expired", queue)
    assert routed(channel, queue) == ["stays"]


def test_an_unused_queue_goes(place: Place) -> None:
    queue = place.queue(**{"x-expires": 1500})
    channel = place.channel(confirm=True)
    tag = channel("consume", queue=queue, no_ack=True)["tag"]
    place.move(queue)
    publish_all(channel, queue, "used")
    assert channel.bodies(1) == ["used"]
    channel("cancel", tag=tag)

    def unroutable() -> bool:
        """Asked by publishing: to declare it would be to use it."""
        channel.publish(queue, "unused", mandatory=True)
        return channel.confirmed() and not channel.quiet(0.05)

    place.cluster.wait_for(unroutable, "the queue goes")
    assert channel.event("return")["text"] == "NO_ROUTE"


# Dead letters and retries


def test_dead_letter_on_reject(place: Place) -> None:
    dead, queue = mortal(place)
    channel = place.channel(confirm=True)
    channel.publish(queue, "bad", table={"mine": "kept"})
    assert channel.confirmed()
    held = channel("get", queue=queue)
    place.move(queue)
    channel("reject", delivery=held["delivery"], requeue=False)
    letter = dead_letter(place, dead)
    assert (letter["body"], letter["redelivered"], letter["h.mine"]) == ("bad", "0", "kept")
    check_death(letter, "rejected", queue)


def test_delivery_limit(place: Place) -> None:
    dead, queue = mortal(place, delivery_limit=2)
    channel = place.channel(confirm=True)
    publish_all(channel, queue, "poison")
    channel("consume", queue=queue)
    counts = []
    for attempt in range(3):
        came = channel.event("deliver")
        counts.append(came.get("h.x-delivery-count"))
        if attempt == 1:
            place.move(queue)
        channel("nack", delivery=came["delivery"], requeue=True)
    assert counts == [None, "1", "2"]
    letter = dead_letter(place, dead)
    assert letter["body"] == "poison"
    check_death(letter, "delivery_limit", queue)
    assert channel.quiet()


def test_retries(place: Place) -> None:
    dead, queue = mortal(place, retry_attempts=2, retry_backoff="50,100")
    channel = place.channel(confirm=True)
    publish_all(channel, queue, "fails")
    channel("consume", queue=queue)
    flags = []
    for attempt in range(3):
        came = channel.event("deliver")
        flags.append(came["redelivered"])
        channel("reject", delivery=came["delivery"], requeue=False)
        if attempt == 0:
            place.move(queue)
    assert flags == ["0", "1", "1"]
    letter = dead_letter(place, dead)
    assert letter["body"] == "fails"
    check_death(letter, "rejected", queue)
    assert channel.quiet()


# Full queues


def test_the_oldest_make_room(place: Place) -> None:
    dead, queue = mortal(place, max_length=2)
    channel = place.channel(confirm=True)
    publish_all(channel, queue, "a", "b", "c")
    place.move(queue)
    publish_all(channel, queue, "d")
    assert routed(channel, queue) == ["c", "d"]
    graveyard = place.channel()
    graveyard("consume", queue=dead, no_ack=True)
    missing = {"a", "b"}
    while missing:
        letter = graveyard.event("deliver")
        check_death(letter, "maxlen", queue)
        missing.discard(letter["body"])


def test_a_full_queue_refuses(place: Place) -> None:
    queue = place.queue(**{"x-max-length": 1, "x-overflow": "reject-publish"})
    channel = place.channel(confirm=True)
    publish_all(channel, queue, "first")
    place.move(queue)
    channel.publish(queue, "too many")
    assert not channel.confirmed()
    assert routed(channel, queue) == ["first"]
    publish_all(channel, queue, "second")
    assert routed(channel, queue) == ["second"]


# Who gets what, and when


def test_priorities(place: Place) -> None:
    queue = place.queue(**{"x-max-priority": 5})
    channel = place.channel(confirm=True)
    for body, priority in (("low", 1), ("high", 5), ("low too", 1), ("above", 9), ("middle", 3)):
        channel.publish(queue, body, priority=priority)
    channel.publish(queue, "none")
    assert channel.confirmed()
    place.move(queue)
    assert routed(channel, queue) == ["high", "above", "middle", "low", "low too", "none"]


def test_single_active_consumer(place: Place) -> None:
    queue = place.queue(**{"x-single-active-consumer": True})
    first, second, publisher = place.channel(), place.channel(), place.channel(confirm=True)
    for channel in (first, second):
        channel("consume", queue=queue, no_ack=True)
    publish_all(publisher, queue, "a", "b")
    assert first.bodies(2) == ["a", "b"]
    place.move(queue)
    publish_all(publisher, queue, "c", "d")
    assert first.bodies(2) == ["c", "d"]
    assert second.quiet()
    first("close_channel")
    publish_all(publisher, queue, "e")
    assert second.bodies(1) == ["e"]


def test_delayed_exchange(place: Place) -> None:
    queue = place.queue()
    channel = place.channel(confirm=True)
    name = place.name("exchange")
    channel(
        "exchange_declare", {"x-delayed-type": "direct"}, name=name, type="x-delayed-message", durable=True
    )
    channel("queue_bind", queue=queue, exchange=name, key="k")
    channel("consume", queue=queue, no_ack=True)
    channel.publish("k", "last", name, {"x-delay": 400})
    channel.publish("k", "later", name, {"x-delay": 200})
    channel.publish("k", "now", name)
    assert channel.confirmed()
    place.move(queue)
    came = [channel.event("deliver") for _ in range(3)]
    assert [(one["body"], one.get("h.x-delay")) for one in came] == [
        ("now", None),
        ("later", "-200"),
        ("last", "-400"),
    ]
    assert {(one["exchange"], one["key"]) for one in came} == {(name, "k")}


def test_reading_from_an_offset(place: Place) -> None:
    queue = place.queue()
    channel = place.channel(confirm=True)
    publish_all(channel, queue, "a", "b", "c")
    assert routed(channel, queue) == ["a", "b", "c"]
    readers = [place.channel() for _ in range(2)]
    for reader, offset in zip(readers, ("first", 1), strict=True):
        reader("qos", count=2)
        reader("consume", {"x-stream-offset": offset}, queue=queue)
    assert readers[0].bodies(2) == ["a", "b"]
    came = [readers[1].event("deliver") for _ in range(2)]
    assert [(one["body"], one["h.x-stream-offset"]) for one in came] == [("b", "1"), ("c", "2")]
    place.move(queue)
    publish_all(channel, queue, "d")
    for reader in readers:
        reader("ack", delivery=2, multiple=True)
    assert readers[0].bodies(2) == ["c", "d"]
    last = readers[1].event("deliver")
    assert (last["body"], last["h.x-stream-offset"]) == ("d", "3")
    assert routed(channel, queue) == ["d"]


# Where messages go


def test_consistent_hash_exchange(place: Place) -> None:
    queues = [place.queue() for _ in range(2)]
    channel = place.channel(confirm=True)
    name = exchange(place, channel, "x-consistent-hash")
    for queue in queues:
        channel("queue_bind", queue=queue, exchange=name, key="1")
    keys = [str(i) for i in range(30)]
    for _ in range(2):
        for key in keys:
            channel.publish(key, key, name)
        assert channel.confirmed()
        place.move(queues[1])
    found = [routed(channel, queue) for queue in queues]
    assert all(found), "one queue got nothing"
    assert sorted(found[0] + found[1]) == sorted(keys * 2)
    assert not set(found[0]) & set(found[1])


def test_headers_that_begin_with_x(place: Place) -> None:
    queues = {match: place.queue() for match in ("all-with-x", "any-with-x")}
    channel = place.channel(confirm=True)
    name = exchange(place, channel, "headers")
    for match, queue in queues.items():
        table = {"x-match": match, "x-kind": "pdf", "pages": 3}
        channel("queue_bind", table, queue=queue, exchange=name, key="")
    place.move(queues["any-with-x"])
    channel.publish("", "both", name, {"x-kind": "pdf", "pages": 3})
    channel.publish("", "pages", name, {"x-kind": "txt", "pages": 3})
    channel.publish("", "kind", name, {"x-kind": "pdf"})
    channel.publish("", "none", name, {"x-kind": "txt"})
    assert channel.confirmed()
    assert {match: routed(channel, queue) for match, queue in queues.items()} == {
        "all-with-x": ["both"],
        "any-with-x": ["both", "pages", "kind"],
    }


def test_copies_and_blind_copies(place: Place) -> None:
    copy, blind, queue = (place.queue() for _ in range(3))
    channel = place.channel(confirm=True)
    place.move(queue)
    channel.publish(queue, "m", table={"CC": [copy, "nowhere"], "BCC": [blind, queue], "mine": "kept"})
    assert channel.confirmed()
    for name in (queue, copy, blind):
        got = channel("get", queue=name, no_ack=True)
        headers = {key: value for key, value in got.items() if key.startswith("h.")}
        assert headers == {"h.CC.0": copy, "h.CC.1": "nowhere", "h.mine": "kept"}
        assert (got["body"], got["key"], got["messages"]) == ("m", queue, "0")


def test_direct_reply_to(place: Place) -> None:
    queue = place.queue()
    client, server = place.channel(), place.channel(confirm=True, connection=place.connection())
    client("consume", queue=REPLY_TO, no_ack=True)
    client.publish(queue, "ask", reply_to=REPLY_TO)
    server("consume", queue=queue, no_ack=True)
    asked = server.event("deliver")
    assert asked["body"] == "ask"
    assert asked["reply_to"].startswith(f"{REPLY_TO}.")
    place.move(queue)
    publish_all(server, asked["reply_to"], "answer")
    assert client.bodies(1) == ["answer"]
    client.publish(queue, "ask again", reply_to=REPLY_TO)
    assert server.event("deliver")["reply_to"] == asked["reply_to"]


# All or nothing, and once only


def test_transactions(place: Place) -> None:
    queue = place.queue()
    channel, other = place.channel(), place.channel()
    channel("tx_select")
    channel.publish(queue, "kept")
    assert other.count(queue) == 0
    place.move(queue)
    channel("tx_commit")
    channel.publish(queue, "dropped")
    channel("tx_rollback")
    channel("tx_commit")
    assert other.count(queue) == 1
    held = channel("get", queue=queue)
    assert held["body"] == "kept"
    channel("ack", delivery=held["delivery"])
    channel("tx_rollback")
    channel("nack", delivery=held["delivery"], requeue=True)
    channel("tx_commit")
    again = channel("get", queue=queue)
    assert (again["body"], again["redelivered"]) == ("kept", "1")
    channel("ack", delivery=again["delivery"])
    channel("tx_commit")
    channel("close_channel")
    assert routed(other, queue) == []


def test_deduplication(place: Place) -> None:
    window = {"x-message-deduplication": True, "x-cache-size": 100}
    plain, queue = place.queue(), place.queue(**window)
    channel = place.channel(confirm=True)
    name = place.name("exchange")
    channel("exchange_declare", window, name=name, type="fanout", durable=True)
    channel("queue_bind", queue=plain, exchange=name, key="")
    for batch in ("1123", "2344"):
        for number in batch:
            for where, key in (("", queue), (name, "")):
                channel.publish(key, number, where, {"x-deduplication-header": number})
        assert channel.confirmed()
        place.move(queue)
    assert routed(channel, queue) == list("1234")
    assert routed(channel, plain) == list("1234")
