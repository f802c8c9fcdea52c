"""Transactions, on nodes that lead the queue and on others, and across a change of leader."""

from __future__ import annotations

import threading

import pika
import pytest

from tests.cluster.clients import channel_on, connect, count, get
from tests.cluster.harness import Cluster

QUEUES = ("one", "two")


@pytest.fixture
def queues(cluster: Cluster) -> Cluster:
    with channel_on(cluster, "node1") as channel:
        for queue in QUEUES:
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, "amq.fanout")
    return cluster


def test_commit_and_rollback_through_every_node(queues: Cluster) -> None:
    for node in queues.names:
        with channel_on(queues, node) as channel:
            channel.tx_select()
            channel.basic_publish("amq.fanout", "", b"kept")
            channel.tx_commit()
            channel.basic_publish("amq.fanout", "", b"dropped")
            channel.tx_rollback()
            channel.tx_commit()
            for queue in QUEUES:
                assert get(channel, queue)[2] == b"kept"
                assert count(channel, queue) == 0
            channel.tx_commit()


def test_acknowledgements_of_an_open_transaction_come_back(queues: Cluster) -> None:
    with channel_on(queues, queues.followers("one")[0]) as channel:
        channel.confirm_delivery()
        channel.basic_publish("", "one", b"m")
    connection = connect(queues, queues.followers("one")[0])
    channel = connection.channel()
    channel.tx_select()
    method, _, _ = channel.basic_get("one")
    channel.basic_ack(method.delivery_tag)
    channel.tx_rollback()
    channel.basic_ack(method.delivery_tag)
    connection.close()
    with channel_on(queues, queues.leader("one")) as channel:
        method, _, body = get(channel, "one")
        assert (body, method.redelivered) == (b"m", True)


def test_a_commit_waits_for_the_next_leader(queues: Cluster) -> None:
    leader = queues.leader("one")
    connection = connect(queues, queues.followers("one")[0])
    channel = connection.channel()
    channel.tx_select()
    channel.basic_publish("", "one", b"m", pika.BasicProperties(delivery_mode=2))
    queues.pause(leader)
    try:
        commit = threading.Thread(target=channel.tx_commit)
        commit.start()
        commit.join(30)
        assert not commit.is_alive()
        assert queues.wait_for_leader("one", leader) != leader
    finally:
        queues.resume(leader)
    assert get(channel, "one")[2] == b"m"
    channel.tx_commit()
    connection.close()


def test_confirms_and_transactions_exclude_each_other(queues: Cluster) -> None:
    with channel_on(queues, "node1") as channel:
        channel.confirm_delivery()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as error:
            channel.tx_select()
        assert error.value.reply_code == 406
        assert error.value.reply_text == "PRECONDITION_FAILED - cannot switch from confirm to tx mode"
