"""Messages on their way: confirms, get, consuming, settling, prefetch, cancelling, large bodies, many channels."""

from __future__ import annotations

import hashlib

import pytest

from tests.cluster.conformance.conftest import Place
from tests.cluster.conformance.driver import Refused


def test_confirms_and_order(place: Place) -> None:
    queue = place.queue()
    channel = place.channel(confirm=True)
    for i in range(100):
        channel.publish(queue, str(i))
        if i == 50:
            place.move(queue)
    assert channel.confirmed()
    channel("consume", queue=queue, no_ack=True)
    assert channel.bodies(100) == [str(i) for i in range(100)]


def test_get(place: Place) -> None:
    queue = place.queue()
    channel = place.channel()
    assert "empty" in channel("get", queue=queue)
    channel.publish(queue, "one", table={"colour": "blue"})
    channel.publish(queue, "two")
    first = channel("get", queue=queue)
    assert (first["body"], first["redelivered"], first["messages"]) == ("one", "0", "1")
    assert (first["exchange"], first["key"], first["h.colour"]) == ("", queue, "blue")
    place.move(queue)
    assert channel("get", queue=queue, no_ack=True)["body"] == "two"
    channel("ack", delivery=first["delivery"])
    assert "empty" in channel("get", queue=queue)
    assert channel.count(queue) == 0


def test_reject_and_nack_give_back_or_drop(place: Place) -> None:
    queue = place.queue()
    channel = place.channel()
    for body in "abcd":
        channel.publish(queue, body)
    tags = [channel("get", queue=queue)["delivery"] for _ in range(4)]
    place.move(queue)
    channel("reject", delivery=tags[0], requeue=False)
    channel("reject", delivery=tags[1], requeue=True)
    channel("nack", delivery=tags[3], multiple=True, requeue=True)
    back = [channel("get", queue=queue) for _ in range(3)]
    assert [got["body"] for got in back] == ["b", "c", "d"]
    assert {got["redelivered"] for got in back} == {"1"}
    channel("nack", delivery=back[-1]["delivery"], multiple=True, requeue=False)
    assert channel.count(queue) == 0


def test_recover(place: Place) -> None:
    queue = place.queue()
    channel = place.channel()
    for body in "abc":
        channel.publish(queue, body)
    channel("qos", count=2)
    channel("consume", queue=queue)
    assert channel.bodies(2) == ["a", "b"]
    place.move(queue)
    channel("recover")
    again = [channel.event("deliver") for _ in range(2)]
    assert [got["body"] for got in again] == ["a", "b"]
    assert {got["redelivered"] for got in again} == {"1"}
    channel("ack", delivery=again[-1]["delivery"], multiple=True)
    assert channel.bodies(1) == ["c"]


def test_what_a_closed_channel_held_comes_again(place: Place) -> None:
    queue = place.queue()
    first, second = place.channel(), place.channel()
    for body in "ab":
        first.publish(queue, body)
    first("consume", queue=queue)
    assert first.bodies(2) == ["a", "b"]
    place.move(queue)
    first("close_channel")
    second("consume", queue=queue)
    again = [second.event("deliver") for _ in range(2)]
    assert [(got["body"], got["redelivered"]) for got in again] == [("a", "1"), ("b", "1")]


def test_unknown_delivery_tag(place: Place) -> None:
    channel = place.channel()
    channel("ack", delivery=99)
    closed = channel.event("closed")
    assert (closed["code"], closed["text"]) == ("406", "PRECONDITION_FAILED - unknown delivery tag 99")


def test_prefetch_of_each_consumer(place: Place) -> None:
    queue = place.queue()
    channel = place.channel()
    channel("qos", count=2)
    tags = {channel("consume", queue=queue)["tag"] for _ in range(2)}
    for i in range(6):
        channel.publish(queue, str(i))
    got = [channel.event("deliver") for _ in range(4)]
    assert channel.quiet()
    assert {tag: sum(1 for one in got if one["tag"] == tag) for tag in tags} == dict.fromkeys(tags, 2)
    place.move(queue)
    channel("ack", delivery=got[0]["delivery"])
    assert channel.event("deliver")["tag"] == got[0]["tag"]
    assert channel.quiet()


