"""History and replay in the console, on retained messages that a fake keeps in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from brokers.adapters.base import ClusterUnavailable, NotFound, QueueKey
from brokers.adapters.retained import Found, History, Message, Replay, Retained, Selection, Stretch, Target
from brokers.models import Cluster, Operation
from brokers.operations import worker
from brokers.operations.replay import ReplayKind, read_headers
from brokers.views.history import read_moment
from tests.console.fake import FakeCluster

HISTORY = "/clusters/local/queues/~2F/hello/history/"
REPLAY = "/clusters/local/queues/~2F/hello/replay/"
EVIL = "<script>alert(1)</script>"


def row(position: int, **changes: object) -> Message:
    return {
        "position": position,
        "at": 1_790_000_000.0 + position,
        "exchange": "",
        "routing_key": EVIL,
        "properties": {"content_type": EVIL},
        "headers": {EVIL: EVIL, "x-death": [{"reason": EVIL}]},
        "payload": EVIL,
        "payload_encoding": "string",
        "payload_bytes": len(EVIL),
        "truncated": False,
        "state": "settled",
        "holder": None,
        "returned": None,
        "redelivered": None,
        **changes,
    }


class FakeRetained(Retained):
    """A hundred messages; a replay does ten with each look, on whichever node is said to live."""

    def __init__(self) -> None:
        self.node = "node1"
        self.running: dict[str, Replay] = {}
        self.started: list[tuple[int, int, Target, int]] = []
        self.fails: Exception | None = None

    def page(self, queue: QueueKey, *, first: int | None, at: float | None, count: int) -> History:
        start = 50 if first is None else first
        return History(0, 100, start, [row(n) for n in range(start, min(100, start + count))])

    def message(self, queue: QueueKey, position: int, max_bytes: int) -> Message:
        if position >= 100:
            raise NotFound("no such position")
        return row(position)

    def timeline(self, queue: QueueKey) -> Sequence[Stretch]:
        return [Stretch(0.0, 1.0, 0, 40, 40), Stretch(1.0, 2.0, 40, 100, 10)]

    def find(self, queue: QueueKey, selection: Selection, to: Target | None, preview: int) -> Found:
        if to is not None and to.queue == "nowhere":
            raise NotFound("there is no queue 'nowhere' in vhost '/'")
        first, end = selection.first or 0, min(100, selection.end or 100)
        return Found(first, end, 0, max(0, end - first), 1000, [row(n) for n in range(first, end)][:preview])

    def replay(
        self, job: str, queue: QueueKey, found: tuple[int, int], selection: Selection, to: Target, rate: int
    ) -> Replay:
        self.started.append((*found, to, rate))
        made = Replay(self.node, "running", found[0], found[1], 0, 0, 0, "", "")
        self.running[self.node] = made
        return made

    def replay_status(self, job: str, node: str) -> Replay:
        if self.fails is not None:
            raise self.fails
        if node not in self.running:
            raise NotFound("it was restarted")
        now = self.running[node]
        if now.state == "running":
            at = min(now.end, now.cursor + 10)
            state = "done" if at == now.end else "running"
            now = replace(now, cursor=at, published=now.published + at - now.cursor, state=state)  # type: ignore[arg-type]  # one of its words
            self.running[node] = now
        return now

    def replay_cancel(self, job: str, node: str) -> Replay:
        self.running[node] = replace(self.running[node], state="cancelled")
        return self.running[node]


@pytest.fixture
def retained(fake: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> FakeRetained:
    made = FakeRetained()
    monkeypatch.setattr(fake, "retained", lambda: made, raising=False)
    monkeypatch.setattr(worker, "enqueue", lambda pk: None)
    monkeypatch.setattr("brokers.operations.replay.LOOK", 0.0)
    monkeypatch.setattr("brokers.operations.replay.NODE_GONE", 0.0)
    return made


def form(**changes: str) -> dict[str, str]:
    return {"first": "10", "end": "60", "to": "same", "seen": "10-60-50", "reason": "a bug", **changes}


def confirmed(operator: Client, **changes: str) -> Operation:
    answer = operator.post(REPLAY, form(**changes))
    operation = Operation.objects.get()
    assert answer.headers["Location"] == f"/clusters/local/operations/{operation.pk}/"
    return operation


def finished(operation: Operation) -> Operation:
    while worker.work(operation.pk):
        pass
    operation.refresh_from_db()
    return operation


def test_addresses() -> None:
    assert reverse("queue-history", args=("local", "/", "hello")) == HISTORY
    assert reverse("replay", args=("local", "/", "hello")) == REPLAY


def test_history_escapes_all_that_is_in_messages(viewer: Client, retained: FakeRetained) -> None:
    for address in (HISTORY, f"{HISTORY}?first=3", f"{HISTORY}7/"):
        html = viewer.get(address).content.decode()
        assert EVIL not in html
        assert "&lt;script&gt;alert(1)" in html
    assert 'id="time-line"' in viewer.get(HISTORY).content.decode()


def test_history_says_what_was_typed_wrong(viewer: Client, retained: FakeRetained) -> None:
    assert "a position is a whole number" in viewer.get(f"{HISTORY}?first=x").content.decode()
    assert "a time is written" in viewer.get(f"{HISTORY}?at=yesterday").content.decode()
    assert viewer.get(f"{HISTORY}100/").status_code == 404
    assert read_moment("2026-01-31T14:05") == read_moment("2026-01-31T16:05+02:00")


def test_a_body_is_downloaded_as_nothing_but_bytes(viewer: Client, retained: FakeRetained) -> None:
    answer = viewer.get(f"{HISTORY}7/?download")
    assert answer.content.decode() == EVIL
    assert answer.headers["Content-Disposition"] == 'attachment; filename="hello-7.bin"'
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_plan_is_shown_and_nothing_done(operator: Client, retained: FakeRetained) -> None:
    html = operator.get(f"{REPLAY}?plan=1&first=10&end=60").content.decode()
    assert "50 messages" in html
    assert 'name="seen" value="10-60-50"' in html
    assert EVIL not in html
    assert not Operation.objects.exists()
    assert retained.started == []


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("headers=nonsense", "name=value"),
        ("to=queue&to_queue=nowhere", "there is no queue"),
        ("first=100", "Nothing matches that."),
        ("since=tomorrow", "a time is written"),
    ],
)
def test_what_makes_no_sense_is_refused(
    operator: Client, retained: FakeRetained, query: str, why: str
) -> None:
    html = operator.get(f"{REPLAY}?plan=1&{query}").content.decode()
    assert why in html
    assert "confirm-replay" not in html


def test_a_viewer_may_not_replay(viewer: Client, retained: FakeRetained) -> None:
    assert viewer.get(REPLAY).status_code == 403
    assert viewer.post(REPLAY, form()).status_code == 403


def test_it_runs_to_the_end(operator: Client, retained: FakeRetained) -> None:
    operation = finished(confirmed(operator, to="exchange", to_exchange="again", rate="200"))
    assert (operation.state, operation.error) == ("done", "")
    assert operation.result["published"] == 50
    assert operation.reason == "a bug"
    assert retained.started == [(10, 60, Target("/", exchange="again"), 200)]


def test_a_changed_plan_is_shown_again(operator: Client, retained: FakeRetained) -> None:
    answer = operator.post(REPLAY, form(seen="10-60-49"))
    assert answer.status_code == 409
    assert "look again" in answer.content.decode()
    assert not Operation.objects.exists()


def test_paused_and_resumed_it_goes_on_where_the_node_stopped(
    operator: Client, retained: FakeRetained, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = confirmed(operator)
    worker.work(operation.pk, told=worker.pause)
    operation.refresh_from_db()
    assert operation.state == "paused"
    retained.running["node1"] = replace(retained.running["node1"], cursor=23, published=13)
    worker.resume(operation)
    finished(operation)
    assert [start[:2] for start in retained.started] == [(10, 60), (23, 60)]
    assert operation.result["published"] == 50


def test_a_process_that_died_is_followed_by_another(operator: Client, retained: FakeRetained) -> None:
    operation = confirmed(operator)
    job = worker.Job(operation.pk, operation.params)
    steps = ReplayKind().steps(operation.cluster.adapter(), job)
    first = next(steps)
    assert first.cursor["at"] == 10
    retained.replay_status("x", "node1")
    Operation.objects.filter(pk=operation.pk).update(cursor=dict(first.cursor))
    finished(operation)
    assert len(retained.started) == 1
    assert operation.result["published"] == 50


@pytest.mark.parametrize("gone", [NotFound("restarted"), ClusterUnavailable("out of reach")])
def test_a_node_that_died_is_replaced_from_the_cursor(
    operator: Client, retained: FakeRetained, gone: Exception
) -> None:
    operation = confirmed(operator)
    looks = 0

    def told(_: Operation) -> None:
        nonlocal looks
        looks += 1
        retained.fails = gone if looks == 2 else None
        retained.node = "node2"

    worker.work(operation.pk, told=told)
    operation.refresh_from_db()
    assert operation.state == "done"
    assert [start[:2] for start in retained.started] == [(10, 60), (20, 60)]
    assert operation.result["published"] == 50


def test_headers_are_read_line_by_line() -> None:
    assert read_headers(" a = 1 \n\nb=x=y\n") == {"a": "1", "b": "x=y"}
    with pytest.raises(ValueError, match="name=value"):
        read_headers("a")


def test_an_older_kind_of_cluster_says_that_it_has_no_history(viewer: Client, row: Cluster) -> None:
    answer = viewer.get(HISTORY)
    assert answer.status_code == 503
    assert "does not retain" in answer.content.decode()


def test_the_command_runs_it_and_says_so_in_json(row: Cluster, retained: FakeRetained) -> None:
    out = StringIO()
    call_command("replay", "hello", first=10, end=60, to_queue="orders", rate=500, json=True, stdout=out)
    said = json.loads(out.getvalue())
    assert (said["state"], said["published"], said["error"]) == ("done", 50, "")
    assert retained.started == [(10, 60, Target("/", queue="orders"), 500)]


def test_the_command_can_only_look(row: Cluster, retained: FakeRetained) -> None:
    out = StringIO()
    call_command("replay", "hello", first=10, dry_run=True, json=True, stdout=out)
    assert json.loads(out.getvalue()) == {"first": 10, "end": 100, "count": 90}
    assert not Operation.objects.exists()
    with pytest.raises(CommandError, match="Nothing matches"):
        call_command("replay", "hello", first=100)
