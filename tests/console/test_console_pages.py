"""What the pages show, of ordinary clusters and of strange ones."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import pytest
from django.test import Client
from django.urls import reverse

from brokers.adapters.base import Failover, Node, Replica
from brokers.models import Cluster, Event, Operation
from tests.console.fake import FakeCluster, queue

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
NAMES = [
    EVIL,
    "..",
    ".",
    "a/b",
    "~2F",
    "100%25",
    "space and ü",
    "?q=1#x",
    "line\nbreak",
    "\\",
    "{{ 7|add:7 }}",
    "x" * 255,
]


def page(client: Client, name: str, *args: object, query: str = "") -> str:
    answer = client.get(reverse(name, args=("local", *args)) + query)
    assert answer.status_code == 200, answer.status_code
    return answer.content.decode()


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def rows(html: str) -> list[str]:
    return re.findall(r'<a class="name" href="[^"]*">(?:<span class="vhost">[^<]*</span>)?([^<]*)</a>', html)


def test_all_is_well(viewer: Client) -> None:
    text = words(page(viewer, "overview"))
    assert "All is well" in text
    assert "3 of 3 nodes run, 3 queues have a leader and a majority" in text


def test_what_is_wrong_comes_first_and_says_what_it_means(viewer: Client, fake: FakeCluster) -> None:
    fake.nodes[3] = Node(3, "node3", "127.0.0.1:5674", "down")
    fake.queues["/", "orders"] = queue(
        "orders",
        leader=None,
        state="no-quorum",
        replicas=(Replica("node1", "follower", 0), Replica("node2", "down"), Replica("node3", "down")),
    )
    text = words(page(viewer, "overview"))
    assert "2 things are wrong" in text
    assert "orders has no quorum: 1 of 3 replicas run." in text
    assert "node3 (127.0.0.1:5674) is down. 2 of 3 nodes run: one more failure would stop" in text


def test_a_cluster_that_does_not_answer(viewer: Client, fake: FakeCluster) -> None:
    fake.lost = "no node answered: connection refused"
    for name in ("overview", "queues", "nodes"):
        assert "Local cluster does not answer" in words(page(viewer, name))
    answer = viewer.get(reverse("queue", args=("local", "/", "hello")))
    assert answer.status_code == 200
    assert b"does not exist" not in answer.content


def test_an_empty_cluster_teaches_the_first_message(viewer: Client, fake: FakeCluster) -> None:
    fake.queues.clear()
    for name in ("overview", "queues"):
        html = page(viewer, name)
        assert "import pika" in html
        assert "amqp://guest:guest@127.0.0.1:5672/%2F" in html


def test_operations_and_events_are_on_the_overview(viewer: Client, fake: FakeCluster) -> None:
    cluster = Cluster.objects.get()
    Operation.objects.create(
        kind="failover", cluster=cluster, target="hello", state="done", step="node2 leads now"
    )
    Event.objects.create(
        cluster=cluster, kind="node-down", severity="critical", subject="node9", text="node9 is down."
    )
    text = words(page(viewer, "overview"))
    assert "Failover of hello" in text
    assert "node2 leads now" in text
    assert "node9 is down." in text


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_shown_as_text_and_has_a_page(viewer: Client, fake: FakeCluster, name: str) -> None:
    fake.queues.clear()
    strange = queue(name, vhost=name)
    fake.queues[strange.key] = strange
    html = page(viewer, "queues")
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    link = re.search(r'<a class="name" href="([^"]*)"', html)
    assert link is not None
    answer = viewer.get(unescape(link[1]))
    assert answer.status_code == 200, link[1]
    assert answer.context["queue"] == strange
    assert "<script>alert" not in answer.content.decode()
    assert "/../" not in link[1]
    assert "/./" not in link[1]


def test_a_queue_page_shows_figures_replicas_and_the_last_failover(viewer: Client, fake: FakeCluster) -> None:
    replicas = (Replica("node1", "leader"), Replica("node2", "follower", 1234), Replica("node3", "down"))
    happened = Failover(1_700_000_000.0, "node2", "node1", 240.0, "crash")
    fake.queues["/", "hello"] = queue(
        "hello",
        messages=12_345,
        ready=12_000,
        unacked=345,
        publish_rate=1500.0,
        deliver_rate=2.5,
        consumers=2,
        bytes=5 * 1024 * 1024,
        oldest_age=75.0,
        replicas=replicas,
        last_failover=happened,
    )
    text = words(page(viewer, "queue", "/", "hello"))
    for figure in (
        "Messages 12,345",
        "Ready 12,000",
        "Unacked 345",
        "Published 1,500 /s",
        "Delivered 2.5 /s",
    ):
        assert figure in text
    assert "Size 5.0 MiB" in text
    assert "Oldest 1 min 15 s" in text
    assert "1,234 entries" in text
    assert "node3 ■ down unknown" in text
    assert "Last change of leader: node2 → node1 (crash)" in text
    assert "2023-11-14 22:13:20 UTC" in text
    assert "The queue was unavailable for 240 ms" in text


def test_a_queue_that_is_not_there(viewer: Client) -> None:
    answer = viewer.get(reverse("queue", args=("local", "/", "nope")))
    assert answer.status_code == 404
    assert b"This queue does not exist" in answer.content


def test_only_operators_are_offered_to_act(viewer: Client, signed_in: object) -> None:
    html = page(viewer, "queue", "/", "hello")
    assert 'id="failover"' not in html
    assert "needs the role operator" in html


def test_what_a_cluster_cannot_do_is_shown_disabled_with_the_reason(
    operator: Client, fake: FakeCluster
) -> None:
    assert 'id="failover"' in page(operator, "queue", "/", "hello")
    fake.refusals = {"transfer_leadership": "this broker is too old for it"}
    html = page(operator, "queue", "/", "hello")
    assert 'id="failover"' not in html
    assert "this broker is too old for it" in html


def test_queues_are_searched_by_all_words_in_name_and_vhost(viewer: Client) -> None:
    assert rows(page(viewer, "queues", query="?q=OICE+bill")) == ["invoices"]
    assert rows(page(viewer, "queues", query="?q=hello+orders")) == []
    assert "No queue fits" in words(page(viewer, "queues", query="?q=zzz"))


def test_queues_are_sorted_by_any_column(viewer: Client, fake: FakeCluster) -> None:
    for name, ready in (("a", 5), ("b", 50), ("C", 1)):
        fake.queues["/", name] = queue(name, ready=ready)
    assert rows(page(viewer, "queues"))[:3] == ["a", "b", "C"]
    assert rows(page(viewer, "queues", query="?sort=-ready"))[:3] == ["b", "a", "C"]
    assert rows(page(viewer, "queues", query="?sort=ready"))[-3:] == ["C", "a", "b"]
    assert 'aria-sort="descending"' in page(viewer, "queues", query="?sort=-ready")
    for sort in ("state", "unacked", "publish", "deliver", "consumers", "leader", "-lag", "nonsense", "-"):
        assert len(rows(page(viewer, "queues", query=f"?sort={sort}"))) == 6


def test_queues_come_in_pages(viewer: Client, fake: FakeCluster) -> None:
    fake.queues.clear()
    for number in range(120):
        one = queue(f"q{number:03}")
        fake.queues[one.key] = one
    first, last = page(viewer, "queues"), page(viewer, "queues", query="?page=3")
    assert rows(first) == [f"q{n:03}" for n in range(50)]
    assert rows(last) == [f"q{n:03}" for n in range(100, 120)]
    assert "1\N{EN DASH}50 of 120" in words(first)
    assert rows(page(viewer, "queues", query="?page=99999")) == rows(last)
    for nonsense in ("0", "-1", "x", "9" * 30, "²"):
        assert rows(page(viewer, "queues", query=f"?page={nonsense}")) == rows(first)


def test_queues_in_trouble_can_be_filtered(viewer: Client, fake: FakeCluster) -> None:
    fake.queues["/", "orders"] = replace(fake.queues["/", "orders"], state="no-quorum", leader=None)
    assert rows(page(viewer, "queues", query="?state=no-quorum")) == ["orders"]


def test_operations_are_listed_with_who_and_why(viewer: Client, fake: FakeCluster) -> None:
    assert "Nobody has done anything yet" in words(page(viewer, "operations"))
    one = Operation.objects.create(
        kind="failover",
        cluster=Cluster.objects.get(),
        target="hello",
        state="failed",
        error="no quorum",
        reason=EVIL,
    )
    html = page(viewer, "operations")
    assert "no quorum" in html
    assert "<script>alert" not in html
    assert "no quorum" in page(viewer, "operation", one.pk)
    assert viewer.get(reverse("operation", args=("local", one.pk + 1))).status_code == 404


def test_no_page_has_script_or_style_of_its_own(operator: Client) -> None:
    for name, args in (
        ("overview", ()),
        ("queues", ()),
        ("queue", ("/", "hello")),
        ("nodes", ()),
        ("operations", ()),
    ):
        html = page(operator, name, *args)
        assert re.search(r"<script(?![^>]*\bsrc=)", html) is None
        assert re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", html) is None


def test_a_wrong_address_is_a_plain_404(viewer: Client) -> None:
    assert viewer.get("/clusters/none/").status_code == 404
    assert b"There is nothing here" in viewer.get("/nothing").content


def test_the_consoles_own_queues_do_not_hide_the_first_steps(viewer: Client, fake: FakeCluster) -> None:
    fake.queues.clear()
    for name in ("mqconsole", "worker@host.celery.pidbox", "celeryev.1f2e"):
        fake.queues["/", name] = queue(name)
    assert "import pika" in page(viewer, "overview")


def test_the_first_steps_go_when_there_is_a_queue(viewer: Client) -> None:
    assert "import pika" not in page(viewer, "overview")
