"""Backups of a live cluster, and what comes back from them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from brokers.backups import parts, schedule, writer
from brokers.models import Backup, Operation
from brokers.models import Cluster as Row
from brokers.operations import runner, worker
from brokers.operations.base import Plan
from brokers.operations.restore import Restore
from brokers.operations.verify import Verify
from tests.cluster.clients import channel_on
from tests.cluster.harness import Cluster

pytestmark = pytest.mark.django_db


@pytest.fixture
def cluster(make_cluster: Any, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Three nodes, and a console that operates them."""
    made: Cluster = make_cluster().start()
    settings.MQ_HOME = made.config.home
    settings.MQ_BACKUPS = str(made.config.home / "backups")
    monkeypatch.setattr(writer, "PART_BYTES", 64 << 10)
    return made


@pytest.fixture
def row() -> Row:
    return Row.objects.get(slug="local")


def fill(cluster: Cluster, queue: str, numbers: range, *, size: int = 1000) -> None:
    with channel_on(cluster, "node1") as channel:
        channel.confirm_delivery()
        channel.queue_declare(queue, durable=True)
        for number in numbers:
            properties = pika.BasicProperties(delivery_mode=2, message_id=str(number), headers={"n": number})
            channel.basic_publish("", queue, b"%d:" % number + b"x" * size, properties)


def to_the_end(operation: Operation, seconds: float = 60.0) -> Operation:
    while worker.work(operation.pk, seconds):
        pass
    operation.refresh_from_db()
    assert operation.state == Operation.State.DONE, operation.error
    return operation


def back_up(row: Row, seconds: float = 60.0) -> Backup:
    operation = to_the_end(schedule.start(row, begin=False), seconds)
    return Backup.objects.get(operation=operation)


def restore(row: Row, backup: Backup, seconds: float = 60.0, **params: Any) -> Operation:
    asked = {"backup": backup.name, "definitions": True, "queues": None, "prefix": "", **params}
    plan = Restore().plan(row, row.adapter(), asked)
    assert not plan.refusal
    return to_the_end(runner.confirm(Restore.name, row, "a test", plan, who=None), seconds)


def drain(cluster: Cluster, queue: str) -> Iterator[tuple[Any, bytes]]:
    with channel_on(cluster, cluster.running()[0]) as channel:
        while True:
            method, properties, body = channel.basic_get(queue, auto_ack=True)
            if method is None:
                return
            yield properties, body


def test_saved_deleted_and_restored(cluster: Cluster, row: Row) -> None:
    fill(cluster, "orders", range(500))
    with channel_on(cluster, "node2") as channel:
        for number in range(500):
            method, _, _ = channel.basic_get("orders")
            if number % 3 == 0:
                channel.basic_ack(method.delivery_tag)
        channel.exchange_declare("news", "topic", durable=True)
        channel.queue_bind("orders", "news", "a.#")
    backup = back_up(row, seconds=0)  # every step in a go of its own, as after a crash of the worker
    assert backup.messages == 333
    assert backup.queues.get().nodes[0] != cluster.leader("orders")
    assert len(backup.queues.get().parts) > 3

    cluster.control.call("delete_queue", {"name": "orders"})
    cluster.control.call("delete_exchange", {"name": "news"})
    result = restore(row, backup, seconds=0).result
    assert (result["written"], result["refused"], result["repeated"]) == (333, 0, 0)
    found = list(drain(cluster, "orders"))
    expected = [n for n in range(500) if n % 3]
    assert [p.headers["n"] for p, _ in found] == expected
    assert [body.split(b":")[0] for _, body in found] == [b"%d" % n for n in expected]
    assert found[0][0].message_id == "1"
    assert found[0][0].headers["x-restored-from"] == f"{backup.name}:/" + "/orders@1"
    with channel_on(cluster, "node1") as channel:
        channel.confirm_delivery()
        channel.basic_publish("news", "a.b", b"bound again", mandatory=True)


