"""Live pages: what is rendered when something changes, who gets it, and who may not any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.testing import WebsocketCommunicator
from django.http import QueryDict
from django.test import Client

from brokers.live.page import Renderer
from brokers.live.state import Delta, State
from brokers.models import Cluster, Operation
from brokers.templatetags.mq import queue_id
from brokers.views.queue import QueuePage
from brokers.views.queues import QueuesPage
from monitoring import hub as hub_module
from monitoring.hub import Hub, Subscription, View
from mqconsole.asgi import application
from mqconsole.people.models import User
from tests.console.fake import FakeCluster, queue

SOON = 5.0


def queues_page(row: Cluster, query: str = "") -> QueuesPage:
    return QueuesPage(row, "/clusters/local/queues/", {}, QueryDict(query))


def queue_page(row: Cluster, name: str = "hello") -> QueuePage:
    return QueuePage(row, f"/clusters/local/queues/~2F/{name}/", {"vhost": "/", "name": name}, QueryDict())


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def changed(state: State, before: int) -> None:
    wait_for(lambda: state.version > before)


# --- rendering


def test_a_first_rendering_is_everything_a_second_nothing(row: Cluster, fake: FakeCluster) -> None:
    renderer = Renderer(queues_page(row))
    first = "".join(renderer.everything())
    assert all(f'id="{part}"' in first for part in ("cluster", "queue-rows", "queue-count"))
    assert renderer.changes() == []


def test_only_the_rows_that_changed_are_rendered(row: Cluster, fake: FakeCluster) -> None:
    page = queues_page(row)
    renderer = Renderer(page)
    renderer.everything()
    version = page.state.version
    hello = replace(fake.queues["/", "hello"], ready=77)
    fake.put(hello)
    changed(page.state, version)
    (text,) = renderer.changes()
    assert text.startswith(f'<tr id="{queue_id(hello)}"')
    assert text.count("<tr") == 1
    assert ">77<" in text


def test_a_change_that_the_page_does_not_show_is_not_sent(row: Cluster, fake: FakeCluster) -> None:
    page = queues_page(row)
    renderer = Renderer(page)
    renderer.everything()
    version = page.state.version
    fake.put(replace(fake.queues["/", "hello"], bytes=123_456))
    changed(page.state, version)
    assert renderer.changes() == []


def test_rows_that_come_go_or_move_replace_the_table(row: Cluster, fake: FakeCluster) -> None:
    page = queues_page(row, "sort=-ready")
    renderer = Renderer(page)
    renderer.everything()
    for change in (
        lambda: fake.put(queue("new")),
        lambda: fake.drop(("/", "new")),
        lambda: fake.put(replace(fake.queues["/", "orders"], ready=9)),
    ):
        version = page.state.version
        change()
        changed(page.state, version)
        assert any(text.startswith('<tbody id="queue-rows"') for text in renderer.changes())


def test_table_rows_never_stand_beside_other_parts(row: Cluster, fake: FakeCluster) -> None:
    """A browser that parses such a fragment drops the rows."""
    for text in Renderer(queues_page(row)).everything():
        assert text.startswith("<t") == ("<tbody" in text or "<tr" in text.partition(">")[0])


def test_a_page_and_its_live_update_are_the_same_html(
    viewer: Client, row: Cluster, fake: FakeCluster
) -> None:
    loaded = viewer.get("/clusters/local/queues/").content.decode()
    for text in Renderer(queues_page(row)).everything():
        if "queue-rows" in text:
            assert text.strip() in loaded
            return
    pytest.fail("the rows were not rendered")


def test_a_queue_page_cares_for_its_own_queue(row: Cluster, fake: FakeCluster) -> None:
    page = queue_page(row)
    assert page.affected(Delta(queues=frozenset({("/", "hello")})))
    assert not page.affected(Delta(queues=frozenset({("/", "orders")})))
    assert page.affected(Delta(everything=True))
    assert not page.affected(Delta())


def test_views_alike_have_one_address(row: Cluster) -> None:
    assert queues_page(row, "page=1&sort=name&q=+&x=y").address == "/clusters/local/queues/"
    assert (
        queues_page(row, "sort=-ready&q=a b").address == queues_page(row, "q=a+b&sort=-ready&page=01").address
    )


def test_between_two_samples_charts_are_not_sent_again(
    row: Cluster, fake: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = queue_page(row)
    page.state.sample()
    monkeypatch.setattr(State, "sample", lambda self: Delta())  # the clock goes on meanwhile
    renderer = Renderer(page)
    renderer.everything()
    version = page.state.version
    fake.put(replace(fake.queues["/", "hello"], ready=77))
    changed(page.state, version)
    (text,) = renderer.changes()
    assert ">77<" in text
    assert "<svg" not in text


# --- the hub


class Socket:
    """Takes what the hub delivers; shows it only when told to."""

    def __init__(self, hub: Hub, page: Any) -> None:
        self.got: list[str] = []
        self.hub = hub
        self.view, self.subscription = hub.subscribe(page, self.got.append)

    def show(self) -> None:
        while self.subscription.unseen:
            self.hub.seen(self.subscription)

    def leave(self) -> None:
        self.hub.unsubscribe(self.view, self.subscription)


@pytest.mark.django_db(transaction=True)
def test_all_who_watch_a_view_get_the_same_text_rendered_once(
    row: Cluster, fake: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderings: list[str] = []
    render = Renderer.changes

    def counted(self: Renderer) -> list[str]:
        renderings.append(self.page.address)
        return render(self)

    monkeypatch.setattr(Renderer, "changes", counted)
    hub = Hub()
    sockets = [Socket(hub, queue_page(row)) for _ in range(20)]
    wait_for(lambda: all(socket.got for socket in sockets))
    for socket in sockets:
        socket.show()
        socket.got.clear()
    renderings.clear()
    fake.put(replace(fake.queues["/", "hello"], ready=4711, messages=4711))
    wait_for(lambda: all(any("4,711" in text for text in socket.got) for socket in sockets))
    texts = {id(next(text for text in socket.got if "4,711" in text)) for socket in sockets}
    assert len(texts) == 1
    assert len(renderings) <= 3  # not one for each socket: the change itself, perhaps a tick of the clock
    for socket in sockets:
        socket.leave()
    assert hub._views == {}


@pytest.mark.django_db(transaction=True)
def test_a_browser_that_does_not_keep_up_gets_the_whole_view_later(
    row: Cluster, fake: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "RATE", 100.0)
    monkeypatch.setattr(hub_module, "IDLE_SHARE", 0.0)
    socket = Socket(Hub(), queue_page(row))
    number = 0
    deadline = time.monotonic() + SOON
    while not (socket.subscription.stale and len(socket.got) >= hub_module.WINDOW):
        assert time.monotonic() < deadline, "the hub never stopped sending"
        number += 1
        fake.put(replace(fake.queues["/", "hello"], ready=number))
        time.sleep(0.01)
    fake.put(replace(fake.queues["/", "hello"], ready=99_999))
    received = len(socket.got)
    socket.show()
    wait_for(lambda: len(socket.got) > received)
    assert "99,999" in socket.got[-1]
    assert 'id="replicas"' in socket.got[-1]
    socket.leave()


@pytest.mark.django_db(transaction=True)
def test_operations_written_elsewhere_appear(row: Cluster, fake: FakeCluster) -> None:
    socket = Socket(Hub(), queue_page(row))
    wait_for(lambda: bool(socket.got))
    socket.show()
    params = {"vhost": "/", "name": "hello"}
    Operation.objects.create(
        kind="failover", cluster=row, target="hello", params=params, state="done", step="node3 leads now"
    )
    wait_for(lambda: any("node3 leads now" in text for text in socket.got))
    socket.leave()


@pytest.mark.django_db(transaction=True)
def test_a_page_that_cannot_be_rendered_does_not_stop_the_others(
    row: Cluster, fake: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = queue_page(row, "orders")
    monkeypatch.setattr(broken, "context", lambda state: 1 / 0)
    hub = Hub()
    bad, good = Socket(hub, broken), Socket(hub, queue_page(row))
    wait_for(lambda: bool(good.got))
    assert bad.got == []
    bad.leave()
    good.leave()


# --- sockets


class Browser:
    """A signed-in browser's websocket."""

    def __init__(self, client: Client | None, view: str, origin: str | None = "http://testserver") -> None:
        headers = [(b"host", b"testserver")]
        if origin is not None:
            headers.append((b"origin", origin.encode()))
        if client is not None:
            cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
            headers.append((b"cookie", cookies.encode()))
        path = f"/live/?view={quote(view, safe='')}"
        self.socket = WebsocketCommunicator(application, path, headers=headers)

    async def __aenter__(self) -> Browser:
        self.accepted, _ = await self.socket.connect(timeout=SOON)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.socket.disconnect()

    async def text(self) -> str:
        return await self.socket.receive_from(timeout=SOON)

    async def closed(self, within: float = SOON) -> int:
        deadline = asyncio.get_running_loop().time() + within
        while True:
            left = deadline - asyncio.get_running_loop().time()
            message = await self.socket.receive_output(timeout=max(left, 0.01))
            if message["type"] == "websocket.close":
                return message["code"]


