"""Messages that expire, are rejected, find no room or are never acknowledged: through pika, on nodes that do
not lead the queue, and with the leader going away in the middle.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.cluster.clients import channel_on, count, get
from tests.cluster.harness import Cluster

DEAD = "dead"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for the tests that leave it as it was."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster.start()


def declare(cluster: Cluster, queue: str, **arguments: object) -> str:
    """A durable queue whose messages end in ``DEAD``, and that one; the name of a node that leads neither."""
    given = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    defaults = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD}
    with channel_on(cluster, cluster.names[0]) as channel:
        channel.queue_declare(DEAD, durable=True)
        channel.queue_purge(DEAD)
        channel.queue_declare(queue, durable=True, arguments=defaults | given)
    leaders = {cluster.leader(queue), cluster.leader(DEAD)}
    return next(name for name in cluster.names if name not in leaders)


def publish(
    channel: BlockingChannel, queue: str, *bodies: bytes, exchange: str = "", **properties: Any
) -> None:
    """Publish, and wait for the confirms."""
    channel.confirm_delivery()
    for body in bodies:
        channel.basic_publish(exchange, queue, body, pika.BasicProperties(**properties))


def take(channel: BlockingChannel, queue: str) -> Any:
    """The next message, unacknowledged, once there is one."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        method, properties, body = channel.basic_get(queue)
        if method is not None:
            return method, properties, body
        time.sleep(0.01)
    raise AssertionError(f"nothing came to {queue!r}")


def death(properties: Any) -> dict[str, Any]:
    """The latest entry of ``x-death``, without its time."""
    latest = dict(properties.headers["x-death"][0])
    latest.pop("time")
    return latest


def test_expired(shared: Cluster) -> None:
    node = declare(shared, "short", message_ttl=100)
    with channel_on(shared, node) as channel:
        publish(channel, "short", b"late", headers={"mine": "kept"}, content_type="text/x")
        method, properties, body = get(channel, DEAD)
        assert (body, method.exchange, method.routing_key, method.redelivered) == (b"late", "", DEAD, False)
        assert properties.content_type == "text/x"
        assert properties.headers["mine"] == "kept"
        assert death(properties) == {
            "count": 1,
            "reason": "expired",
            "queue": "short",
            "exchange": "",
            "routing-keys": ["short"],
        }
        for which in ("first", "last"):
            found = [
                properties.headers[f"x-{which}-death-{name}"] for name in ("reason", "queue", "exchange")
            ]
            assert found == ["expired", "short", ""]
        shared.wait_for(lambda: shared.queue("short")["messages"] == 0, "the queue let go")


def test_expiration_of_a_message(shared: Cluster) -> None:
    node = declare(shared, "some expire")
    with channel_on(shared, node) as channel:
        publish(channel, "some expire", b"soon", expiration="50")
        _, properties, body = get(channel, DEAD)
        assert (body, properties.expiration) == (b"soon", None)
        assert death(properties)["original-expiration"] == "50"
        publish(channel, "some expire", b"at once", expiration="0")
        assert get(channel, DEAD)[2] == b"at once"


def test_rejected(shared: Cluster) -> None:
    node = declare(shared, "work")
    with channel_on(shared, node) as channel:
        publish(channel, "work", b"a", b"b", b"c")
        channel.basic_ack(take(channel, "work")[0].delivery_tag)
        channel.basic_reject(take(channel, "work")[0].delivery_tag, requeue=False)
        channel.basic_nack(take(channel, "work")[0].delivery_tag, requeue=False)
        dead = [get(channel, DEAD) for _ in range(2)]
        assert [body for _, _, body in dead] == [b"b", b"c"]
        assert {death(properties)["reason"] for _, properties, _ in dead} == {"rejected"}
        assert count(channel, "work") == 0