def test_prefetch_of_the_channel_and_its_raising(place: Place) -> None:
    queue = place.queue()
    channel = place.channel()
    channel("qos", count=3, shared=True)
    for _ in range(2):
        channel("consume", queue=queue)
    for i in range(10):
        channel.publish(queue, str(i))
    got = [channel.event("deliver") for _ in range(3)]
    assert channel.quiet()
    place.move(queue)
    channel("ack", delivery=got[0]["delivery"])
    channel.event("deliver")
    assert channel.quiet()
    channel("qos", count=5, shared=True)
    for _ in range(2):
        channel.event("deliver")
    assert channel.quiet()


def test_cancel_keeps_what_is_held(place: Place) -> None:
    queue = place.queue()
    channel = place.channel()
    channel("qos", count=1)
    tag = channel("consume", queue=queue, tag=place.name("consumer"))["tag"]
    channel.publish(queue, "held")
    channel.publish(queue, "left")
    held = channel.event("deliver")
    assert (held["body"], held["tag"]) == ("held", tag)
    channel("cancel", tag=tag)
    place.move(queue)
    assert channel.count(queue) == 1
    channel("ack", delivery=held["delivery"])
    assert channel.quiet()
    assert channel("get", queue=queue, no_ack=True)["body"] == "left"


def test_consumers_hear_that_their_queue_is_deleted(place: Place) -> None:
    queue = place.queue()
    channel = place.channel()
    tag = channel("consume", queue=queue)["tag"]
    place.move(queue)
    place.channel()("queue_delete", queue=queue)
    assert channel.event("cancel")["tag"] == tag


def test_exclusive_consumer(place: Place) -> None:
    queue = place.queue()
    channel = place.channel()
    tag = channel("consume", queue=queue, exclusive=True)["tag"]
    place.move(queue)
    with pytest.raises(Refused) as refused:
        place.channel()("consume", queue=queue)
    assert refused.value.code == 403
    assert refused.value.text == f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use"
    channel("cancel", tag=tag)
    place.channel()("consume", queue=queue)


def test_consumer_priorities(place: Place) -> None:
    queue = place.queue()
    low, high = place.channel(), place.channel()
    for channel, priority in ((low, 1), (high, 10)):
        channel("qos", count=2)
        channel("consume", {"x-priority": priority}, queue=queue)
    place.move(queue)
    publisher = place.channel(confirm=True)
    for i in range(3):
        publisher.publish(queue, str(i))
        assert publisher.confirmed()
    assert high.bodies(2) == ["0", "1"]
    assert low.bodies(1) == ["2"]


def test_consumers_share_in_turn(place: Place) -> None:
    queue = place.queue()
    channels = [place.channel() for _ in range(3)]
    for channel in channels:
        channel("qos", count=10)
        channel("consume", queue=queue)
    place.move(queue)
    publisher = place.channel(confirm=True)
    for i in range(9):
        publisher.publish(queue, str(i))
        assert publisher.confirmed()
    assert sorted(body for channel in channels for body in channel.bodies(3)) == [str(i) for i in range(9)]


def test_bodies_larger_than_a_frame(place: Place) -> None:
    queue = place.queue()
    channel = place.channel(confirm=True, connection=place.connection(frame_max=4096))
    sizes = (0, 1, 4088, 4089, 131_064, 5_000_000)
    for size in sizes:
        channel.publish(queue, fill=size)
    assert channel.confirmed()
    place.move(queue)
    channel("consume", queue=queue, no_ack=True)
    got = [channel.event("deliver") for _ in sizes]
    assert [int(one["size"]) for one in got] == list(sizes)
    pattern = bytes(range(251)) * 20_000
    assert [one["sha"] for one in got] == [hashlib.sha256(pattern[:size]).hexdigest() for size in sizes]


def test_many_channels(place: Place) -> None:
    queue = place.queue()
    channels = [place.channel() for _ in range(100)]
    for i, channel in enumerate(channels):
        channel.publish(queue, str(i))
    place.move(queue)
    assert {channel("get", queue=queue, no_ack=True)["body"] for channel in channels} == set(
        map(str, range(100))
    )
    for channel in channels:
        channel("close_channel")


@pytest.mark.parametrize("place", ["failover"], indirect=True)
def test_heartbeats_keep_an_idle_connection(place: Place) -> None:
    queue = place.queue()
    label = place.connection(heartbeat=1)
    channel = place.channel(connection=label)
    channel("consume", queue=queue, no_ack=True)
    assert place.driver.quiet(label, 2.5), "the connection ended"
    place.move(queue)
    channel.publish(queue, "still there")
    assert channel.bodies(1) == ["still there"]
    place.driver.call("disconnect", c=label)