@pytest.fixture
def _hosts(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["testserver"]


QUEUE = "/clusters/local/queues/~2F/hello/"


@pytest.mark.usefixtures("_hosts")
@pytest.mark.django_db(transaction=True)
def test_a_socket_gets_the_whole_view_and_then_what_changes(viewer: Client, fake: FakeCluster) -> None:
    async def scenario() -> None:
        async with Browser(viewer, QUEUE) as browser:
            assert browser.accepted
            assert 'id="queue-figures"' in await browser.text()
            await browser.socket.send_to(text_data=".")
            fake.put(replace(fake.queues["/", "hello"], ready=4711))
            while "4,711" not in await browser.text():
                pass

    async_to_sync(scenario)()


@pytest.mark.usefixtures("_hosts")
@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "",
        "http://evil.example",
        "http://testserver.evil.example",
        "http://testserver:81",
        "file://",
        "http://[",
        "javascript:testserver",
    ],
)
@pytest.mark.django_db(transaction=True)
def test_a_socket_from_a_foreign_page_is_denied(viewer: Client, origin: str | None) -> None:
    async def scenario() -> None:
        async with Browser(viewer, QUEUE, origin) as browser:
            assert not browser.accepted

    async_to_sync(scenario)()


@pytest.mark.usefixtures("_hosts")
@pytest.mark.parametrize(
    ("view", "code"),
    [
        ("/clusters/none/", 4404),
        ("/nowhere/", 4404),
        ("/login/", 4404),
        ("/admin/", 4404),
        ("/clusters/local/queues/~2F/hello/failover/", 4404),
        ("", 4404),
        ("//evil.example/", 4404),
        ("/" + "x" * 5000, 4404),
    ],
)
@pytest.mark.django_db(transaction=True)
def test_a_socket_for_what_is_no_live_page_is_closed(viewer: Client, view: str, code: int) -> None:
    async def scenario() -> None:
        async with Browser(viewer, view) as browser:
            assert await browser.closed() == code

    async_to_sync(scenario)()


