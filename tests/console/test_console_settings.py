"""Settings from the environment, secrets kept in files, the first admin, health."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test import Client

from brokers.adapters.base import Node
from brokers.models import Cluster
from mqconsole import environment
from mqconsole.people.models import User
from tests.console.fake import FakeCluster

ROOT = Path(__file__).resolve().parents[2]


def manage(home: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "MQ_HOME": str(home), **variables}
    return subprocess.run(
        [sys.executable, "manage.py", *args], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(("raw", "value"), [("yes", True), ("1", True), ("off", False), ("", False)])
def test_a_flag(monkeypatch: pytest.MonkeyPatch, raw: str, value: bool) -> None:
    monkeypatch.setenv("MQ_X", raw)
    assert environment.flag("MQ_X", not value) is value


def test_wrong_values_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQ_X", "maybe")
    with pytest.raises(ImproperlyConfigured, match="MQ_X is 'maybe'"):
        environment.flag("MQ_X")
    with pytest.raises(ImproperlyConfigured, match="MQ_X is 'maybe'; write a whole number"):
        environment.number("MQ_X", 1, 1, 9)
    monkeypatch.setenv("MQ_X", "70000")
    with pytest.raises(ImproperlyConfigured, match="from 1 to 65535"):
        environment.number("MQ_X", 1, 1, 65535)


def test_a_secret_is_made_once_and_kept_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "secret"
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: environment.kept_secret("MQ_NONE", path), range(32)))
    assert len(secrets) == 1
    assert len(secrets.pop()) > 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


def test_a_given_secret_is_not_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQ_GIVEN", "abc")
    assert environment.kept_secret("MQ_GIVEN", tmp_path / "secret") == "abc"
    assert not (tmp_path / "secret").exists()


def test_any_host_is_refused(tmp_path: Path) -> None:
    result = manage(tmp_path, "check", MQ_ALLOWED_HOSTS="*")
    assert result.returncode != 0
    assert "MQ_ALLOWED_HOSTS is '*'" in result.stderr


def test_deployed_behind_https_django_has_nothing_to_complain_about(tmp_path: Path) -> None:
    result = manage(
        tmp_path,
        "check",
        "--deploy",
        "--fail-level",
        "WARNING",
        MQ_HTTPS="yes",
        MQ_ALLOWED_HOSTS="mq.example",
    )
    assert result.returncode == 0, result.stderr


def test_migrations_are_complete(tmp_path: Path) -> None:
    result = manage(tmp_path, "makemigrations", "--check", "--dry-run", "people", "brokers", "monitoring")
    assert result.returncode == 0, result.stdout


def test_celery_knows_all_nodes_and_speaks_json(tmp_path: Path) -> None:
    code = (
        "from mqconsole.celery import app; c = app.conf; app.loader.import_default_modules();"
        "print(c.broker_url, c.accept_content, c.result_backend, sorted(app.tasks))"
    )
    result = manage(tmp_path, "shell", "-v0", "-c", code, MQ_AMQP_PORT="7001", MQ_NODES="2")
    assert result.stdout.startswith(
        "amqp://guest:guest@127.0.0.1:7001//;amqp://guest:guest@127.0.0.1:7002// ['json'] None"
    ), result.stderr
    for task in ("monitoring.tasks.check_clusters", "brokers.tasks.fail_abandoned_operations"):
        assert task in result.stdout


def test_the_first_admin_is_made_once(
    db: None, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MQ_ADMIN_PASSWORD", raising=False)
    settings.MQ_HOME = tmp_path
    out = StringIO()
    call_command("ensure_admin", stdout=out)
    path = tmp_path / "admin-password"
    password = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert password not in out.getvalue()
    admin = User.objects.get()
    assert admin.username == "admin"
    assert admin.is_superuser
    assert admin.check_password(password)
    admin.set_password("changed by its owner")
    admin.save()
    call_command("ensure_admin", stdout=out)
    assert User.objects.get().check_password("changed by its owner")


def test_the_first_admin_gets_the_given_password(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQ_ADMIN_PASSWORD", "given by the environment")
    call_command("ensure_admin", stdout=StringIO())
    assert User.objects.get().check_password("given by the environment")


def test_health(row: Cluster, fake: FakeCluster) -> None:
    stranger = Client()
    assert stranger.get("/healthz").content == b"ok\n"
    answer = stranger.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"database": "ok", "clusters": {"local": "ok"}})
    assert stranger.post("/readyz").status_code == 405


def test_not_ready_without_a_quorum(row: Cluster, fake: FakeCluster) -> None:
    for number in (2, 3):
        fake.nodes[number] = Node(number, f"node{number}", "", "down")
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()["clusters"]) == (503, {"local": "no quorum"})


def test_not_ready_without_an_answer(row: Cluster, fake: FakeCluster) -> None:
    fake.lost = "connection refused"
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()["clusters"]) == (503, {"local": "unreachable"})
    assert b"refused" not in answer.content
