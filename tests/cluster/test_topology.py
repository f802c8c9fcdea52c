"""What is declared through one node is there on all others when the client hears of it."""

from __future__ import annotations

from itertools import permutations

import pika
import pytest

from tests.cluster.clients import channel_on, connect, get
from tests.cluster.harness import Cluster


def test_a_declaration_is_known_everywhere_at_once(cluster: Cluster) -> None:
    connections = {name: connect(cluster, name) for name in cluster.names}
    for i in range(20):
        for one, other in permutations(cluster.names, 2):
            queue = f"{one}.{other}.{i}"
            declaring, using = connections[one].channel(), connections[other].channel()
            declaring.queue_declare(queue, durable=True)
            declaring.queue_bind(queue, "amq.direct", queue)
            using.queue_declare(queue, passive=True)
            using.confirm_delivery()
            using.basic_publish("amq.direct", queue, b"", mandatory=True)
            declaring.queue_delete(queue)
            with pytest.raises(pika.exceptions.ChannelClosedByBroker):
                using.queue_declare(queue, passive=True)
            declaring.close()
    for connection in connections.values():
        connection.close()


def test_a_frozen_node_holds_nobody_up(cluster: Cluster) -> None:
    leader = cluster.snapshot()["metadata"]["leader"]
    frozen = next(name for name in cluster.names if name != leader)
    others = [name for name in cluster.names if name != frozen]
    cluster.pause(frozen)
    with channel_on(cluster, others[0]) as one, channel_on(cluster, others[1]) as other:
        for i in range(20):
            one.queue_declare(f"q{i}", durable=True)
            other.queue_declare(f"q{i}", passive=True)
    cluster.resume(frozen)
    cluster.wait_until_complete()
    with channel_on(cluster, frozen) as channel:
        channel.queue_declare("late", durable=True)
        channel.queue_declare("q19", passive=True)


def test_internal_auto_delete_and_alternate_exchanges(cluster: Cluster) -> None:
    for node in cluster.names:
        with channel_on(cluster, node) as channel:
            channel.exchange_declare("inside", "fanout", internal=True)
            channel.exchange_declare("rest", "fanout")
            channel.exchange_declare(
                "first", "direct", auto_delete=True, arguments={"alternate-exchange": "rest"}
            )
            channel.queue_declare("q", durable=True)
            channel.queue_bind("q", "inside")
            channel.exchange_bind("inside", "first", "in")
            channel.queue_declare("unrouted", durable=True)
            channel.queue_bind("unrouted", "rest")
            channel.confirm_delivery()
            channel.basic_publish("first", "in", b"in", mandatory=True)
            channel.basic_publish("first", "out", b"out", mandatory=True)
            assert get(channel, "q")[2] == b"in"
            assert get(channel, "unrouted")[2] == b"out"
            channel.exchange_unbind("inside", "first", "in")
        with channel_on(cluster, node) as channel:
            with pytest.raises(pika.exceptions.ChannelClosedByBroker) as error:
                channel.exchange_declare("first", passive=True)
            assert error.value.reply_code == 404
        with channel_on(cluster, node) as channel:
            channel.confirm_delivery()
            with pytest.raises(pika.exceptions.ChannelClosedByBroker) as error:
                channel.basic_publish("inside", "", b"")
            assert error.value.reply_code == 403
