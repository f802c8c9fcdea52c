"""Replay and history on real nodes: exact counts, filters, confirms, and a crash in the middle."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from brokers.adapters.embedded import EmbeddedCluster
from brokers.engine.control.protocol import ControlError
from brokers.operations.long import Job
from brokers.operations.replay import ReplayKind
from tests.cluster.harness import Cluster

QUEUE = "orders"


def channel(cluster: Cluster, name: str) -> BlockingChannel:
    parameters = pika.ConnectionParameters("127.0.0.1", cluster.node(name).amqp)
    return pika.BlockingConnection(parameters).channel()


def publish(found: BlockingChannel, numbers: range, key: str = QUEUE, exchange: str = "") -> None:
    found.confirm_delivery()
    for n in numbers:
        properties = pika.BasicProperties(delivery_mode=2, headers={"parity": n % 2, "x-other": "kept"})
        found.basic_publish(exchange, key, b"%d" % n, properties)


def take_all(found: BlockingChannel, queue: str, count: int) -> list[tuple[Any, bytes]]:
    got: list[tuple[Any, bytes]] = []
    for method, properties, body in found.consume(queue, inactivity_timeout=20):
        assert method is not None, f"only {len(got)} messages came"
        got.append((properties, body))
        if len(got) == count:
            found.basic_ack(method.delivery_tag, multiple=True)
            break
    found.cancel()
    return got


def start(cluster: Cluster, job: str, **params: Any) -> dict[str, Any]:
    answer: dict[str, Any] = cluster.control.call("replay_start", {"name": QUEUE, "id": job, **params})
    return answer


def status(cluster: Cluster, job: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = cluster.control.call("replay_status", {"id": job["id"], "node": job["node"]})
    return answer


def finished(cluster: Cluster, job: dict[str, Any]) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        now = status(cluster, job)
        return None if now["state"] == "running" else now

    return cluster.wait_for(ended, "the replay has ended")


@pytest.fixture
def filled(cluster: Cluster) -> Cluster:
    """A hundred messages, of which sixty are settled, and a queue for copies."""
    found = channel(cluster, "node1")
    found.queue_declare(QUEUE, durable=True)
    found.queue_declare("copies", durable=True)
    publish(found, range(100))
    take_all(found, QUEUE, 60)
    cluster.wait_for(lambda: cluster.queue(QUEUE)["messages"] == 40, "sixty are settled")
    return cluster


def test_plan_counts_exactly_what_a_replay_then_publishes(filled: Cluster) -> None:
    call = filled.control.call
    plan = call(
        "replay_plan", {"name": QUEUE, "first": 10, "end": 90, "match_headers": {"parity": "1"}, "preview": 3}
    )
    assert (plan["count"], plan["first"], plan["end"], plan["counted_to"]) == (40, 10, 90, 90)
    assert [row["position"] for row in plan["messages"]] == [11, 13, 15]

    job = start(filled, "one", first=10, end=90, match_headers={"parity": "1"}, to_queue="copies")
    done = finished(filled, job)
    assert (done["state"], done["published"], done["cursor"], done["error"]) == ("done", 40, 90, "")
    got = take_all(channel(filled, "node3"), "copies", 40)
    assert [int(body) for _, body in got] == list(range(11, 90, 2))
    origin = got[0][0].headers["x-replayed-from"]
    assert (origin["queue"], origin["vhost"], origin["position"], origin["replay"]) == (QUEUE, "/", 11, "one")
    assert got[0][0].headers["x-other"] == "kept"
    assert got[0][0].delivery_mode == 2
    assert filled.queue(QUEUE)["messages"] == 40


def test_by_time_into_an_exchange_and_into_the_same_queue(filled: Cluster) -> None:
    call = filled.control.call
    found = channel(filled, "node2")
    found.exchange_declare("again", "topic", durable=True)
    found.queue_bind("copies", "again", "eu.#")
    time.sleep(0.05)
    middle = round(time.time() * 1000)
    found.queue_bind(QUEUE, "amq.topic", "#")
    publish(found, range(100, 110), "eu.de", "amq.topic")
    publish(found, range(110, 115), "us.ny", "amq.topic")
    plan = call("replay_plan", {"name": QUEUE, "since": middle, "match_key": "eu.*"})
    assert (plan["first"], plan["end"], plan["count"]) == (100, 115, 10)
    assert call("replay_plan", {"name": QUEUE, "until": middle})["count"] == 100

    job = start(filled, "exchange", first=100, end=115, to_exchange="again")
    done = finished(filled, job)
    assert (done["published"], done["unroutable"]) == (10, 5)
    assert [int(body) for _, body in take_all(found, "copies", 10)] == list(range(100, 110))

    # What it publishes into the queue it reads is not what it reads.
    job = start(filled, "same", first=0, end=115, to_queue=QUEUE)
    assert finished(filled, job)["published"] == 115
    filled.wait_for(lambda: filled.queue(QUEUE)["messages"] == 40 + 15 + 115, "they are in the queue")


def test_history_shows_what_is_known_and_no_more(filled: Cluster) -> None:
    call = filled.control.call
    found = channel(filled, "node1")
    found.basic_qos(prefetch_count=5)
    held = [next(found.consume(QUEUE)) for _ in range(5)]
    assert len(held) == 5
    filled.wait_for(lambda: filled.queue(QUEUE)["unacked"] == 5, "five are held")
    page = call("history", {"name": QUEUE, "first": 58, "count": 10})
    assert [row["state"] for row in page["messages"]] == ["settled"] * 2 + ["unacked"] * 5 + ["ready"] * 3
    assert [row["holder"] for row in page["messages"]] == [None] * 2 + ["node1"] * 5 + [None] * 3
    assert [row["payload"] for row in page["messages"]] == [str(n) for n in range(58, 68)]
    assert (page["oldest"], page["end"]) == (0, 100)
    last = call("history", {"name": QUEUE, "count": 5})
    assert [row["position"] for row in last["messages"]] == list(range(95, 100))
    one = call("message", {"name": QUEUE, "position": 7})
    assert (one["payload"], one["headers"]["parity"], one["state"]) == ("7", 1, "settled")
    buckets = call("timeline", {"name": QUEUE})["buckets"]
    assert sum(bucket["end"] - bucket["first"] for bucket in buckets) == 100
    assert sum(bucket["settled"] for bucket in buckets) == 60
    with pytest.raises(ControlError, match="it retains 0 to 99"):
        call("message", {"name": QUEUE, "position": 100})


def test_a_replay_is_limited_cancelled_and_resumed_from_its_cursor(filled: Cluster) -> None:
    job = start(filled, "slow", first=0, end=100, to_queue="copies", rate=40)
    filled.wait_for(lambda: status(filled, job)["published"] >= 10, "it has begun")
    stopped = filled.control.call("replay_cancel", {"id": "slow", "node": job["node"]})
    assert stopped["state"] == "cancelled"
    assert 10 <= stopped["cursor"] == stopped["published"] < 100
    rest = finished(filled, start(filled, "slow", first=stopped["cursor"], end=100, to_queue="copies"))
    assert rest["published"] == 100 - stopped["cursor"]
    got = take_all(channel(filled, "node2"), "copies", 100)
    assert [int(body) for _, body in got] == list(range(100))


def test_the_death_of_the_node_that_runs_it_loses_nothing(filled: Cluster) -> None:
    job = start(filled, "crash", first=0, end=100, to_queue="copies", rate=50)
    seen = filled.wait_for(
        lambda: now if (now := status(filled, job))["published"] >= 10 else None, "it has begun"
    )
    filled.kill(job["node"])
    filled.wait_for_leader(QUEUE, job["node"])
    filled.wait_for_leader("copies", job["node"])
    filled.start_node(job["node"])
    filled.wait_until_running(job["node"])
    with pytest.raises(ControlError, match="since it started"):
        status(filled, job)
    finished(filled, start(filled, "crash", first=seen["cursor"], end=100, to_queue="copies"))
    found = channel(filled, filled.running()[0])
    got = take_all(found, "copies", filled.control.call("history", {"name": "copies"})["end"])
    counts = Counter(properties.headers["x-replayed-from"]["position"] for properties, _ in got)
    assert set(counts) == set(range(100))
    twice = [position for position, count in counts.items() if count > 1]
    assert all(position >= seen["cursor"] for position in twice)


def test_a_change_of_leader_does_not_disturb_it(filled: Cluster) -> None:
    job = start(filled, "moving", first=0, end=100, to_queue="copies", rate=100)
    for queue in (QUEUE, "copies"):
        filled.control.call("transfer_leadership", {"vhost": "/", "name": queue, "target": None})
    assert finished(filled, job)["published"] == 100
    got = take_all(channel(filled, "node2"), "copies", 100)
    assert [int(body) for _, body in got] == list(range(100))


def test_a_full_queue_ends_it_and_says_where(filled: Cluster) -> None:
    arguments = {"x-max-length": 30, "x-overflow": "reject-publish"}
    channel(filled, "node1").queue_declare("small", durable=True, arguments=arguments)
    ended = finished(filled, start(filled, "full", first=0, end=100, to_queue="small", rate=400))
    assert ended["state"] == "failed"
    assert "full" in ended["error"]
    assert 0 < ended["cursor"] <= 31


def test_the_operation_goes_on_when_its_node_is_killed(filled: Cluster) -> None:
    params = {"vhost": "/", "name": QUEUE, "first": 0, "end": 100, "to_queue": "copies", "replay": "op"}
    steps = ReplayKind().steps(EmbeddedCluster(filled.config.home), Job(1, params, rate=25))
    step = next(steps)
    while step.done < 5:
        step = next(steps)
    node = step.cursor["node"]
    filled.kill(node)
    filled.wait_for_leader(QUEUE, node)
    filled.wait_for_leader("copies", node)
    filled.start_node(node)
    filled.wait_until_running(node)
    result: dict[str, Any] = {}
    while not result:
        try:
            next(steps)
        except StopIteration as stop:
            result = stop.value
    assert result["published"] == 100
    end = filled.control.call("history", {"name": "copies"})["end"]
    got = take_all(channel(filled, filled.running()[0]), "copies", end)
    assert {int(body) for _, body in got} == set(range(100))
    assert {properties.headers["x-replayed-from"]["replay"] for properties, _ in got} == {"op"}