def test_rejected_by_a_consumer_of_another_node(shared: Cluster) -> None:
    node = declare(shared, "many")
    with channel_on(shared, node) as channel:
        publish(channel, "many", *[b"%d" % n for n in range(300)])
        for method, _, body in channel.consume("many", inactivity_timeout=10):
            channel.basic_nack(method.delivery_tag, requeue=False)
            if body == b"299":
                break
        channel.cancel()
        assert [int(get(channel, DEAD)[2]) for _ in range(300)] == list(range(300))


def test_too_many(shared: Cluster) -> None:
    node = declare(shared, "few", max_length=2)
    with channel_on(shared, node) as channel:
        publish(channel, "few", b"a", b"b", b"c", b"d")
        assert count(channel, "few") == 2
        dead = [get(channel, DEAD) for _ in range(2)]
        assert [body for _, _, body in dead] == [b"a", b"b"]
        assert death(dead[0][1])["reason"] == "maxlen"


def test_poison(shared: Cluster) -> None:
    node = declare(shared, "poisoned", queue_type="quorum", delivery_limit=3)
    with channel_on(shared, node) as channel:
        publish(channel, "poisoned", b"poison")
        seen = []
        for _ in range(4):
            method, properties, _ = take(channel, "poisoned")
            seen.append((properties.headers or {}).get("x-delivery-count"))
            channel.basic_nack(method.delivery_tag, requeue=True)
        assert seen == [None, 1, 2, 3]
        _, properties, _ = get(channel, DEAD)
        assert death(properties)["reason"] == "delivery_limit"


def test_poison_of_consumers_that_die(shared: Cluster) -> None:
    node = declare(shared, "deadly", delivery_limit=2)
    with channel_on(shared, node) as channel:
        publish(channel, "deadly", b"kills")
    for _ in range(3):
        with channel_on(shared, node) as channel:
            take(channel, "deadly")
    with channel_on(shared, node) as channel:
        assert get(channel, DEAD)[2] == b"kills"


def test_a_quorum_queue_has_a_limit_of_20(shared: Cluster) -> None:
    node = declare(shared, "default limit", queue_type="quorum")
    with channel_on(shared, node) as channel:
        publish(channel, "default limit", b"poison")
        for _ in range(21):
            channel.basic_nack(take(channel, "default limit")[0].delivery_tag)
        assert death(get(channel, DEAD)[1])["reason"] == "delivery_limit"


def test_retries(shared: Cluster) -> None:
    node = declare(shared, "retried", retry_attempts=2, retry_backoff="100,200")
    with channel_on(shared, node) as channel:
        publish(channel, "retried", b"later")
        flags = []
        begun = time.monotonic()
        for _ in range(3):
            method, _, _ = take(channel, "retried")
            flags.append(method.redelivered)
            channel.basic_reject(method.delivery_tag, requeue=False)
        assert time.monotonic() - begun >= 0.3
        assert flags == [False, True, True]
        assert death(get(channel, DEAD)[1])["reason"] == "rejected"


def test_an_exchange_leads_to_several_queues(shared: Cluster) -> None:
    node = declare(shared, "shared fate", dead_letter_exchange="fate", dead_letter_routing_key="a.b")
    # It is the queue's leader that routes: what is declared there is known there.
    with channel_on(shared, shared.leader("shared fate")) as channel:
        channel.exchange_declare("fate", "topic", durable=True)
        for queue, key in (("one", "a.*"), ("two", "#"), ("other", "c")):
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, "fate", key)
    with channel_on(shared, node) as channel:
        publish(channel, "shared fate", b"x")
        channel.basic_reject(take(channel, "shared fate")[0].delivery_tag, requeue=False)
        assert get(channel, "one")[2] == get(channel, "two")[2] == b"x"
        assert count(channel, "other") == 0
        shared.wait_for(lambda: shared.queue("shared fate")["messages"] == 0, "the queue let go")


