"""Consuming from an offset what a queue retains, across nodes, restarts and a change of leader."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.cluster.harness import Cluster

QUEUE = "history"


def channel(cluster: Cluster, name: str) -> BlockingChannel:
    parameters = pika.ConnectionParameters("127.0.0.1", cluster.node(name).amqp)
    return pika.BlockingConnection(parameters).channel()


def read(found: BlockingChannel, offset: object, count: int) -> list[tuple[int, bytes]]:
    """The first ``count`` messages from ``offset`` on."""
    found.basic_qos(prefetch_count=10)
    got: list[tuple[int, bytes]] = []
    for method, properties, body in _consume(found, offset):
        got.append((properties.headers["x-stream-offset"], body))
        found.basic_ack(method.delivery_tag)
        if len(got) == count:
            break
    found.cancel()
    return got


def _consume(found: BlockingChannel, offset: object) -> Iterator[tuple]:
    for item in found.consume(QUEUE, arguments={"x-stream-offset": offset}, inactivity_timeout=20):
        assert item[0] is not None, "no message came"
        yield item


@pytest.fixture
def filled(cluster: Cluster) -> Cluster:
    """Fifty messages, all taken and acknowledged."""
    found = channel(cluster, "node1")
    found.queue_declare(QUEUE, durable=True)
    found.confirm_delivery()
    for n in range(50):
        found.basic_publish("", QUEUE, b"%d" % n)
    for method, _, _ in found.consume(QUEUE):
        found.basic_ack(method.delivery_tag)
        if method.delivery_tag == 50:
            break
    found.cancel()
    cluster.wait_for(lambda: cluster.queue(QUEUE)["messages"] == 0, "all are settled")
    return cluster


def test_settled_messages_can_be_read_from_any_node(filled: Cluster) -> None:
    for name in filled.names:
        assert read(channel(filled, name), "first", 50) == [(n, b"%d" % n) for n in range(50)]
        assert read(channel(filled, name), 45, 5) == [(n, b"%d" % n) for n in range(45, 50)]
        assert read(channel(filled, name), "last", 1) == [(49, b"49")]
    assert filled.queue(QUEUE)["messages"] == 0


def test_by_time(filled: Cluster) -> None:
    assert len(read(channel(filled, "node2"), datetime.now(UTC) - timedelta(hours=1), 50)) == 50


def test_readers_outlive_their_leader_and_history_a_restart(filled: Cluster) -> None:
    leader = filled.leader(QUEUE)
    witness = next(name for name in filled.names if name != leader)
    found = channel(filled, witness)
    found.basic_qos(prefetch_count=5)
    messages = _consume(found, 40)
    got = []
    for method, properties, _ in messages:
        got.append(properties.headers["x-stream-offset"])
        if len(got) == 3:
            filled.kill(leader)
            filled.wait_for_leader(QUEUE, leader)
        found.basic_ack(method.delivery_tag)
        if len(got) == 10:
            break
    assert got == list(range(40, 50))
    filled.start_node(leader)
    filled.wait_until_running(leader)
    for name in filled.names:
        filled.terminate(name)
    filled.start()
    assert read(channel(filled, leader), "first", 50)[-1] == (49, b"49")


def test_nonsense_is_refused(filled: Cluster) -> None:
    found = channel(filled, "node1")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
        found.basic_consume(QUEUE, lambda *_: None, arguments={"x-stream-offset": "middle"})
    assert refused.value.reply_code == 406
