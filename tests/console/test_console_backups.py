"""Backups in the console: pages, forms, schedules, what is noticed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from brokers.adapters.base import Queue, QueueKey
from brokers.adapters.blocks import Block
from brokers.adapters.content import Chunk, Content, Definitions, Imported, Opened, Runs
from brokers.backups import schedule
from brokers.backups.store import Store
from brokers.models import Backup, BackupSchedule, Cluster, Event, Operation
from brokers.operations import worker
from brokers.tasks import verify_backup
from tests.console.fake import FakeCluster

LIST = "/clusters/local/backups/"
MESSAGE = b"\0\x02\0\0\0\x0e" + b"\0\0" + b"\0\x3c" + bytes(12) + b"<script>"


class FakeContent(Content):
    """Ten messages in every queue."""

    def __init__(self) -> None:
        self.written: dict[QueueKey, int] = {}
        self.imports = 0

    def definitions(self) -> tuple[str, Definitions]:
        return "cafe", {"users": [{"name": "ann", "password_hash": "x"}], "queues": []}

    def import_definitions(self, definitions: Definitions) -> Imported:
        self.imports += 1
        return Imported({"queues": 1}, {}, [])

    def open(self, node: str, queues: Sequence[QueueKey]) -> list[Opened]:
        return [Opened(7, [(0, 6)], 6) for _ in queues]

    def ends(self, node: str, queues: Sequence[QueueKey]) -> dict[QueueKey, tuple[int, int]]:
        return dict.fromkeys(queues, (7, 10))

    def hold(self, node: str, positions: Mapping[QueueKey, int]) -> None:
        """All of it stays anyway."""

    def read(self, node: str, queue: QueueKey, group: int, runs: Runs, skip: int) -> Chunk:
        assert runs == [(0, 10)]
        ends = tuple(len(MESSAGE) * n for n in range(1, 11))
        return Chunk(Block(0, 1, ends, MESSAGE * 10).encode(), True, 10, 0, 0)

    def write(self, queue: QueueKey, data: bytes, mark: str | None) -> tuple[int, int]:
        self.written[queue] = self.written.get(queue, 0) + 10
        return 10, 0


@pytest.fixture
def content(fake: FakeCluster, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeContent:
    settings.MQ_BACKUPS = str(tmp_path / "backups")
    made = FakeContent()
    monkeypatch.setattr(FakeCluster, "content", lambda self: made)
    return made


def finished(operation: Operation) -> Operation:
    worker.work(operation.pk)
    operation.refresh_from_db()
    assert operation.state == Operation.State.DONE, operation.error
    return operation


@pytest.fixture
def backup(row: Cluster, content: FakeContent) -> Backup:
    return Backup.objects.get(operation=finished(schedule.start(row, begin=False)))


def test_a_backup_and_its_pages(backup: Backup, operator: Client) -> None:
    assert (backup.messages, backup.queues.count(), backup.gone) == (30, 3, 0)
    listed = operator.get(LIST).content.decode()
    assert backup.name in listed
    assert "Recovery point" in listed
    page = operator.get(f"{LIST}of/{backup.name}/").content.decode()
    assert "invoices" in page
    assert "billing" in page
    assert operator.get(f"{LIST}of/no-such/").status_code == 404


def test_the_empty_list(row: Cluster, content: FakeContent, viewer: Client) -> None:
    page = viewer.get(LIST).content.decode()
    assert "nothing could be restored now" in page
    assert "Back up now" not in page


@pytest.mark.parametrize("address", ["new/", "schedule/", "definitions/", "of/{}/restore/", "of/{}/verify/"])
def test_a_viewer_may_do_none_of_it(backup: Backup, viewer: Client, address: str) -> None:
    assert viewer.get(LIST + address.format(backup.name)).status_code == 403
    assert viewer.post(LIST + address.format(backup.name)).status_code == 403


def test_backing_up_from_the_page(row: Cluster, content: FakeContent, operator: Client) -> None:
    answer = operator.post(f"{LIST}new/", {"reason": "before the release"})
    operation = finished(Operation.objects.get(kind="backup"))
    assert answer["Location"] == f"/clusters/local/operations/{operation.pk}/"
    assert operation.reason == "before the release"
    assert str(operation.who) == "the-operator"
    assert "30 messages of 3 queues" in operation.step


def test_restoring_needs_the_name_typed(backup: Backup, content: FakeContent, operator: Client) -> None:
    address = f"{LIST}of/{backup.name}/restore/"
    number = backup.queues.get(name="orders").number
    asked = {"what": "some", "queues": [number], "before": "old.", "definitions": "on"}
    assert "Show the plan" in operator.get(address).content.decode()
    shown = operator.post(address, asked)
    assert "10 messages" in shown.content.decode()
    assert "It can&#x27;t be undone" in shown.content.decode()
    assert operator.post(address, {**asked, "typed": "wrong"}).status_code == 409
    assert not Operation.objects.filter(kind="restore").exists()
    assert content.written == {}
    operator.post(address, {**asked, "typed": backup.cluster.name})
    operation = finished(Operation.objects.get(kind="restore"))
    assert content.written == {("/", "old.orders"): 10}
    assert operation.result["written"] == 10


def test_a_damaged_backup_is_said_to_be(backup: Backup, content: FakeContent, operator: Client) -> None:
    manifest = Path(Store().url) / backup.name / "manifest.json"
    manifest.write_text(manifest.read_text().replace("orders", "others"))
    answer = operator.post(f"{LIST}of/{backup.name}/restore/", {"what": "all", "definitions": "on"})
    assert answer.status_code == 409
    assert "changed after it was signed" in answer.content.decode()
    assert content.imports == 0


def test_verifying_is_a_task(
    backup: Backup,
    operator: Client,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(schedule, "_send", sent.append)
    assert "30 messages" in operator.get(f"{LIST}of/{backup.name}/verify/").content.decode()
    with django_capture_on_commit_callbacks(execute=True):
        operator.post(f"{LIST}of/{backup.name}/verify/")
    waiting = Operation.objects.get(kind="verify")
    assert sent == [waiting.pk]
    schedule.tick(waiting.created + timedelta(minutes=1))
    assert sent == [waiting.pk]
    schedule.tick(waiting.created + timedelta(minutes=3))  # the task was lost
    assert sent == [waiting.pk, waiting.pk]
    assert verify_backup.name == schedule.VERIFY


def test_definitions_are_downloaded(row: Cluster, content: FakeContent, operator: Client) -> None:
    answer = operator.get(f"{LIST}definitions/")
    assert answer["Content-Disposition"].startswith("attachment")
    assert answer.json()["users"][0]["name"] == "ann"


def test_a_schedule_from_its_form(row: Cluster, content: FakeContent, operator: Client) -> None:
    form = {"enabled": "on", "every": "60", "due": "2030-01-01 03:00"}
    kept = {"keep_daily": "7", "keep_weekly": "4", "keep_monthly": "0"}
    assert operator.post(f"{LIST}schedule/", {**form, **kept, "every": "0"}).status_code == 409
    operator.post(f"{LIST}schedule/", {**form, **kept})
    made = BackupSchedule.objects.get()
    assert (made.every, made.due.hour, made.keep_weekly) == (60, 3, 4)
    assert "every 60 minutes" in operator.get(LIST).content.decode()


def test_schedules_begin_miss_and_thin_out(row: Cluster, content: FakeContent) -> None:
    now = timezone.now()
    made = BackupSchedule.objects.create(
        cluster=row, every=60, due=now - timedelta(hours=5, minutes=1), created=now - timedelta(hours=5)
    )
    schedule.tick(now)
    made.refresh_from_db()
    assert now < made.due <= now + timedelta(hours=1)
    missed = Event.objects.get(kind=Event.Kind.NO_BACKUP, ended=None)
    assert "there is none yet" in missed.text
    first = finished(Operation.objects.get(kind="backup", state="confirmed"))
    schedule.tick(now + timedelta(minutes=1))
    missed.refresh_from_db()
    assert missed.ended is not None
    assert Operation.objects.filter(kind="backup").count() == 1

    BackupSchedule.objects.update(keep_daily=1, keep_weekly=0, keep_monthly=0)
    schedule.tick(now + timedelta(hours=1, minutes=5))
    finished(Operation.objects.get(kind="backup", state="confirmed"))
    schedule.tick(now + timedelta(hours=1, minutes=6))
    left = Backup.objects.get()
    assert left.operation != first
    assert Store().names() == [left.name]


def test_the_commands(row: Cluster, content: FakeContent, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("backup", "create", "--json")
    assert '"messages": 30' in capsys.readouterr().out
    name = Backup.objects.get().name
    call_command("backup", "list")
    assert f"{name}  complete  30 messages" in capsys.readouterr().out
    call_command("restore", name, "--queue", "/", "hello", "--prefix", "x.", "--json")
    assert '"written": 10' in capsys.readouterr().out
    assert content.written == {("/", "x.hello"): 10}
    call_command("backup", "delete", name)
    assert Store().names() == []


def test_the_consoles_own_queues_stay_out(row: Cluster, fake: FakeCluster, content: FakeContent) -> None:
    fake.put(Queue("/", "mqconsole", leader="node1", replicas=fake.queues["/", "hello"].replicas))
    operation = finished(schedule.start(row, begin=False))
    assert not operation.backup.queues.filter(name="mqconsole").exists()
