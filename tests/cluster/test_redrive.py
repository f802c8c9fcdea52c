"""Dead letters: found, told apart by cause, sent on and discarded, with nodes and callers going away meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pika
import pytest

from brokers.engine.control.protocol import ControlError
from tests.cluster.clients import channel_on
from tests.cluster.harness import Cluster

WORK, DEAD = "work", "work.dead"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster.start()


def fail(cluster: Cluster, count: int, work: str = WORK, dead: str = DEAD) -> None:
    """Have ``count`` messages, of three causes, published through an exchange and rejected."""
    with channel_on(cluster, cluster.names[0]) as channel:
        channel.exchange_declare("shop", "topic", durable=True)
        channel.queue_declare(dead, durable=True)
        channel.queue_declare(
            work,
            durable=True,
            arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead},
        )
        channel.queue_bind(work, "shop", "order.#")
        channel.confirm_delivery()
        for n in range(count):
            kind = n % 3
            key = "order.new" if kind else f"order.{n}.paid"
            error = {"x-exception": f"customer {n} is unknown"} if kind == 1 else {}
            body = json.dumps({"id": n, "total": 3}).encode() if kind < 2 else b"\xff\xfe%d" % n
            channel.basic_publish("shop", key, body, pika.BasicProperties(headers=error, message_id=str(n)))
        for method, _, _ in channel.consume(work):
            channel.basic_reject(method.delivery_tag, requeue=False)
            if method.delivery_tag == count:
                break
        channel.cancel()
    cluster.wait_for(lambda: cluster.queue(dead)["ready"] == count, "all are dead letters")


def call(cluster: Cluster, method: str, name: str, **params: Any) -> dict[str, Any]:
    answer: dict[str, Any] = cluster.control.call(method, {"name": name, **params}, timeout=10)
    return answer


def redrive_all(cluster: Cluster, name: str, **params: Any) -> int:
    """Batches of 100 until there is no more; how many were sent."""
    at, sent = params.pop("from", 0), 0
    while at is not None:
        answer = call(cluster, "redrive", name, **{"count": 100, "from": at, **params})
        sent += answer["done"]
        at = answer["next"]
    return sent


def holds(cluster: Cluster, name: str, count: int) -> None:
    """Wait until a queue is seen to hold ``count`` messages: figures come with a delay."""
    cluster.wait_for(lambda: cluster.queue(name)["messages"] == count, f"{name} holds {count}")


def take(cluster: Cluster, name: str) -> list[tuple[Any, Any, bytes]]:
    found = []
    with channel_on(cluster, cluster.running()[0]) as channel:
        for item in channel.consume(name, inactivity_timeout=1.0, auto_ack=True):
            if item[0] is None:
                break
            found.append(item)
    return found


def test_found_grouped_and_sent_back_where_they_came_from(shared: Cluster) -> None:
    fail(shared, 300)
    for node in shared.names:
        rows = shared.control.call("dead_letter_queues", node=node)["queues"]
        row = next(row for row in rows if row["name"] == DEAD)
        assert (row["sources"], row["holds_dead"]) == ([WORK], True)
    groups = call(shared, "dead_letter_groups", DEAD)
    assert (groups["counted"], groups["group_count"]) == (300, 3)
    assert [row["count"] for row in groups["groups"]] == [100, 100, 100]
    paid = next(row for row in groups["groups"] if row["routing_key"] == "order.#.paid")
    assert (paid["reason"], paid["queue"], paid["shape"]) == ("rejected", WORK, "JSON {id, total}")
    unknown = next(row for row in groups["groups"] if row["exception"])
    assert unknown["exception"] == "customer # is unknown"
    assert sum(bucket["count"] for bucket in groups["over_time"]) == 300

    page = call(shared, "browse", DEAD, groups=[unknown["id"]], count=10)
    assert [row["properties"]["message_id"] for row in page["messages"]] == [
        str(3 * n + 1) for n in range(10)
    ]
    onward = call(shared, "browse", DEAD, groups=[unknown["id"]], count=10, **{"from": page["next"]})
    assert onward["messages"][0]["properties"]["message_id"] == "31"
    assert shared.queue(DEAD)["ready"] == 300

    assert redrive_all(shared, DEAD, run="first", groups=[unknown["id"]]) == 100
    holds(shared, DEAD, 200)
    assert call(shared, "dead_letter_groups", DEAD)["group_count"] == 2
    assert redrive_all(shared, DEAD, run="second") == 200
    holds(shared, DEAD, 0)
    got = take(shared, WORK)
    assert sorted(int(p.message_id) for _, p, _ in got) == list(range(300))
    method, properties, _ = got[0]
    assert (method.exchange, method.routing_key) == ("shop", "order.new")
    assert properties.headers["x-redriven-from"] == DEAD
    assert properties.headers["x-redrive-id"] == "first"
    assert properties.headers["x-death"][0]["queue"] == WORK
    assert not any("x-redrive-duplicate" in p.headers for _, p, _ in got)


def test_elsewhere_edited_and_discarded(shared: Cluster) -> None:
    fail(shared, 9, "work2", "dead2")
    rows = call(shared, "browse", "dead2")["messages"]
    one = rows[0]["position"]
    edit = {"payload": '{"id": 7}', "properties": {"content_type": "application/json", "headers": {"a": 1}}}
    answer = call(shared, "redrive", "dead2", run="edit", positions=[one], edit=edit)
    assert answer["done"] == 1
    assert json.loads(answer["originals"][0]["payload"]) == {"id": 0, "total": 3}
    (_, properties, body) = take(shared, "work2")[0]
    assert (body, properties.content_type, properties.headers["a"]) == (b'{"id": 7}', "application/json", 1)
    assert properties.headers["x-death"][0]["queue"] == "work2"

    with channel_on(shared, "node1") as channel:
        channel.queue_declare("other", durable=True)
    two = rows[1]["position"]
    call(shared, "redrive", "dead2", run="away", positions=[two], exchange="", routing_key="other")
    assert [p.message_id for _, p, _ in take(shared, "other")] == ["1"]
    kept = call(shared, "redrive", "dead2", run="nowhere", exchange="", routing_key="no such queue")
    assert (kept["done"], kept["kept"]) == (0, {"no queue takes it": 7})
    with pytest.raises(ControlError, match="no exchange"):
        call(shared, "redrive", "dead2", run="bad", exchange="no such exchange")
    with pytest.raises(ControlError, match="single message"):
        call(shared, "redrive", "dead2", run="bad", edit=edit)

    gone = call(shared, "discard", "dead2", run="bin", positions=[rows[2]["position"]])
    assert gone["done"] == 1
    assert call(shared, "discard", "dead2", run="all")["done"] == 6
    holds(shared, "dead2", 0)
    assert take(shared, "work2") == []


def test_what_consumers_hold_stays_theirs_and_what_comes_back_is_counted(shared: Cluster) -> None:
    fail(shared, 12, "work3", "dead3")
    with channel_on(shared, "node2") as channel:
        method, _, _ = channel.basic_get("dead3")
        end = call(shared, "browse", "dead3")["end"]
        answer = call(shared, "redrive", "dead3", run="held", until=end, watch=end)
        assert (answer["done"], answer["kept"]) == (11, {"held by consumers": 1})
        for method, _, _ in channel.consume("work3"):
            channel.basic_reject(method.delivery_tag, requeue=False)
            if method.delivery_tag == 12:
                break
        channel.cancel()
        shared.wait_for(lambda: shared.queue("dead3")["messages"] == 12, "they are back")
        answer = call(shared, "redrive", "dead3", run="held", until=end, watch=end, **{"from": end})
        assert (answer["done"], answer["came_back"]) == (0, 11)


def test_a_repeated_call_sends_nothing_twice(shared: Cluster) -> None:
    fail(shared, 30, "work4", "dead4")
    first = call(shared, "redrive", "dead4", run="same", count=10)
    again = call(shared, "redrive", "dead4", run="same", count=10, unsure=True)
    assert first == again
    holds(shared, "dead4", 20)
    holds(shared, "work4", 10)


def test_nothing_is_lost_when_the_leader_dies_in_the_middle(cluster: Cluster) -> None:
    fail(cluster, 600)
    leader = cluster.leader(DEAD)
    sent = 0
    at: int | None = 0
    unsure = False
    killer = threading.Thread(target=cluster.kill, args=(leader,))
    while at is not None:
        if sent >= 100 and not killer.ident:
            killer.start()
        try:
            answer = call(cluster, "redrive", DEAD, run="crash", count=50, unsure=unsure, **{"from": at})
        except ControlError:
            unsure = True
            continue
        unsure = False
        sent += answer["done"]
        at = answer["next"]
    killer.join()
    cluster.wait_for_leader(DEAD, leader)
    holds(cluster, DEAD, 0)
    got = take(cluster, WORK)
    ids = [p.message_id for _, p, _ in got]
    assert set(ids) == {str(n) for n in range(600)}
    twice = {one for one in ids if ids.count(one) > 1}
    marked = {p.message_id for _, p, _ in got if p.headers.get("x-redrive-duplicate")}
    assert twice <= marked
