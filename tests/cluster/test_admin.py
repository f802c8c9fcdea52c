"""Users, permissions, vhosts, policies and messages through the control API, as clients notice them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pika
import pytest

from brokers.engine.control.protocol import ControlError
from tests.cluster.clients import channel_on, connect, count, get
from tests.cluster.harness import Cluster

LOGIN = ("anna", "secret")


def call(cluster: Cluster, method: str, node: str | None = None, **params: Any) -> Any:
    return cluster.control.call(method, params, node=node)


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(ControlError) as error:
        action()
    return error.value.code


def user(cluster: Cluster, vhost: str = "/") -> None:
    call(cluster, "set_user", name="anna", password="secret", tags=["management"])
    call(cluster, "set_permissions", user="anna", vhost=vhost, configure="^anna", write=".*", read=".*")


def wait_until_closed(cluster: Cluster, connection: pika.BlockingConnection) -> tuple[int, str]:
    def closed() -> tuple[int, str] | None:
        try:
            connection.process_data_events(0.01)
        except pika.exceptions.ConnectionClosedByBroker as error:
            return error.reply_code, error.reply_text
        return None

    return cluster.wait_for(closed, "the connection is closed")


def test_users_come_change_and_go(cluster: Cluster) -> None:
    user(cluster)
    assert call(cluster, "list_users", node="node3")[1] == {
        "name": "anna",
        "tags": ["management"],
        "has_password": True,
    }
    with channel_on(cluster, "node2", LOGIN) as channel:
        channel.queue_declare("anna.q", durable=True)
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refusal:
            channel.queue_declare("other", durable=True)
        assert refusal.value.reply_code == 403

    connection = connect(cluster, "node3", LOGIN)
    call(cluster, "set_user", node="node1", name="anna", password="changed")
    assert wait_until_closed(cluster, connection) == (
        320,
        "CONNECTION_FORCED - password of user 'anna' was changed",
    )
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        connect(cluster, "node3", LOGIN)

    connection = connect(cluster, "node2", ("anna", "changed"))
    call(cluster, "delete_user", name="anna")
    assert wait_until_closed(cluster, connection) == (320, "CONNECTION_FORCED - user 'anna' was deleted")
    assert call(cluster, "list_permissions", user="anna") == []
    assert refused(lambda: call(cluster, "delete_user", name="anna")) == "not-found"


def test_vhosts_with_limits(cluster: Cluster) -> None:
    call(cluster, "set_vhost", name="v", description="for tests", tags=["t"])
    user(cluster, "v")
    call(cluster, "set_vhost_limits", vhost="v", limits={"max-connections": 1, "max-queues": 1})
    assert call(cluster, "list_vhost_limits") == [
        {"vhost": "v", "limits": {"max-connections": 1, "max-queues": 1}}
    ]
    connection = connect(cluster, "node1", LOGIN, "v")
    cluster.wait_for(
        lambda: any(row["vhost"] == "v" for row in cluster.snapshot("node2")["connections"]),
        "node2 knows of the connection",
    )
    for node in ("node1", "node2"):
        with pytest.raises(pika.exceptions.ProbableAccessDeniedError) as refusal:
            connect(cluster, node, LOGIN, "v")
        assert "(530)" in str(refusal.value)
        assert "connection limit (1) is reached" in str(refusal.value)
    channel = connection.channel()
    channel.queue_declare("anna.1", durable=True)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as too_many:
        channel.queue_declare("anna.2", durable=True)
    assert too_many.value.reply_code == 406
    call(cluster, "delete_vhost", name="v")
    assert wait_until_closed(cluster, connection) == (320, "CONNECTION_FORCED - vhost 'v' is deleted")
    assert [row["name"] for row in call(cluster, "list_vhosts")] == ["/"]


def test_policies_take_effect_at_once_and_after_a_fail_over(cluster: Cluster) -> None:
    call(cluster, "declare_queue", name="q")
    with channel_on(cluster, cluster.followers("q")[0]) as channel:
        channel.confirm_delivery()
        for body in (b"1", b"2", b"3"):
            channel.basic_publish("", "q", body)
        call(cluster, "set_policy", name="p", pattern="^q$", definition={"max-length": 5}, priority=1)
        call(cluster, "set_operator_policy", name="o", pattern=".*", definition={"max-length": 2})
        effective = call(cluster, "effective_policy", name="q")
        assert (effective["policy"]["name"], effective["operator_policy"]["name"]) == ("p", "o")
        cluster.wait_for(lambda: count(channel, "q") == 2, "the queue is as short as the policy says")
    leader = cluster.leader("q")
    cluster.kill(leader)
    cluster.wait_for_leader("q", leader)
    others = cluster.running()
    with channel_on(cluster, others[0]) as channel:
        channel.confirm_delivery()
        channel.basic_publish("", "q", b"4")
        cluster.wait_for(lambda: count(channel, "q") == 2, "the policy holds under the next leader")
        assert [get(channel, "q")[2] for _ in range(2)] == [b"3", b"4"]
    call(cluster, "delete_operator_policy", name="o")
    call(cluster, "delete_policy", name="p")
    assert call(cluster, "list_policies") == []
    assert refused(lambda: call(cluster, "delete_policy", name="p")) == "not-found"
    bad = partial(call, cluster, "set_policy", name="p", pattern="(", definition={"max-length": 1})
    assert refused(bad) == "bad-params"


def test_messages_can_be_put_and_seen_without_taking_them(cluster: Cluster) -> None:
    call(cluster, "declare_queue", name="q", arguments={"x-max-length": 10})
    call(cluster, "declare_exchange", name="e", type="fanout")
    call(cluster, "bind", source="e", destination="q")
    assert [b["destination"] for b in call(cluster, "list_bindings")] == ["q"]
    properties = {"delivery_mode": 2, "headers": {"n": 1}, "content_type": "text/plain"}
    published = call(cluster, "publish", exchange="e", payload="hällo", properties=properties)
    assert published == {"routed": True}
    assert call(cluster, "publish", routing_key="none", payload="x") == {"routed": False}
    raw = {"payload": "/w==", "payload_encoding": "base64"}
    call(cluster, "publish", routing_key="q", **raw)
    for node in cluster.names:
        first, second = call(cluster, "peek", node=node, name="q", count=5, max_bytes=3)["messages"]
        assert (first["payload"], first["payload_bytes"], first["truncated"]) == ("hä", 6, True)
        assert first["properties"] == {"delivery_mode": 2, "content_type": "text/plain"}
        assert (first["headers"], first["exchange"], first["state"]) == ({"n": 1}, "e", "ready")
        assert (second["payload"], second["payload_encoding"]) == ("/w==", "base64")
    with channel_on(cluster, "node1") as channel:
        method, _, body = channel.basic_get("q")
        assert (body, method.redelivered) == ("hällo".encode(), False)
        states = [row["state"] for row in call(cluster, "peek", name="q")["messages"]]
        assert states == ["unacked", "ready"]
        channel.basic_ack(method.delivery_tag)
    cluster.wait_for(lambda: call(cluster, "purge_queue", name="q")["messages"] >= 0, "purged")
    call(cluster, "unbind", source="e", destination="q")
    call(cluster, "delete_exchange", name="e")
    call(cluster, "delete_queue", name="q")
    assert refused(lambda: call(cluster, "delete_queue", name="q")) == "not-found"
    assert refused(lambda: call(cluster, "peek", name="q")) == "not-found"


def test_a_connection_is_closed_through_any_node(cluster: Cluster) -> None:
    for node in cluster.names:
        connection = connect(cluster, "node2")

        def listed(node: str = node) -> str | None:
            rows = cluster.snapshot(node)["connections"]
            found: str | None = next((row["id"] for row in rows), None)
            return found

        identity = cluster.wait_for(listed, "the connection is listed")
        call(cluster, "close_connection", node=node, id=identity, reason="go away")
        assert wait_until_closed(cluster, connection) == (320, "CONNECTION_FORCED - go away")
        cluster.wait_for(lambda: not listed(), "it is gone")
    assert refused(lambda: call(cluster, "close_connection", id="nobody-1")) == "not-found"


def test_topic_permissions(cluster: Cluster) -> None:
    user(cluster)
    call(
        cluster,
        "set_topic_permissions",
        **{"user": "anna", "vhost": "/", "exchange": "amq.topic", "write": "^news", "read": "^news"},
    )
    with channel_on(cluster, "node3", LOGIN) as channel:
        channel.confirm_delivery()
        channel.basic_publish("amq.topic", "news.today", b"")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refusal:
            channel.basic_publish("amq.topic", "secrets", b"")
        assert refusal.value.reply_code == 403
    call(cluster, "delete_topic_permissions", user="anna", vhost="/")
    assert call(cluster, "list_topic_permissions") == []


def test_wrong_passwords_get_slow_and_the_right_one_still_works(cluster: Cluster) -> None:
    user(cluster)
    cluster.control.call("ping")
    for _ in range(8):
        with pytest.raises(pika.exceptions.ProbableAuthenticationError):
            connect(cluster, "node1", ("anna", "wrong"))
    with channel_on(cluster, "node1", LOGIN) as channel:
        assert channel.is_open