@pytest.mark.usefixtures("_hosts")
@pytest.mark.django_db(transaction=True)
def test_a_socket_needs_a_person_and_a_role(row: Cluster, signed_in: Callable[[str], Client]) -> None:
    nobody = signed_in("")

    async def scenario() -> None:
        async with Browser(None, QUEUE) as browser:
            assert await browser.closed() == 4401
        async with Browser(nobody, QUEUE) as browser:
            assert await browser.closed() == 4403

    async_to_sync(scenario)()


def sign_out(client: Client) -> None:
    assert client.post("/logout/").status_code == 302


def disable(client: Client) -> None:
    User.objects.filter(username="the-viewer").update(is_active=False)


def take_role(client: Client) -> None:
    User.objects.get(username="the-viewer").groups.clear()


def change_password(client: Client) -> None:
    user = User.objects.get(username="the-viewer")
    user.set_password("another password")
    user.save()


@pytest.mark.usefixtures("_hosts")
@pytest.mark.parametrize("happens", [sign_out, disable, take_role, change_password])
@pytest.mark.django_db(transaction=True)
def test_a_socket_closes_when_its_right_is_gone(viewer: Client, happens: Callable[[Client], None]) -> None:
    async def scenario() -> None:
        async with Browser(viewer, QUEUE) as browser:
            await browser.text()
            await sync_to_async(happens)(viewer)
            assert await browser.closed(within=5.0) == 4401

    async_to_sync(scenario)()


def test_a_view_and_a_subscription_are_told_apart_by_identity() -> None:
    """Two sockets of one person that deliver to the same place are still two."""
    one, other = Subscription(print), Subscription(print)
    assert len({one, other}) == 2
    assert View.__hash__ is object.__hash__
