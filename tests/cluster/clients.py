"""pika against a cluster of the harness: connections to nodes that lead a queue, or do not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from tests.cluster.harness import TIMEOUT, Cluster

GUEST = ("guest", "guest")


def connect(
    cluster: Cluster, node: str, login: tuple[str, str] = GUEST, vhost: str = "/"
) -> pika.BlockingConnection:
    """A connection to the node called ``node``, as user and password; the caller closes it."""
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            "127.0.0.1",
            cluster.node(node).amqp,
            vhost,
            pika.PlainCredentials(*login),
            heartbeat=0,
            blocked_connection_timeout=TIMEOUT,
            socket_timeout=TIMEOUT,
        )
    )


@contextmanager
def channel_on(
    cluster: Cluster, node: str, login: tuple[str, str] = GUEST, vhost: str = "/"
) -> Iterator[BlockingChannel]:
    """A channel of a connection of its own, which ends with the block."""
    connection = connect(cluster, node, login, vhost)
    try:
        yield connection.channel()
    finally:
        if connection.is_open:
            connection.close()


def get(channel: BlockingChannel, queue: str, timeout: float = TIMEOUT, **options: Any) -> Any:
    """The (method, properties, body) of the next message of ``queue``, once there is one."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        method, properties, body = channel.basic_get(queue, auto_ack=True, **options)
        if method is not None:
            return method, properties, body
        time.sleep(0.01)
    raise AssertionError(f"nothing came to queue {queue!r} within {timeout:g} s")


def count(channel: BlockingChannel, queue: str) -> int:
    """How many messages are ready."""
    return int(channel.queue_declare(queue, passive=True).method.message_count)
