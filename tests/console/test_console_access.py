"""Who may see and do what, page by page, role by role; and what a stranger's form can't do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from brokers.models import Cluster, Operation
from mqconsole.people.models import User
from tests.console.fake import FakeCluster

PAGES = {
    "overview": (),
    "queues": (),
    "queue": ("/", "hello"),
    "nodes": (),
    "operations": (),
}
ACTS = {"failover": ("/", "hello")}


def address(name: str, args: tuple[str, ...]) -> str:
    return reverse(name, args=("local", *args))


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("role", "status"), [("", 403), ("viewer", 200), ("operator", 200), ("admin", 200)])
def test_pages_are_for_those_with_a_role(
    row: Cluster, signed_in: Callable[[str], Client], name: str, role: str, status: int
) -> None:
    assert signed_in(role).get(address(name, PAGES[name])).status_code == status


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize(("role", "status"), [("", 403), ("viewer", 403), ("operator", 200), ("admin", 200)])
def test_acts_are_for_operators(
    row: Cluster,
    fake: FakeCluster,
    signed_in: Callable[[str], Client],
    name: str,
    role: str,
    status: int,
) -> None:
    client = signed_in(role)
    form = {"target": "node2", "seen_leader": "node1", "seen_term": "3"}
    assert client.get(address(name, ACTS[name])).status_code == status
    assert fake.transfers == []
    answer = client.post(address(name, ACTS[name]), form, headers={"HX-Request": "true"})
    assert answer.status_code == status
    assert len(fake.transfers) == (status == 200)


def _patterns(resolver: URLResolver | None = None) -> list[URLPattern]:
    found = []
    for entry in (resolver or get_resolver()).url_patterns:
        if isinstance(entry, URLPattern):
            found.append(entry)
        elif entry.app_name != "admin":
            found += _patterns(entry)
    return found


OPEN = {"login", "healthz", "readyz"}


def test_every_address_but_a_few_asks_to_sign_in(row: Cluster) -> None:
    values = {"cluster": "local", "vhost": "/", "name": "hello", "pk": 1, "position": 1}
    checked = 0
    for pattern in _patterns():
        if pattern.name in OPEN:
            continue
        names = pattern.pattern.converters
        path = reverse(str(pattern.name), kwargs={name: values[name] for name in names} | _cluster(pattern))
        for method in ("get", "post"):
            answer = getattr(Client(), method)(path)
            assert answer.status_code in (302, 405), (path, method)
            if answer.status_code == 302:
                assert answer.headers["Location"].startswith("/login/"), (path, method)
        checked += 1
    assert checked >= 8


def _cluster(pattern: URLPattern) -> dict[str, str]:
    return {} if pattern.name in ("home", "logout") else {"cluster": "local"}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_pages_can_only_be_read(operator: Client, name: str, method: str) -> None:
    assert getattr(operator, method)(address(name, PAGES[name])).status_code == 405


def test_forms_need_their_token(row: Cluster, fake: FakeCluster, person: Callable[[str], User]) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(person("operator"))
    form = {"target": "node2", "seen_leader": "node1", "seen_term": "3"}
    assert client.post(address("failover", ("/", "hello")), form).status_code == 403
    assert client.post(reverse("logout")).status_code == 403
    assert client.post(reverse("login"), {"username": "a", "password": "b"}).status_code == 403
    assert fake.transfers == []
    assert not Operation.objects.exists()


def test_signing_out_by_a_link_does_nothing(viewer: Client) -> None:
    assert viewer.get(reverse("logout")).status_code == 405
    assert viewer.get(address("overview", ())).status_code == 200


def test_signing_in_and_out(row: Cluster, person: Callable[[str], User]) -> None:
    user, client = person("viewer"), Client()
    client.get(reverse("login"))
    wrong = client.post(reverse("login"), {"username": user.username, "password": "not it"})
    assert b"do not go together" in wrong.content
    right = client.post(
        reverse("login"),
        {"username": user.username, "password": "a long password", "next": "/clusters/local/nodes/"},
    )
    assert right.headers["Location"] == "/clusters/local/nodes/"
    assert client.get("/").headers["Location"] == "/clusters/local/"
    assert client.post(reverse("logout")).status_code == 302
    assert client.get("/").headers["Location"].startswith("/login/")


def test_after_signing_in_nobody_is_sent_elsewhere(row: Cluster, person: Callable[[str], User]) -> None:
    user = person("viewer")
    form = {"username": user.username, "password": "a long password", "next": "https://evil.example/"}
    assert Client().post(reverse("login"), form).headers["Location"] == "/"


def test_a_disabled_person_is_out_at_once(row: Cluster, person: Callable[[str], User]) -> None:
    user, client = person("viewer"), Client()
    client.force_login(user)
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert client.get(address("overview", ())).status_code == 302


@pytest.mark.parametrize(("role", "status"), [("", 403), ("viewer", 403), ("operator", 403), ("admin", 200)])
def test_the_admin_site_is_for_admins(signed_in: Callable[[str], Client], role: str, status: int) -> None:
    client = signed_in(role)
    for path in ("/admin/", "/admin/people/user/", "/admin/brokers/cluster/", "/admin/brokers/operation/"):
        assert client.get(path, follow=True).status_code == status, path


def test_an_admin_can_search_and_disable_people(
    signed_in: Callable[[str], Client], person: Callable[[str], User]
) -> None:
    client, viewer = signed_in("admin"), person("viewer")
    assert b"the-viewer" in client.get("/admin/people/user/?q=the-view").content
    client.post("/admin/people/user/", {"action": "disable", "_selected_action": [viewer.pk]})
    viewer.refresh_from_db()
    assert not viewer.is_active


def test_an_admin_cannot_become_or_touch_a_superuser(
    signed_in: Callable[[str], Client], person: Callable[[str], User]
) -> None:
    client = signed_in("admin")
    me = User.objects.get(username="the-admin")
    boss = User.objects.create_superuser("boss", password="a long password")
    client.post(
        f"/admin/people/user/{me.pk}/change/",
        {
            "username": me.username,
            "is_active": "on",
            "is_superuser": "on",
            "groups": [g.pk for g in me.groups.all()],
        },
    )
    me.refresh_from_db()
    assert not me.is_superuser
    assert client.post(f"/admin/people/user/{boss.pk}/change/", {"username": "x"}).status_code == 403
    assert client.post(f"/admin/people/user/{boss.pk}/password/", {}).status_code == 403
    client.post("/admin/people/user/", {"action": "disable", "_selected_action": [boss.pk, me.pk]})
    boss.refresh_from_db()
    me.refresh_from_db()
    assert boss.is_active
    assert me.is_active


def test_records_are_not_edited_even_by_superusers(row: Cluster) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("boss", password="a long password"))
    operation = Operation.objects.create(kind="failover", cluster=row, target="hello")
    assert client.get("/admin/brokers/operation/add/").status_code == 403
    assert client.post(f"/admin/brokers/operation/{operation.pk}/change/", {}).status_code == 403
    assert client.post(f"/admin/brokers/operation/{operation.pk}/delete/", {"post": "yes"}).status_code == 403
    assert Operation.objects.filter(pk=operation.pk).exists()


def test_pages_carry_the_headers_that_protect_them(viewer: Client) -> None:
    for path in ("/login/", address("overview", ()), "/healthz"):
        headers = viewer.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert "no-store" in headers["Cache-Control"]