def test_what_is_moved_meanwhile_is_never_missing(cluster: Cluster, row: Row) -> None:
    """A program takes from one queue and puts into another while the leader dies and the backup is made."""
    fill(cluster, "in", range(800), size=100)
    fill(cluster, "out", range(0))
    stop = threading.Event()

    def move(node: str) -> None:
        with channel_on(cluster, node) as channel:
            channel.confirm_delivery()
            while not stop.is_set():
                method, properties, body = channel.basic_get("in")
                if method is None:
                    return
                channel.basic_publish("", "out", body, properties)
                channel.basic_ack(method.delivery_tag)

    victim = cluster.leader("in")
    mover = threading.Thread(target=move, args=(next(n for n in cluster.names if n != victim),))
    mover.start()
    try:
        cluster.wait_for(lambda: cluster.queue("out")["messages"] > 100, "something was moved")
        operation = schedule.start(row, begin=False)
        worker.work(operation.pk, 0)
        cluster.kill(victim)
        backup = Backup.objects.get(operation=to_the_end(operation))
    finally:
        stop.set()
        mover.join()
    assert backup.gone == 0
    cluster.wait_for_leader("in", victim)
    restore(row, backup, prefix="back.")
    bodies = [body for name in ("back.in", "back.out") for _, body in drain(cluster, name)]
    assert {int(body.split(b":")[0]) for body in bodies} == set(range(800))
    assert len(bodies) <= 810  # what was under way at the cut may be in both


def test_an_empty_cluster_gets_all_of_it(
    cluster: Cluster, row: Row, make_cluster: Any, settings: Any, tmp_path: Path
) -> None:
    fill(cluster, "orders", range(50))
    call = cluster.control.call
    call("set_vhost", {"name": "shop"})
    call("set_user", {"name": "ann", "password": "a secret", "tags": ["monitoring"]})
    call("set_permissions", {"user": "ann", "vhost": "shop", "configure": ".*", "write": ".*", "read": ".*"})
    call("set_policy", {"name": "limit", "pattern": "^o", "definition": {"max-length": 10_000}})
    backup = back_up(row)
    first = cluster.snapshot()["cluster"]["id"]
    cluster.close()

    other: Cluster = make_cluster(nodes=1).start()
    settings.MQ_HOME = other.config.home
    assert "another cluster" in str(
        Restore().plan(row, row.adapter(), {"backup": backup.name, "queues": None}).warnings
    )
    restore(row, backup)
    assert other.snapshot()["cluster"]["id"] != first
    with channel_on(other, "node1", ("ann", "a secret"), "shop") as channel:
        channel.queue_declare("hers", durable=True)
    assert [p["name"] for p in other.control.call("list_policies")] == ["limit"]
    assert len(list(drain(other, "orders"))) == 50


def test_proven_or_not(cluster: Cluster, row: Row) -> None:
    fill(cluster, "orders", range(300))
    backup = back_up(row)

    def verify() -> Operation:
        plan = Plan(params={"backup": backup.name})
        return runner.run(runner.confirm(Verify.name, row, "a test", plan, who=None))

    assert verify().state == Operation.State.DONE
    backup.refresh_from_db()
    assert backup.verified is not None
    assert list((cluster.config.home / "verify").iterdir()) == []

    file = cluster.config.home / "backups" / backup.name / parts.part_path(1, 2)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    assert "damaged" in verify().error
    backup.refresh_from_db()
    assert backup.verified is None
    assert "damaged" in backup.problem
    operation = runner.confirm(
        Restore.name,
        row,
        "a test",
        Restore().plan(row, row.adapter(), {"backup": backup.name, "queues": None, "prefix": "no."}),
        who=None,
    )
    worker.work(operation.pk)
    operation.refresh_from_db()
    assert operation.state == Operation.State.FAILED
    assert [q["name"] for q in cluster.snapshot()["queues"]] == ["orders"]  # nothing was written


def test_a_message_larger_than_a_line(cluster: Cluster, row: Row) -> None:
    body = bytes(range(256)) * (25 << 12)
    with channel_on(cluster, "node1") as channel:
        channel.confirm_delivery()
        channel.queue_declare("large", durable=True)
        channel.basic_publish("", "large", body)
    backup = back_up(row)
    restore(row, backup, prefix="again.")
    assert next(drain(cluster, "again.large"))[1] == body
