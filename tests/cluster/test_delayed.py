"""Delayed exchanges and consistent hashing over a cluster: through any node, across fail-over and restart."""

from __future__ import annotations

import time

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.cluster.clients import channel_on, count, get
from tests.cluster.harness import Cluster


@pytest.fixture
def delayed(cluster: Cluster) -> Cluster:
    with channel_on(cluster, "node1") as channel:
        channel.exchange_declare(
            "later", "x-delayed-message", durable=True, arguments={"x-delayed-type": "direct"}
        )
        channel.queue_declare("q", durable=True)
        channel.queue_bind("q", "later", "k")
    return cluster


def publish(channel: BlockingChannel, body: str, delay: int | None, **headers: object) -> None:
    table = headers if delay is None else {"x-delay": delay, **headers}
    channel.basic_publish(
        "later", "k", body.encode(), pika.BasicProperties(delivery_mode=2, headers=table or None)
    )


def test_messages_come_when_they_are_due_through_any_node(delayed: Cluster) -> None:
    for node in delayed.names:
        with channel_on(delayed, node) as channel:
            channel.confirm_delivery()
            begin = time.monotonic()
            for body, delay in (("late", 900), ("soon", 300), ("now", None)):
                publish(channel, body, delay, n=7)
            method, properties, body = get(channel, "q")
            assert (body, properties.headers) == (b"now", {"n": 7})
            method, properties, body = get(channel, "q")
            assert body == b"soon"
            assert time.monotonic() - begin >= 0.3
            assert (method.exchange, method.routing_key) == ("later", "k")
            assert properties.headers == {"x-delay": -300, "n": 7}
            assert properties.delivery_mode == 2
            assert get(channel, "q")[2] == b"late"
            assert time.monotonic() - begin >= 0.9


def test_nothing_of_it_is_listed(delayed: Cluster) -> None:
    with channel_on(delayed, "node1") as channel:
        channel.confirm_delivery()
        publish(channel, "m", 60_000)
    snapshot = delayed.snapshot()
    assert [queue["name"] for queue in snapshot["queues"]] == ["q"]


def test_delayed_messages_survive_the_death_of_nodes(delayed: Cluster) -> None:
    with channel_on(delayed, "node2") as channel:
        channel.confirm_delivery()
        for i in range(200):
            publish(channel, str(i), 3000 + i)
    delayed.kill("node1")
    with channel_on(delayed, "node2") as channel:
        bodies = {get(channel, "q")[2] for _ in range(200)}
    assert bodies == {str(i).encode() for i in range(200)}
    delayed.start_node("node1")
    delayed.wait_until_complete()


def test_delayed_messages_survive_a_restart_of_all(delayed: Cluster) -> None:
    with channel_on(delayed, "node3") as channel:
        channel.confirm_delivery()
        publish(channel, "m", 1500)
        publish(channel, "much later", 3_600_000)
    for name in delayed.names:
        delayed.kill(name)
    for name in delayed.names:
        delayed.start_node(name)
    delayed.wait_until_complete()
    with channel_on(delayed, "node1") as channel:
        assert get(channel, "q")[2] == b"m"
        assert count(channel, "q") == 0


def test_many_due_at_once(delayed: Cluster) -> None:
    total = 20_000
    with channel_on(delayed, "node1") as channel:
        for i in range(total):
            publish(channel, str(i), 1000)
        channel.confirm_delivery()
        publish(channel, "last", 1001)
        delayed.wait_for(lambda: count(channel, "q") == total + 1, "all are released")


def test_consistent_hash_sends_a_key_to_one_queue_through_every_node(cluster: Cluster) -> None:
    with channel_on(cluster, "node1") as channel:
        channel.exchange_declare("h", "x-consistent-hash", durable=True)
        for queue in ("a", "b"):
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, "h", "1")
    keys = [f"key-{i}" for i in range(40)]
    for node in cluster.names:
        with channel_on(cluster, node) as channel:
            channel.confirm_delivery()
            for key in keys:
                channel.basic_publish("h", key, key.encode())
    with channel_on(cluster, "node1") as channel:
        of_a = [get(channel, "a")[2] for _ in range(count(channel, "a"))]
        of_b = [get(channel, "b")[2] for _ in range(count(channel, "b"))]
    assert len(of_a) + len(of_b) == 3 * len(keys)
    assert not set(of_a) & set(of_b)
    assert of_a
    assert of_b
