"""How much a queue takes, how long it is kept and who consumes it: through pika, on nodes that do not lead
the queue, and with the leader going away in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.cluster.clients import channel_on, connect, count, get
from tests.cluster.harness import Cluster

HOW = pytest.mark.parametrize("how", ["transfer", "kill"])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for the tests that leave it as it was."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster.start()


def declare(cluster: Cluster, queue: str, **arguments: object) -> str:
    """A durable queue; the name of a node that does not lead it."""
    given = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    with channel_on(cluster, cluster.names[0]) as channel:
        channel.queue_declare(queue, durable=True, arguments=given)
    return cluster.followers(queue)[0]


def taken(channel: BlockingChannel, queue: str, *bodies: bytes, exchange: str = "") -> list[bytes]:
    """Those of the messages that the broker took."""
    channel.confirm_delivery()
    found = []
    for body in bodies:
        try:
            channel.basic_publish(exchange, queue, body)
        except pika.exceptions.NackError:
            continue
        found.append(body)
    return found


def lead_elsewhere(cluster: Cluster, how: str, queue: str) -> None:
    """Have another node lead ``queue``."""
    leader = cluster.leader(queue)
    if how == "transfer":
        cluster.control.call("transfer_leadership", {"vhost": "/", "name": queue, "target": None})
    else:
        cluster.kill(leader)
    cluster.wait_for_leader(queue, leader)


def test_the_oldest_make_room(shared: Cluster) -> None:
    node = declare(shared, "ring", max_length=2)
    with channel_on(shared, node) as channel:
        assert len(taken(channel, "ring", b"a", b"b", b"c")) == 3
        assert count(channel, "ring") == 2
        assert [get(channel, "ring")[2] for _ in range(2)] == [b"b", b"c"]


def test_bytes_make_room(shared: Cluster) -> None:
    node = declare(shared, "heavy", max_length_bytes=10)
    with channel_on(shared, node) as channel:
        taken(channel, "heavy", b"12345", b"6789", b"abcdef")
        assert count(channel, "heavy") == 2
        assert [get(channel, "heavy")[2] for _ in range(2)] == [b"6789", b"abcdef"]


def test_a_full_queue_refuses(shared: Cluster) -> None:
    node = declare(shared, "full", max_length=2, overflow="reject-publish")
    with channel_on(shared, node) as channel:
        assert taken(channel, "full", b"a", b"b", b"c", b"d") == [b"a", b"b"]
        assert get(channel, "full")[2] == b"a"
        assert taken(channel, "full", b"e", b"f") == [b"e"]


def test_a_burst_is_refused_one_by_one(shared: Cluster) -> None:
    """Messages of one batch and of two channels, each with its own answer."""
    node = declare(shared, "burst", max_length=3, overflow="reject-publish")
    answers: dict[int, list[tuple[str, int, bool]]] = {1: [], 2: []}

    done: list[Any] = []

    def opened(connection: Any) -> None:
        for number in answers:
            connection.channel(channel_number=number, on_open_callback=ready)

    def ready(channel: Any) -> None:
        number = channel.channel_number
        channel.confirm_delivery(
            lambda frame: answers[number].append(
                (frame.method.NAME, frame.method.delivery_tag, frame.method.multiple)
            ),
            callback=lambda _: done.append(channel),
        )
        channel.connection.ioloop.call_later(0.01, lambda: publish(channel.connection))

    def publish(connection: Any) -> None:
        if len(done) < 2:
            return
        first, second = sorted(done, key=lambda channel: channel.channel_number)
        done.clear()
        for channel in (first, second, first, second, first, second):
            channel.basic_publish("", "burst", b"x")
        connection.ioloop.call_later(1, connection.close)

    client = pika.SelectConnection(
        pika.ConnectionParameters("127.0.0.1", shared.node(node).amqp),
        on_open_callback=opened,
        on_close_callback=lambda connection, _: connection.ioloop.stop(),
    )
    client.ioloop.start()
    assert outcomes(answers[1]) == {1: "Basic.Ack", 2: "Basic.Ack", 3: "Basic.Nack"}
    assert outcomes(answers[2]) == {1: "Basic.Ack", 2: "Basic.Nack", 3: "Basic.Nack"}


def outcomes(answers: list[tuple[str, int, bool]]) -> dict[int, str]:
    """What each delivery tag was answered with; ``multiple`` speaks for all before."""
    found: dict[int, str] = {}
    for name, tag, multiple in answers:
        for each in range(1 if multiple else tag, tag + 1):
            found.setdefault(each, name)
    return found


def test_one_full_queue_of_several_refuses_for_all(shared: Cluster) -> None:
    node = declare(shared, "narrow", max_length=1, overflow="reject-publish")
    with channel_on(shared, node) as channel:
        channel.queue_declare("wide", durable=True)
        channel.exchange_declare("both", "fanout", durable=True)
        for queue in ("narrow", "wide"):
            channel.queue_bind(queue, "both")
        assert taken(channel, "", b"a", b"b", b"c", exchange="both") == [b"a"]
        assert (count(channel, "narrow"), count(channel, "wide")) == (1, 3)


def test_a_transaction_that_is_refused_in_part(shared: Cluster) -> None:
    node = declare(shared, "tx", max_length=1, overflow="reject-publish")
    with channel_on(shared, node) as channel:
        channel.tx_select()
        channel.basic_publish("", "tx", b"a")
        channel.basic_publish("", "tx", b"b")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="partial tx completion"):
            channel.tx_commit()


@HOW
def test_limits_hold_under_a_new_leader(cluster: Cluster, how: str) -> None:
    declare(cluster, "ring", max_length=3, max_length_bytes=100)
    declare(cluster, "full", max_length=3, overflow="reject-publish")
    for queue in ("ring", "full"):
        with channel_on(cluster, cluster.followers(queue)[-1]) as channel:
            bodies = [b"%d" % n for n in range(5)]
            first = taken(channel, queue, *bodies)
            lead_elsewhere(cluster, how, queue)
            second = taken(channel, queue, b"x", b"y")
            assert count(channel, queue) == 3
            kept = [get(channel, queue)[2] for _ in range(3)]
        if queue == "ring":
            assert (first, second, kept) == (bodies, [b"x", b"y"], [b"4", b"x", b"y"])
        else:
            assert (first, second, kept) == (bodies[:3], [], bodies[:3])
        for name in set(cluster.names) - set(cluster.running()):
            cluster.start_node(name)
            cluster.wait_until_running(name)


# How long a queue is kept


def exists(cluster: Cluster, node: str, queue: str) -> bool:
    with channel_on(cluster, node) as channel:
        try:
            channel.queue_declare(queue, passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return False
        return True


def gone(cluster: Cluster, queue: str) -> bool:
    """Asked of the control API: to declare it would be to use it."""
    return all(row["name"] != queue for row in cluster.snapshot()["queues"])


def test_an_unused_queue_goes(shared: Cluster) -> None:
    node = declare(shared, "lease", expires=1500)
    connection = connect(shared, node)
    channel = connection.channel()
    tag = channel.basic_consume("lease", lambda *_: None)
    connection.sleep(1.5)
    assert exists(shared, node, "lease")
    channel.basic_cancel(tag)
    shared.wait_for(lambda: gone(shared, "lease"), "it expires")
    connection.close()
    assert not exists(shared, node, "lease")


def test_an_unused_transient_queue_goes(shared: Cluster) -> None:
    with channel_on(shared, "node2") as channel:
        queue = channel.queue_declare("", exclusive=True, arguments={"x-expires": 1000}).method.queue
        shared.wait_for(lambda: gone(shared, queue), "it expires")


def test_consumers_are_told_nothing_and_messages_die_with_it(shared: Cluster) -> None:
    node = declare(shared, "cargo", expires=3000, dead_letter_exchange="", dead_letter_routing_key="wreck")
    declare(shared, "wreck")
    with channel_on(shared, node) as channel:
        taken(channel, "cargo", b"x")
        shared.wait_for(lambda: gone(shared, "cargo"), "it expires")
        assert count(channel, "wreck") == 0


@HOW
def test_it_expires_under_a_new_leader(cluster: Cluster, how: str) -> None:
    declare(cluster, "lease", expires=1500)
    lead_elsewhere(cluster, how, "lease")
    cluster.wait_for(lambda: gone(cluster, "lease"), "it expires")
    assert not exists(cluster, cluster.running()[0], "lease")


# One consumer at a time


class Consumers:
    """Consumers of one queue, each on a connection of its own."""

    def __init__(self, cluster: Cluster, queue: str, nodes: list[str]) -> None:
        self.cluster = cluster
        self.got: list[list[bytes]] = []
        self.connections = []
        for node in nodes:
            connection = connect(cluster, node)
            channel = connection.channel()
            channel.basic_qos(prefetch_count=10)
            received: list[bytes] = []
            self.got.append(received)

            def on_message(
                channel: Any, method: Any, _: Any, body: bytes, received: list[bytes] = received
            ) -> None:
                received.append(body)
                channel.basic_ack(method.delivery_tag)

            channel.basic_consume(queue, on_message)
            self.connections.append(connection)

    def wait(self, number: int, count: int) -> None:
        """Until consumer ``number`` has received ``count`` messages."""

        def received() -> bool:
            for connection in self.connections:
                if connection.is_open:
                    connection.process_data_events(0)
            return len(self.got[number]) >= count

        self.cluster.wait_for(received, f"consumer {number} gets {count} messages")

    def close(self) -> None:
        for connection in self.connections:
            if connection.is_open:
                connection.close()


def test_the_next_one_takes_over(shared: Cluster) -> None:
    node = declare(shared, "single", single_active_consumer=True)
    consumers = Consumers(shared, "single", shared.names)
    with channel_on(shared, node) as channel:
        taken(channel, "single", b"a", b"b", b"c")
        consumers.wait(0, 3)
        consumers.connections[0].close()
        taken(channel, "single", b"d", b"e")
        consumers.wait(1, 2)
        consumers.connections[1].close()
        taken(channel, "single", b"f")
        consumers.wait(2, 1)
    assert consumers.got == [[b"a", b"b", b"c"], [b"d", b"e"], [b"f"]]
    consumers.close()


@HOW
def test_the_active_one_stays_active_under_a_new_leader(cluster: Cluster, how: str) -> None:
    declare(cluster, "single", single_active_consumer=True)
    first, second = cluster.followers("single")
    consumers = Consumers(cluster, "single", [second, first, second])
    with channel_on(cluster, first) as channel:
        taken(channel, "single", b"a")
        consumers.wait(0, 1)
        lead_elsewhere(cluster, how, "single")
        taken(channel, "single", b"b", b"c")
        consumers.wait(0, 3)
        consumers.connections[0].close()
        taken(channel, "single", b"d")
        consumers.wait(1, 1)
    assert consumers.got == [[b"a", b"b", b"c"], [b"d"], []]
    consumers.close()


# Arguments


@pytest.mark.parametrize(
    "arguments",
    [
        {"x-queue-mode": "lazy"},
        {"x-queue-mode": "default", "x-queue-version": 2},
        {"x-max-in-memory-length": 0, "x-queue-type": "quorum"},
        {"x-retry-attempts": 3, "x-retry-backoff": "1000,5000,30000"},
    ],
)
def test_accepted(shared: Cluster, arguments: dict[str, object]) -> None:
    with channel_on(shared, "node1") as channel:
        channel.queue_declare("accepted", durable=True, arguments=arguments)
        channel.queue_delete("accepted")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("x-retry-backoff", "1s", "'1s' is no number of milliseconds"),
        ("x-retry-attempts", -1, "value_negative"),
        ("x-overflow", "spill", "invalid_overflow"),
    ],
)
def test_refused(shared: Cluster, key: str, value: object, text: str) -> None:
    with channel_on(shared, "node1") as channel:
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match=text):
            channel.queue_declare("refused", durable=True, arguments={key: value})
