"""Direct reply-to between any two nodes; CC and BCC."""

from __future__ import annotations

import pika
import pytest

from tests.cluster.clients import channel_on, connect, count, get
from tests.cluster.harness import Cluster

REPLY_TO = "amq.rabbitmq.reply-to"


def refusal(error: pytest.ExceptionInfo[pika.exceptions.ChannelClosedByBroker]) -> tuple[int, str]:
    return error.value.reply_code, error.value.reply_text


def test_replies_cross_nodes(cluster: Cluster) -> None:
    with channel_on(cluster, "node1") as channel:
        channel.queue_declare("rpc", durable=True)
    for asking in cluster.names:
        for serving in cluster.names:
            ask_and_answer(cluster, asking, serving)


def ask_and_answer(cluster: Cluster, asking: str, serving: str) -> None:
    client = connect(cluster, asking)
    requests = client.channel()
    replies: list[bytes] = []
    requests.basic_consume(REPLY_TO, lambda *arguments: replies.append(arguments[3]), auto_ack=True)
    requests.basic_publish("", "rpc", b"ask", pika.BasicProperties(reply_to=REPLY_TO))
    with channel_on(cluster, serving) as server:
        _, properties, _ = get(server, "rpc")
        assert properties.reply_to.startswith(f"{REPLY_TO}.")
        assert server.queue_declare(properties.reply_to, passive=True).method.consumer_count == 1
        server.confirm_delivery()
        server.basic_publish("", properties.reply_to, b"answer")

    def replied() -> bool:
        client.process_data_events(0.01)
        return bool(replies)

    cluster.wait_for(replied, f"{asking} hears from {serving}")
    assert replies == [b"answer"]
    client.close()
    with channel_on(cluster, serving) as server:
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as error:
            server.queue_declare(properties.reply_to, passive=True)
        assert refusal(error)[0] == 404


def test_what_is_refused(cluster: Cluster) -> None:
    connection = connect(cluster, "node2")

    channel = connection.channel()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as error:
        channel.basic_consume(REPLY_TO, lambda *a: None)
    assert refusal(error) == (406, "PRECONDITION_FAILED - reply consumer cannot acknowledge")

    channel = connection.channel()
    channel.basic_consume(REPLY_TO, lambda *a: None, auto_ack=True)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as error:
        channel.basic_consume(REPLY_TO, lambda *a: None, auto_ack=True)
    assert refusal(error) == (406, "PRECONDITION_FAILED - reply consumer already set")

    channel = connection.channel()
    channel.basic_publish("", "q", b"", pika.BasicProperties(reply_to=REPLY_TO))
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as error:
        channel.queue_declare("q")
    assert refusal(error) == (406, "PRECONDITION_FAILED - fast reply consumer does not exist")

    channel = connection.channel()
    assert channel.queue_declare(REPLY_TO, passive=True).method.queue == REPLY_TO
    tag = channel.basic_consume(REPLY_TO, lambda *a: None, auto_ack=True)
    channel.basic_cancel(tag)
    channel.basic_consume(REPLY_TO, lambda *a: None, auto_ack=True)
    connection.close()


def test_cc_and_bcc_route_and_bcc_is_hidden(cluster: Cluster) -> None:
    with channel_on(cluster, "node1") as channel:
        for queue in ("to", "cc", "bcc", "topic"):
            channel.queue_declare(queue, durable=True)
        channel.queue_bind("topic", "amq.topic", "a.#")
    headers = {"CC": ["cc", "a.b"], "BCC": ["bcc", "to"], "n": 5}
    for node in cluster.names:
        with channel_on(cluster, node) as channel:
            channel.confirm_delivery()
            channel.basic_publish("", "to", b"m", pika.BasicProperties(headers=headers))
            for queue in ("to", "cc", "bcc"):
                method, properties, _ = get(channel, queue)
                assert properties.headers == {"CC": ["cc", "a.b"], "n": 5}
                assert method.routing_key == "to"
                assert count(channel, queue) == 0
            channel.basic_publish("amq.topic", "none", b"m", pika.BasicProperties(headers=headers))
            assert get(channel, "topic")[0].routing_key == "none"
    with channel_on(cluster, "node1") as channel:
        channel.basic_publish("", "to", b"m", pika.BasicProperties(headers={"CC": "cc"}))
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as error:
            channel.queue_declare("to", passive=True)
        assert refusal(error) == (
            406,
            'PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,"CC",longstr}',
        )