def test_without_a_key_of_its_own_the_message_keeps_its_keys(shared: Cluster) -> None:
    with channel_on(shared, "node1") as channel:
        channel.exchange_declare("morgue", "direct", durable=True)
        channel.queue_declare("keyed", durable=True, arguments={"x-dead-letter-exchange": "morgue"})
    with channel_on(shared, shared.leader("keyed")) as channel:
        for queue in ("by key", "by copy"):
            channel.queue_declare(queue, durable=True)
        channel.queue_bind("by key", "morgue", "keyed")
        channel.queue_bind("by copy", "morgue", "copy")
    with channel_on(shared, shared.followers("keyed")[0]) as channel:
        publish(channel, "keyed", b"x", headers={"CC": ["copy"]})
        channel.basic_reject(take(channel, "keyed")[0].delivery_tag, requeue=False)
        _, properties, _ = get(channel, "by key")
        assert death(properties)["routing-keys"] == ["keyed", "copy"]
        assert get(channel, "by copy")[0].routing_key == "keyed"


@pytest.mark.parametrize("exchange", ["nowhere", "amq.direct"])
def test_with_no_way_to_go_it_is_dropped(shared: Cluster, exchange: str) -> None:
    node = declare(shared, f"lost {exchange}", dead_letter_exchange=exchange)
    with channel_on(shared, node) as channel:
        publish(channel, f"lost {exchange}", b"x")
        channel.basic_reject(take(channel, f"lost {exchange}")[0].delivery_tag, requeue=False)
        shared.wait_for(lambda: shared.queue(f"lost {exchange}")["messages"] == 0, "it is gone")


def test_at_least_once_it_waits_for_a_way_to_go(shared: Cluster) -> None:
    node = declare(shared, "patient", dead_letter_exchange="later", dead_letter_strategy="at-least-once")
    with channel_on(shared, node) as channel:
        publish(channel, "patient", b"x")
        channel.basic_reject(take(channel, "patient")[0].delivery_tag, requeue=False)
        channel.exchange_declare("later", "fanout", durable=True)
        shared.wait_for(
            lambda: [shared.queue("patient")[name] for name in ("messages", "ready", "unacked")] == [1, 0, 0],
            "it is dying",
        )
        channel.queue_bind(DEAD, "later", "")
        assert get(channel, DEAD)[2] == b"x"


def test_a_circle_ends_unless_somebody_rejects(shared: Cluster) -> None:
    with channel_on(shared, "node1") as channel:
        for queue, other in (("ping", "pong"), ("pong", "ping")):
            arguments = {
                "x-message-ttl": 50,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": other,
            }
            channel.queue_declare(queue, durable=True, arguments=arguments)
        publish(channel, "ping", b"round and round")
        shared.wait_for(
            lambda: all(shared.queue(queue)["messages"] == 0 for queue in ("ping", "pong")), "the circle ends"
        )
        own = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "again"}
        channel.queue_declare("again", durable=True, arguments=own)
        publish(channel, "again", b"x")
        for n in range(3):
            method, properties, _ = take(channel, "again")
            assert n == 0 or death(properties)["count"] == n
            channel.basic_reject(method.delivery_tag, requeue=False)


def test_transient_queues_too(shared: Cluster) -> None:
    node = declare(shared, "durable one")
    with channel_on(shared, node) as channel:
        arguments = {
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD,
            "x-message-ttl": 50,
            "x-max-length": 2,
            "x-overflow": "reject-publish-dlx",
        }
        queue = channel.queue_declare("", exclusive=True, arguments=arguments).method.queue
        publish(channel, queue, b"a", b"b")
        with pytest.raises(pika.exceptions.NackError):
            publish(channel, queue, b"c")
        dead = [get(channel, DEAD) for _ in range(3)]
        found = {body: death(properties)["reason"] for _, properties, body in dead}
        assert found == {b"a": "expired", b"b": "expired", b"c": "maxlen"}
        assert count(channel, queue) == 0


# Fail-overs. Dead letters may repeat, none may be missing, and the source holds nothing in the end.


def drain(channel: BlockingChannel, expected: set[bytes]) -> Counter[bytes]:
    found: Counter[bytes] = Counter()
    deadline = time.monotonic() + 30
    while set(found) != expected and time.monotonic() < deadline:
        _, _, body = channel.basic_get(DEAD, auto_ack=True)
        if body is not None:
            found[body] += 1
    assert set(found) == expected
    return found


