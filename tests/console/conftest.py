"""What console tests share: a cluster in memory, people of each role, and a database that threads can use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client

from brokers import adapters
from brokers.live import watcher
from brokers.models import Cluster
from mqconsole.people.models import User
from tests.console.fake import FakeCluster, queue

ROLES = ("viewer", "operator", "admin")


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A file, not memory: the live hub and the guard read it in threads of their own."""
    from django.conf import settings

    path: Path = tmp_path_factory.mktemp("database") / "console.sqlite3"
    settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = str(path)


@pytest.fixture(autouse=True)
def _quick_passwords(settings: Any) -> None:
    """Slow hashes are for passwords worth protecting."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """The cluster that the console believes to be the embedded one."""
    cluster = FakeCluster(queue("hello"), queue("orders", leader="node2"), queue("invoices", vhost="billing"))
    monkeypatch.setitem(adapters.KINDS, adapters.EMBEDDED, lambda options: cluster)
    monkeypatch.setattr(watcher, "_watchers", {})
    return cluster


@pytest.fixture
def row(db: None, fake: FakeCluster) -> Cluster:
    """The embedded cluster's row, which a migration enters."""
    return Cluster.objects.get(slug="local")


@pytest.fixture
def person(db: None) -> Callable[[str], User]:
    """Makes a person of a role ("" for none)."""

    def make(role: str) -> User:
        user = User.objects.create_user(f"the-{role or 'nobody'}", password="a long password")
        if role:
            user.groups.add(Group.objects.get(name=role))
        return user

    return make


@pytest.fixture
def signed_in(person: Callable[[str], User]) -> Callable[[str], Client]:
    """A browser in which a person of a role is signed in."""

    def make(role: str) -> Client:
        client = Client()
        client.force_login(person(role))
        return client

    return make


@pytest.fixture
def operator(row: Cluster, signed_in: Callable[[str], Client]) -> Client:
    """A signed-in operator."""
    return signed_in("operator")


@pytest.fixture
def viewer(row: Cluster, signed_in: Callable[[str], Client]) -> Client:
    """A signed-in viewer."""
    return signed_in("viewer")
