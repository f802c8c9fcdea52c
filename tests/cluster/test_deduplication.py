"""Repeated messages are dropped by queues and exchanges that were asked to, on any node, across a fail-over."""

from __future__ import annotations

from itertools import cycle

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.cluster.harness import Cluster


def channel(cluster: Cluster, name: str) -> BlockingChannel:
    parameters = pika.ConnectionParameters("127.0.0.1", cluster.node(name).amqp)
    found = pika.BlockingConnection(parameters).channel()
    found.confirm_delivery()
    return found


def publish(found: BlockingChannel, exchange: str, key: str, number: object) -> None:
    properties = pika.BasicProperties(headers={"x-deduplication-header": number})
    found.basic_publish(exchange, key, b"%s" % str(number).encode(), properties)


def everything(found: BlockingChannel, queue: str) -> list[bytes]:
    """Take all that is there."""
    got = []
    while (item := found.basic_get(queue, auto_ack=True))[0] is not None:
        got.append(item[2])
    return got


@pytest.mark.parametrize("by", ["queue", "exchange"])
def test_each_key_once_whichever_node_and_leader(cluster: Cluster, by: str) -> None:
    window = {"x-message-deduplication": True, "x-cache-size": 1000}
    setup = channel(cluster, "node1")
    setup.exchange_declare("in", "fanout", durable=True, arguments=window if by == "exchange" else None)
    for queue in ("one", "two"):
        setup.queue_declare(queue, durable=True, arguments=window if by == "queue" else None)
        setup.queue_bind(queue, "in")
    channels = cycle([channel(cluster, name) for name in cluster.names])
    for number in range(30):
        publish(next(channels), "in", "", number)
        publish(next(channels), "in", "", number)
        if number == 15:
            cluster.control.call("transfer_leadership", {"vhost": "/", "name": "one", "target": None})
    for queue in ("one", "two"):
        assert everything(setup, queue) == [b"%d" % number for number in range(30)]


def test_window_ends(cluster: Cluster) -> None:
    setup = channel(cluster, "node2")
    setup.queue_declare(
        "brief", durable=True, arguments={"x-message-deduplication": True, "x-cache-ttl": 300}
    )
    publish(setup, "", "brief", 1)
    publish(setup, "", "brief", 1)
    assert setup.queue_declare("brief", passive=True).method.message_count == 1

    def again() -> bool:
        publish(setup, "", "brief", 1)
        return bool(setup.queue_declare("brief", passive=True).method.message_count == 2)

    cluster.wait_for(again, "the window has ended")