def lead_elsewhere(cluster: Cluster, how: str, queue: str) -> str:
    """Have another node lead ``queue``; the one that did."""
    leader = cluster.leader(queue)
    if how == "transfer":
        cluster.control.call("transfer_leadership", {"vhost": "/", "name": queue, "target": None})
    else:
        cluster.kill(leader)
    cluster.wait_for_leader(queue, leader)
    return leader


@pytest.mark.parametrize("how", ["transfer", "kill"])
def test_rejects_survive_the_leader(cluster: Cluster, how: str) -> None:
    declare(cluster, "work")
    node = cluster.followers("work")[0]
    bodies = [b"%d" % n for n in range(500)]
    with channel_on(cluster, node) as channel:
        publish(channel, "work", *bodies)
        channel.basic_qos(prefetch_count=500)
        for method, _, body in channel.consume("work", inactivity_timeout=20):
            assert method is not None
            channel.basic_nack(method.delivery_tag, requeue=False)
            if body == b"250":
                lead_elsewhere(cluster, how, "work")
            if body == b"499":
                break
        drain(channel, set(bodies))
        cluster.wait_for(lambda: cluster.queue("work", node=node)["messages"] == 0, "the queue let go")


@pytest.mark.parametrize("how", ["transfer", "kill"])
def test_expiry_goes_on_under_a_new_leader(cluster: Cluster, how: str) -> None:
    declare(cluster, "brief", message_ttl=1500)
    node = cluster.followers("brief")[0]
    bodies = [b"%d" % n for n in range(200)]
    with channel_on(cluster, node) as channel:
        publish(channel, "brief", *bodies)
        lead_elsewhere(cluster, how, "brief")
        drain(channel, set(bodies))


@pytest.mark.parametrize("how", ["transfer", "kill"])
def test_attempts_and_counts_go_on_under_a_new_leader(cluster: Cluster, how: str) -> None:
    declare(cluster, "retried", retry_attempts=2, retry_backoff="500", queue_type="quorum")
    node = cluster.followers("retried")[0]
    with channel_on(cluster, node) as channel:
        publish(channel, "retried", b"x")
        channel.basic_reject(take(channel, "retried")[0].delivery_tag, requeue=False)
        lead_elsewhere(cluster, how, "retried")
        method, properties, _ = take(channel, "retried")
        assert (method.redelivered, properties.headers) == (True, {"x-delivery-count": 1})
        channel.basic_reject(method.delivery_tag, requeue=False)
        method, properties, _ = take(channel, "retried")
        assert properties.headers == {"x-delivery-count": 2}
        channel.basic_reject(method.delivery_tag, requeue=False)
        assert death(get(channel, DEAD)[1])["reason"] == "rejected"


def test_the_source_keeps_what_its_target_has_not_committed(cluster: Cluster) -> None:
    with channel_on(cluster, "node1") as channel:
        channel.queue_declare("alone", durable=True, arguments={"x-quorum-initial-group-size": 1})
    home = cluster.leader("alone")
    declare(cluster, "safe", dead_letter_routing_key="alone")
    if cluster.leader("safe") == home:
        lead_elsewhere(cluster, "transfer", "safe")
    node = next(name for name in cluster.names if name not in (home, cluster.leader("safe")))
    cluster.kill(home)
    with channel_on(cluster, node) as channel:
        publish(channel, "safe", b"precious")
        channel.basic_reject(take(channel, "safe")[0].delivery_tag, requeue=False)
        cluster.wait_for(
            lambda: (
                [cluster.queue("safe", node=node)[x] for x in ("messages", "ready", "unacked")] == [1, 0, 0]
            ),
            "it is dying",
        )
        cluster.start_node(home)
        assert get(channel, "alone")[2] == b"precious"
        cluster.wait_for(lambda: cluster.queue("safe", node=node)["messages"] == 0, "the queue let go")
