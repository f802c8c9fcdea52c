"""What one client, or a crowd of them, may take: half-open handshakes, connections, channels, sizes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pika
import pytest

from tests.cluster.clients import channel_on, connect, get
from tests.cluster.harness import Cluster

HALF_OPEN = 1000


def test_a_thousand_half_open_connections_hurt_nobody(cluster: Cluster) -> None:
    port = cluster.node("node1").amqp
    with channel_on(cluster, "node1") as channel:
        channel.queue_declare("q", durable=True)
        channel.confirm_delivery()
        crowd = []
        for i in range(HALF_OPEN):
            stranger = socket.create_connection(("127.0.0.1", port))
            stranger.sendall(b"AMQP\x00\x00\x09\x01"[: i % 9])
            crowd.append(stranger)
        for _ in range(100):
            channel.basic_publish("", "q", b"m")
            assert get(channel, "q")[2] == b"m"
        with channel_on(cluster, "node1") as other:
            assert other.is_open
        cluster.wait_for(
            lambda: all(_closed(stranger) for stranger in crowd), "all who say nothing more are let go"
        )
        for stranger in crowd:
            stranger.close()
        assert channel.is_open


def _closed(stranger: socket.socket) -> bool:
    stranger.setblocking(False)
    try:
        while data := stranger.recv(65536):
            del data
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def test_a_node_takes_as_many_connections_as_it_may(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(env={"MQ_MAX_CONNECTIONS": "3"}).start()
    connections = [connect(cluster, "node1") for _ in range(3)]
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        connect(cluster, "node1")
    with channel_on(cluster, "node2") as channel:
        assert channel.is_open
    connections.pop().close()
    deadline = time.monotonic() + 30
    while True:
        try:
            connections.append(connect(cluster, "node1"))
            break
        except pika.exceptions.AMQPConnectionError:
            assert time.monotonic() < deadline
    for connection in connections:
        connection.close()


def test_channels_consumers_and_message_sizes_have_limits(cluster: Cluster) -> None:
    connection = connect(cluster, "node1")
    assert connection._impl.params.channel_max == 2047
    channel = connection.channel()
    channel.queue_declare("q", durable=True)
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as error:
        channel.basic_publish("", "q", b"x" * (128 * 1024 * 1024 + 1))
    assert error.value.reply_code == 406
    assert "is larger than configured max size" in error.value.reply_text
    connection.close()
