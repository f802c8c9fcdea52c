"""The pages of dead letters and what is done from them."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from brokers.adapters.base import ClusterUnavailable, OutcomeUnknown
from brokers.adapters.dead_letters import Onward
from brokers.models import Cluster, Operation
from brokers.operations import worker
from tests.console.fake import FakeCluster, queue
from tests.console.letters import FakeLetters, letter

BASE = "/clusters/local/dead-letters/"
QUEUE = f"{BASE}~2F/orders.dead/"
HTMX = {"HX-Request": "true"}
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def letters(fake: FakeCluster, row: Cluster, monkeypatch: pytest.MonkeyPatch) -> FakeLetters:
    made = FakeLetters(
        *(letter(n, "aa" if n < 5 else "bb") for n in range(7)), letter(7, "bb", EVIL, **{"x-evil": EVIL})
    )
    fake.put(queue("orders.dead", messages=8, ready=8, oldest_age=90.0))
    monkeypatch.setattr(fake, "dead_letters", lambda: made, raising=False)
    monkeypatch.setattr(worker, "enqueue", lambda pk: None)
    monkeypatch.setattr(worker, "NAP", 0.001)
    return made


def run(client: Client, act: str, form: dict[str, str]) -> Operation:
    """Confirm something, have it worked off; the operation."""
    answer = client.post(f"{QUEUE}{act}/", form, headers=HTMX)
    assert answer.status_code == 200, answer.content.decode()
    operation = Operation.objects.get()
    while worker.work(operation.pk):
        pass
    operation.refresh_from_db()
    return operation


def test_the_queues_and_their_causes(viewer: Client, letters: FakeLetters) -> None:
    html = viewer.get(BASE).content.decode()
    assert f'href="{QUEUE}"' in html
    assert "orders" in html
    assert "1 min 30 s" in html
    html = viewer.get(QUEUE).content.decode()
    assert "<b>8</b> messages of <b>2</b> causes" in html
    assert "&lt;b&gt;aa&lt;/b&gt;" in html
    assert f"{QUEUE}messages/?group=bb" in html
    assert "needs the role operator" in html
    assert "redrive-all" not in html


def test_messages_are_listed_and_shown_as_text(viewer: Client, letters: FakeLetters) -> None:
    html = viewer.get(f"{QUEUE}messages/?group=bb").content.decode()
    assert EVIL not in html
    assert "&lt;script&gt;" in html
    assert f"{QUEUE}messages/7/" in html
    assert f"{QUEUE}messages/1/" not in html
    html = viewer.get(f"{QUEUE}messages/7/").content.decode()
    assert EVIL not in html
    assert html.count("&lt;script&gt;") == 3  # header, body, and beside the hex
    assert "x-death" in html
    answer = viewer.get(f"{QUEUE}messages/7/?download")
    assert answer.content == EVIL.encode()
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert viewer.get(f"{QUEUE}messages/99/").status_code == 404
    assert viewer.get(f"{QUEUE}messages/?from=x").status_code == 404


def test_who_may_not_act(viewer: Client, letters: FakeLetters) -> None:
    for act in ("redrive", "discard", "export"):
        assert viewer.post(f"{QUEUE}{act}/", {"typed": "orders.dead"}).status_code == 403
    assert viewer.get(f"{QUEUE}redrive/").status_code == 403
    assert len(letters.messages) == 8
    assert not Operation.objects.exists()


def test_redrive_all(operator: Client, letters: FakeLetters) -> None:
    html = operator.get(f"{QUEUE}redrive/", headers=HTMX).content.decode()
    assert "8 messages in orders.dead: sent back to where they died (orders)" in html
    assert 'name="until" value="8"' in html
    letters.messages[8] = letter(8)
    operation = run(operator, "redrive", {"until": "8", "to": "back", "reason": "fixed", "stop_after": "10"})
    assert (operation.state, operation.reason) == ("done", "fixed")
    assert operation.step == "8 messages were sent on."
    assert list(letters.messages) == [8]  # it came after the plan was made
    assert letters.calls[0]["onward"] == Onward()
    assert operation.who is not None


def test_redrive_a_group_elsewhere(operator: Client, letters: FakeLetters) -> None:
    form = {"group": "bb", "to": "elsewhere", "exchange": "shop", "routing_key": "", "rate": "1000"}
    operation = run(operator, "redrive", form)
    assert operation.result["done"] == 3
    assert operation.rate == 1000
    assert letters.calls[0]["onward"] == Onward("shop", None)
    assert sorted(letters.messages) == [0, 1, 2, 3, 4]


def test_edit_one(operator: Client, letters: FakeLetters) -> None:
    html = operator.get(f"{QUEUE}redrive/?position=7", headers=HTMX).content.decode()
    assert EVIL not in html
    assert "&quot;x-evil&quot;" in html
    assert "x-death" not in html
    form = {
        "position": "7",
        "edit": "1",
        "payload": "new\r\nbody",
        "payload_encoding": "string",
        "properties": '{"headers": {"a": 1}}',
    }
    answer = operator.post(f"{QUEUE}redrive/", form | {"properties": "[1"}, headers=HTMX)
    assert answer.status_code == 409
    assert "the properties are no JSON" in answer.content.decode()
    operation = run(operator, "redrive", form)
    assert letters.calls[0]["edit"]["payload"] == "new\nbody"
    assert operation.result["originals"][0]["payload"] == EVIL
    html = operator.get(f"/clusters/local/operations/{operation.pk}/").content.decode()
    assert "What was edited, as it was" in html
    assert EVIL not in html


def test_it_stops_when_too_many_come_back(operator: Client, letters: FakeLetters) -> None:
    letters.dies_again = 2
    operation = run(operator, "redrive", {"stop_after": "1"})
    assert operation.state == "failed"
    assert "2 of 2 messages came back dead, more than the 1 that were allowed" in operation.error
    assert len(letters.messages) == 6


def test_a_crash_of_the_cluster_is_gone_on_after_and_marked(operator: Client, letters: FakeLetters) -> None:
    letters.fails = [OutcomeUnknown("it was lost"), ClusterUnavailable("no node answered")]
    operation = run(operator, "redrive", {})
    assert operation.state == "done"
    assert operation.result["done"] == 8
    assert [call["unsure"] for call in letters.calls] == [False, True, True, *4 * [False]]


def test_discard_needs_the_name_typed(operator: Client, letters: FakeLetters) -> None:
    assert "thrown away" in operator.get(f"{QUEUE}discard/?group=aa", headers=HTMX).content.decode()
    answer = operator.post(f"{QUEUE}discard/", {"group": "aa", "typed": "orders"}, headers=HTMX)
    assert answer.status_code == 409
    assert "Nothing was done" in answer.content.decode()
    assert not Operation.objects.exists()
    operation = run(operator, "discard", {"group": "aa", "typed": "orders.dead"})
    assert operation.step == "5 messages were thrown away. Left in the queue: 1 held by consumers."
    assert sorted(letters.messages) == [5, 6, 7]


@pytest.mark.parametrize("form", [{"position": "-1"}, {"group": "a b"}, {"until": "x"}, {"rate": "fast"}])
def test_nonsense_is_refused(operator: Client, letters: FakeLetters, form: dict[str, str]) -> None:
    answer = operator.post(f"{QUEUE}redrive/", form, headers=HTMX)
    assert answer.status_code == 409
    assert not Operation.objects.exists()


def test_export_is_json_lines_and_is_recorded(operator: Client, letters: FakeLetters) -> None:
    answer = operator.post(f"{QUEUE}export/", {"group": "bb"})
    lines = [json.loads(line) for line in b"".join(answer.streaming_content).splitlines()]  # type: ignore[attr-defined]  # it streams
    assert [line["position"] for line in lines] == [5, 6, 7]
    assert lines[2]["payload"] == EVIL
    assert answer.headers["Content-Disposition"].endswith('.jsonl"')
    operation = Operation.objects.get()
    assert (operation.kind, operation.state, operation.finished_units) == ("export", "done", 3)
    assert len(letters.messages) == 8


def test_steering_an_operation(operator: Client, viewer: Client, letters: FakeLetters) -> None:
    operator.post(f"{QUEUE}redrive/", {}, headers=HTMX)
    operation = Operation.objects.get()
    address = f"/clusters/local/operations/{operation.pk}/control/"
    assert viewer.get(address).status_code == 403
    assert address in operator.get(f"/clusters/local/operations/{operation.pk}/").content.decode()
    assert worker.work(operation.pk, seconds=0)
    operator.post(address, {"act": "limit", "rate": "500"}, headers=HTMX)
    operator.post(address, {"act": "pause"}, headers=HTMX)
    operation.refresh_from_db()
    assert (operation.state, operation.rate) == ("paused", 500)
    assert "Resume" in operator.get(address, headers=HTMX).content.decode()
    operator.post(address, {"act": "resume"}, headers=HTMX)
    assert operator.post(address, {"act": "explode"}, headers=HTMX).status_code == 409
    operator.post(address, {"act": "cancel"}, headers=HTMX)
    operation.refresh_from_db()
    assert operation.state == "cancelled"
    assert operation.result["done"] == 2
    assert operator.post(address, {"act": "resume"}, headers=HTMX).status_code == 409


def test_the_command(letters: FakeLetters) -> None:
    def command(*args: str) -> dict[str, object]:
        out = StringIO()
        call_command("redrive", *args, "--json", stdout=out)
        found: dict[str, object] = json.loads(out.getvalue())
        return found

    assert command()["queues"] == [{"vhost": "/", "name": "orders.dead", "messages": 8}]
    assert [g["count"] for g in command("orders.dead", "--list")["groups"]] == [5, 3]  # type: ignore[attr-defined]  # a list
    assert command("orders.dead", "--group", "aa")["done"] == 5
    with pytest.raises(CommandError, match="needs the queue's name"):
        command("orders.dead", "--discard", "orders")
    assert command("orders.dead", "--discard", "orders.dead")["done"] == 3
    with pytest.raises(CommandError, match="empty"):
        command("orders.dead")
    with pytest.raises(CommandError, match="no cluster"):
        command("--cluster", "nowhere")
    assert [op.kind for op in Operation.objects.order_by("pk")] == ["redrive", "discard"]
