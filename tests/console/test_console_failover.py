"""The operation "fail over": planned, confirmed, run, recorded."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from brokers.adapters.base import OutcomeUnknown, Refused, Replica
from brokers.models import Cluster, Operation
from brokers.operations import runner
from brokers.operations.base import Plan
from brokers.operations.failover import Failover
from tests.console.fake import FakeCluster, queue

ADDRESS = "/clusters/local/queues/~2F/hello/failover/"
SEEN = {"seen_leader": "node1", "seen_term": "3"}
HTMX = {"HX-Request": "true"}


def plan(row: Cluster, fake: FakeCluster, target: str | None = None) -> Plan:
    return Failover().plan(row, fake, {"vhost": "/", "name": "hello", "target": target})


def test_the_address_is_what_the_page_links_to() -> None:
    assert reverse("failover", args=("local", "/", "hello")) == ADDRESS


def test_a_plan_says_what_will_happen_with_numbers(row: Cluster, fake: FakeCluster) -> None:
    replicas = (Replica("node1", "leader"), Replica("node2", "follower", 40), Replica("node3", "follower", 7))
    fake.queues["/", "hello"] = queue("hello", replicas=replicas, consumers=3, unacked=12)
    made = plan(row, fake)
    assert made.params["target"] == "node3"  # the least behind
    assert made.lines[0] == (
        "Leadership moves from node1 to node3, which is 7 entries behind and catches up first."
    )
    assert "usually less than 100 ms" in made.lines[1]
    assert "3 consumers stay connected" in made.lines[2]
    assert "the 12 unacknowledged messages they hold stay theirs" in made.lines[2]
    assert fake.transfers == []


def test_a_plan_learns_from_how_long_it_took_before(row: Cluster, fake: FakeCluster) -> None:
    for millis in (10.0, 30.0, 200.0):
        Operation.objects.create(
            kind="failover", cluster=row, target="x", state="done", result={"unavailable_ms": millis}
        )
    assert "took 30 ms (median) and 200 ms at most" in plan(row, fake).lines[1]


def test_a_plan_warns(row: Cluster, fake: FakeCluster) -> None:
    replicas = (Replica("node1", "leader"), Replica("node2", "follower", 50_000), Replica("node3", "down"))
    fake.queues["/", "hello"] = queue("hello", replicas=replicas)
    far, down = plan(row, fake).warnings
    assert "50,000 entries behind" in far
    assert "node3 is down" in down


@pytest.mark.parametrize(
    ("figures", "why"),
    [
        ({"type": "classic", "replicas": ()}, "lives in the memory of one node"),
        ({"leader": None}, "has no leader now"),
        ({"replicas": (Replica("node1", "leader"), Replica("node2", "down"))}, "No other replica"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    operator: Client, fake: FakeCluster, figures: dict[str, object], why: str
) -> None:
    fake.queues["/", "hello"] = replace(queue("hello"), **figures)  # type: ignore[arg-type]  # named above
    answer = operator.get(ADDRESS, headers=HTMX)
    assert why in answer.content.decode()
    assert b"confirm-failover" not in answer.content
    assert operator.post(ADDRESS, SEEN | {"target": "node2"}, headers=HTMX).status_code == 409
    assert fake.transfers == []
    assert not Operation.objects.exists()


def test_the_dialog_plans_for_the_chosen_target(operator: Client) -> None:
    html = operator.get(f"{ADDRESS}?target=node3", headers=HTMX).content.decode()
    assert "from node1 to node3" in html
    assert 'value="node3" checked' in html
    assert "<html" not in html


def test_without_javascript_the_dialog_is_a_page(operator: Client) -> None:
    html = operator.get(ADDRESS).content.decode()
    assert "<html" in html
    answer = operator.post(ADDRESS, SEEN | {"target": "node2"})
    operation = Operation.objects.get()
    assert answer.headers["Location"] == f"/clusters/local/operations/{operation.pk}/"


def test_confirming_does_it_and_records_it(operator: Client, fake: FakeCluster) -> None:
    form = SEEN | {"target": "node3", "reason": "maintenance"}
    html = operator.post(ADDRESS, form, headers=HTMX).content.decode()
    assert "node3 leads now, after node1. The queue was unavailable for 12 ms." in html
    assert fake.transfers == [("/", "hello", "node3")]
    operation = Operation.objects.get()
    assert operation.state == "done"
    assert operation.progress == 100
    assert operation.result == {"from": "node1", "to": "node3", "unavailable_ms": 12.4, "term": 4}
    assert operation.who is not None
    assert operation.who.username == "the-operator"
    assert operation.reason == "maintenance"
    assert "from node1 to node3" in operation.plan["lines"][0]
    assert operation.started is not None
    assert operation.seconds is not None


def test_a_plan_that_no_longer_holds_is_shown_again(operator: Client, fake: FakeCluster) -> None:
    fake.queues["/", "hello"] = queue("hello", leader="node2", term=4)
    answer = operator.post(ADDRESS, SEEN | {"target": "node3"}, headers=HTMX)
    assert answer.status_code == 409
    assert "Nothing was done" in answer.content.decode()
    assert 'name="seen_leader" value="node2"' in answer.content.decode()
    assert fake.transfers == []
    assert not Operation.objects.exists()


@pytest.mark.parametrize(
    "error", [Refused("node2 has not caught up"), OutcomeUnknown("node1 was lost before it answered")]
)
def test_a_failure_is_shown_and_recorded(operator: Client, fake: FakeCluster, error: Exception) -> None:
    fake.fails = error
    html = operator.post(ADDRESS, SEEN | {"target": "node2"}, headers=HTMX).content.decode()
    assert str(error) in html
    operation = Operation.objects.get()
    assert (operation.state, operation.error) == ("failed", str(error))
    assert operation.finished is not None


def test_an_error_of_the_console_itself_is_recorded_too(operator: Client, fake: FakeCluster) -> None:
    fake.fails = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        operator.post(ADDRESS, SEEN | {"target": "node2"}, headers=HTMX)
    operation = Operation.objects.get()
    assert operation.state == "failed"
    assert "see its log" in operation.error


def test_the_same_is_not_run_twice_at_a_time(operator: Client, row: Cluster, fake: FakeCluster) -> None:
    Operation.objects.create(kind="failover", cluster=row, target="hello", state="running")
    answer = operator.post(ADDRESS, SEEN | {"target": "node2"}, headers=HTMX)
    assert answer.status_code == 409
    assert "running already" in answer.content.decode()
    assert fake.transfers == []
    assert Operation.objects.filter(state="cancelled").count() == 1


def test_an_unreachable_cluster_is_said_in_the_dialog(operator: Client, fake: FakeCluster) -> None:
    fake.lost = "no node answered"
    assert "no node answered" in operator.get(ADDRESS, headers=HTMX).content.decode()
    answer = operator.post(ADDRESS, SEEN | {"target": "node2"}, headers=HTMX)
    assert answer.status_code == 409
    assert "no node answered" in answer.content.decode()


def test_operations_whose_process_is_gone_fail_in_time(row: Cluster) -> None:
    now = timezone.now()
    for target, age in (("old", timedelta(minutes=10)), ("fresh", timedelta(seconds=5))):
        one = Operation.objects.create(kind="failover", cluster=row, target=target, state="running")
        Operation.objects.filter(pk=one.pk).update(changed=now - age)
    assert runner.fail_abandoned() == 1
    assert Operation.objects.get(target="old").state == "failed"
    assert Operation.objects.get(target="fresh").state == "running"
