"""Periodic checks: samples, events that begin and end, and what is not known is not made up."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

from django.utils import timezone

from brokers.adapters.base import Failover, Node
from brokers.models import Cluster, Event
from monitoring import checks, tasks
from monitoring.models import Sample
from tests.console.fake import FakeCluster, queue

DOWN = Node(3, "node3", "127.0.0.1:5674", "down")


def open_kinds() -> list[tuple[str, str]]:
    return sorted(Event.objects.filter(ended__isnull=True).values_list("kind", "subject"))


def test_a_check_takes_a_sample(row: Cluster, fake: FakeCluster) -> None:
    fake.queues["/", "hello"] = queue("hello", ready=5, unacked=2, publish_rate=1.5)
    sample = checks.check(row)
    assert sample.answered
    assert (sample.nodes, sample.nodes_running, sample.queues, sample.queues_stuck) == (3, 3, 3, 0)
    assert (sample.ready, sample.unacked, sample.publish_rate) == (5, 2, 1.5)


def test_a_problem_is_one_event_from_begin_to_end(row: Cluster, fake: FakeCluster) -> None:
    up = fake.nodes[3]
    fake.nodes[3] = DOWN
    checks.check(row)
    checks.check(row)
    assert open_kinds() == [("node-down", "node3")]
    fake.nodes[3] = up
    checks.check(row)
    event = Event.objects.get()
    assert event.ended is not None
    fake.nodes[3] = DOWN
    checks.check(row)
    assert Event.objects.count() == 2


def test_what_changes_about_a_problem_changes_its_event(row: Cluster, fake: FakeCluster) -> None:
    fake.nodes[3] = DOWN
    checks.check(row)
    assert Event.objects.get().severity == "warning"
    fake.nodes[2] = replace(DOWN, id=2, name="node2")
    checks.check(row)
    assert {event.severity for event in Event.objects.all()} == {"critical"}
    assert Event.objects.count() == 2


def test_while_a_cluster_is_silent_nothing_is_said_about_its_nodes(row: Cluster, fake: FakeCluster) -> None:
    fake.nodes[3] = DOWN
    checks.check(row)
    fake.lost = "connection refused"
    assert not checks.check(row).answered
    assert open_kinds() == [("node-down", "node3"), ("unreachable", "cluster")]
    fake.lost = None
    checks.check(row)
    assert open_kinds() == [("node-down", "node3")]


def test_many_queues_without_a_leader_are_one_event(row: Cluster, fake: FakeCluster) -> None:
    for number in range(40):
        one = queue(f"q{number}", leader=None, state="no-quorum")
        fake.queues[one.key] = one
    checks.check(row)
    event = Event.objects.get()
    assert event.subject == "queues"
    assert "40 queues have no leader" in event.text


def test_a_failover_is_told_once(row: Cluster, fake: FakeCluster) -> None:
    happened = Failover(time.time() - 3, "node1", "node2", 240.0, "crash")
    fake.queues["/", "hello"] = queue("hello", leader="node2", last_failover=happened)
    checks.check(row)
    checks.check(row)
    event = Event.objects.get()
    assert event.text == "hello: node2 leads after node1 (crash), unavailable for 240 ms."
    assert event.severity == "warning"
    assert event.ended == event.began


def test_one_cluster_that_cannot_be_checked_does_not_stop_the_others(row: Cluster, fake: FakeCluster) -> None:
    Cluster.objects.create(slug="a", name="A", kind="unheard-of")
    tasks.check_clusters()
    assert Sample.objects.get().cluster == row


def test_what_is_old_is_dropped(row: Cluster) -> None:
    now = timezone.now()
    for age in (timedelta(days=1), timedelta(days=8)):
        Sample.objects.create(cluster=row, at=now - age, answered=True)
    for age in (timedelta(days=1), timedelta(days=91)):
        Event.objects.create(
            cluster=row,
            kind="failover",
            severity="info",
            subject="q",
            text="",
            began=now - age,
            ended=now - age,
        )
    Event.objects.create(
        cluster=row, kind="node-down", severity="info", subject="q", text="", began=now - timedelta(days=400)
    )
    assert checks.drop_old() == (1, 1)
    assert Sample.objects.count() == 1
    assert Event.objects.count() == 2
