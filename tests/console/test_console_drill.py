"""Drills in the console: planned, confirmed by name, kept with a trend."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from kombu.exceptions import OperationalError

from brokers.adapters.base import Replica
from brokers.models import Cluster, Operation
from brokers.operations.drill import Drill
from brokers.operations.probes import longest_gap
from brokers.views import drill
from tests.console.fake import FakeCluster, queue

DRILL = "/clusters/local/queues/~2F/hello/drill/"
DRILLS = "/clusters/local/drills/"
SEEN = {"seen": "node1-3"}
RESULT = {
    "confirmed": 900,
    "delivered": 900,
    "lost": 0,
    "duplicated": 2,
    "unflagged": 0,
    "unavailable_ms": 71.5,
    "delivery_gap_ms": 80.0,
    "catch_up_s": 2.5,
    "fault": "kill",
    "node": "node1",
    "leader": "node2",
}


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the drills that a worker was asked to do."""
    numbers: list[int] = []
    monkeypatch.setattr(drill.run_drill, "apply_async", lambda args, retry: numbers.extend(args))
    return numbers


def test_addresses() -> None:
    assert reverse("drill", args=("local", "/", "hello")) == DRILL
    assert reverse("drills", args=("local",)) == DRILLS


def test_a_transfer_is_planned_confirmed_and_given_to_a_worker(operator: Client, begun: list[int]) -> None:
    html = operator.get(DRILL).content.decode()
    assert "node1 hands the leadership" in html
    assert 'value="node1-3"' in html
    answer = operator.post(DRILL, SEEN | {"fault": "transfer", "reason": "audit"})
    operation = Operation.objects.get()
    assert answer.headers["Location"] == f"/clusters/local/operations/{operation.pk}/"
    assert begun == [operation.pk]
    assert (operation.params["node"], operation.reason) == ("node1", "audit")


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ({"fault": "kill"}, "Type the node"),
        ({"fault": "kill", "typed": "node2"}, "Type the node"),
        ({"fault": "transfer", "seen": "node2-3"}, "Nothing was done"),
        ({"fault": "explode"}, "A fault is one of"),
    ],
)
def test_nothing_happens_without_the_right_words(
    operator: Client, begun: list[int], form: dict[str, str], why: str
) -> None:
    answer = operator.post(DRILL, SEEN | form)
    assert answer.status_code == 409
    assert why in answer.content.decode()
    assert begun == []
    assert not Operation.objects.exists()


def test_a_kill_is_confirmed_by_the_nodes_name(operator: Client, begun: list[int]) -> None:
    assert "are killed" not in operator.get(f"{DRILL}?fault=kill").content.decode()
    assert operator.post(DRILL, SEEN | {"fault": "kill", "typed": "node1"}).status_code == 302
    assert len(begun) == 1


def test_without_a_worker_it_fails_and_says_why(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(args: tuple[int], retry: bool) -> None:
        raise OperationalError("Connection refused")

    monkeypatch.setattr(drill.run_drill, "apply_async", refuse)
    assert operator.post(DRILL, SEEN | {"fault": "transfer"}).status_code == 302
    operation = Operation.objects.get()
    assert operation.state == "failed"
    assert "no worker could be asked" in operation.error


def test_no_majority_is_put_at_risk(operator: Client, fake: FakeCluster) -> None:
    replicas = (Replica("node1", "leader"), Replica("node2", "follower", 0), Replica("node3", "down"))
    fake.queues["/", "hello"] = replace(queue("hello"), replicas=replicas)
    assert "has no majority" in operator.get(f"{DRILL}?fault=kill").content.decode()
    assert "has no majority" not in operator.get(DRILL).content.decode()


def test_a_viewer_sees_drills_and_begins_none(viewer: Client, row: Cluster) -> None:
    Operation.objects.create(
        kind="drill",
        cluster=row,
        target="hello",
        state="done",
        params={"fault": "kill", "node": "node1"},
        result=RESULT,
    )
    html = viewer.get(DRILLS).content.decode()
    assert 'id="drill-trend"' in html
    assert "72 ms" in html
    assert viewer.get(DRILL).status_code == 403
    assert viewer.post(DRILL, SEEN).status_code == 403


def test_the_command_fails_when_something_was_lost(row: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Any, cluster: Any, params: Any, report: Any) -> dict[str, Any]:
        return RESULT | {"lost": lost}

    monkeypatch.setattr(Drill, "run", run)
    lost = 0
    out = StringIO()
    call_command("drill", "hello", json=True, stdout=out)
    assert json.loads(out.getvalue())["unavailable_ms"] == 71.5
    lost = 1
    with pytest.raises(CommandError, match="1 confirmed probes were lost"):
        call_command("drill", "hello", stdout=out)


def test_summary_and_gaps() -> None:
    assert Drill().summary(RESULT) == (
        "Unavailable for 72 ms; 0 of 900 confirmed probes lost, 2 came twice; "
        "all replicas had caught up after 2 s."
    )
    assert "not all replicas have caught up" in Drill().summary(RESULT | {"catch_up_s": None})
    assert longest_gap([0.0, 5.0, 5.1, 5.4], 5.05) == 300.0
    assert longest_gap([], 0.0) == 0.0
