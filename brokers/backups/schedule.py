"""Backups that are made by themselves: begun when due, missed with notice, thinned out."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final

from celery import current_app
from django.db import IntegrityError, transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from brokers.adapters.base import ClusterError
from brokers.backups.retention import expired
from brokers.backups.store import Store
from brokers.models import Backup, BackupSchedule, Cluster, Event, Operation
from brokers.operations import runner, worker
from brokers.operations.backup import BackUp

logger = logging.getLogger(__name__)

VERIFY: Final = "brokers.tasks.verify_backup"
RESEND: Final = timedelta(minutes=2)
"""A proof that has not begun after so long is asked for again."""
GRACE: Final = timedelta(minutes=15)
"""How much later than planned a backup may be complete before that is a problem."""


def tick(now: datetime | None = None) -> None:
    """Look at all schedules. Called every minute."""
    now = now or timezone.now()
    for row in BackupSchedule.objects.filter(enabled=True).select_related("cluster"):
        if row.due <= now:
            _begin(row, now)
        _notice(row, now)
        _thin_out(row)
    waiting = Operation.objects.filter(
        kind="verify", state=Operation.State.CONFIRMED, created__lt=now - RESEND
    )
    for pk in waiting.values_list("pk", flat=True):
        _send(pk)
    for event in Event.objects.filter(kind=Event.Kind.NO_BACKUP, ended__isnull=True):
        if not BackupSchedule.objects.filter(cluster=event.cluster, enabled=True).exists():
            event.ended = now
            event.save()


def start(
    cluster: Cluster,
    queues: list[list[str]] | None = None,
    *,
    who: object = None,
    scheduled: bool = False,
    reason: str = "",
    begin: bool = True,
) -> Operation:
    """Plan, confirm and (by a worker) begin a backup. Raises ClusterError when that can't be."""
    plan = BackUp().plan(cluster, cluster.adapter(), {"queues": queues, "scheduled": scheduled})
    if plan.refusal:
        raise ClusterError(plan.refusal)
    what = "the whole cluster" if queues is None else f"{len(queues)} queues"
    operation = runner.confirm(BackUp.name, cluster, what, plan, who=who, reason=reason)
    if begin:
        worker.start(operation)
    return operation


def prove(operation: Operation) -> None:
    """Have a worker run a confirmed proof. When no task can be sent, ``tick`` sends one later."""
    transaction.on_commit(lambda: _send(operation.pk))


def _send(pk: int) -> None:
    try:
        current_app.send_task(VERIFY, [pk], retry=False)
    except (OperationalError, OSError) as error:
        logger.warning("proof %d waits, no task can be sent: %s", pk, error)


def recovery_point(cluster: Cluster) -> datetime | None:
    """The moment that the newest complete backup of the whole cluster shows."""
    found = (
        cluster.backups.filter(completed__isnull=False, operation__params__queues=None)
        .order_by("-cut")
        .first()
    )
    return None if found is None else found.cut


def _begin(row: BackupSchedule, now: datetime) -> None:
    late = int((now - row.due) / timedelta(minutes=row.every))
    next_due = row.due + timedelta(minutes=row.every) * (late + 1)
    # Of two beats that look at once, one finds the row as it was.
    if not BackupSchedule.objects.filter(pk=row.pk, due=row.due).update(due=next_due):
        return
    if late:
        logger.warning("%d scheduled backups of %s were missed since %s", late, row.cluster, row.due)
    row.due = next_due
    try:
        start(row.cluster, scheduled=True)
    except ClusterError as error:
        logger.warning("the scheduled backup of %s did not begin: %s", row.cluster, error)


def _notice(row: BackupSchedule, now: datetime) -> None:
    """Open a problem when the newest complete backup is older than the schedule allows, close it when not."""
    newest = row.cluster.backups.filter(completed__isnull=False, scheduled=True).order_by("-cut").first()
    since = newest.cut if newest is not None and newest.cut is not None else row.created
    opened = Event.objects.filter(cluster=row.cluster, kind=Event.Kind.NO_BACKUP, ended__isnull=True).first()
    if now - since <= timedelta(minutes=row.every) + GRACE:
        if opened is not None:
            opened.ended = now
            opened.save()
        return
    if opened is not None:
        return
    last = f"the last one shows {since:%Y-%m-%d %H:%M} UTC" if newest is not None else "there is none yet"
    try:
        with transaction.atomic():
            Event.objects.create(
                cluster=row.cluster,
                kind=Event.Kind.NO_BACKUP,
                severity=Event.Severity.WARNING,
                subject="backups",
                text=f"No scheduled backup was completed in time ({row.every} minutes): {last}.",
            )
    except IntegrityError:
        logger.info("another process has noticed the missing backup of %s already", row.cluster)


def _thin_out(row: BackupSchedule) -> None:
    """Delete scheduled backups that are not to be kept, and what failed ones left behind."""
    done = list(row.cluster.backups.filter(completed__isnull=False, scheduled=True))
    gone: list[Backup] = expired(done, row.keep_daily, row.keep_weekly, row.keep_monthly)
    ended = (Operation.State.FAILED, Operation.State.CANCELLED)
    gone += row.cluster.backups.filter(completed__isnull=True, operation__state__in=ended)
    for backup in gone:
        try:
            delete(backup)
        except ClusterError as error:
            logger.warning("%s", error)


def delete(backup: Backup) -> None:
    """Remove a backup from the store and from the list. Raises BackupError when the store can't."""
    Store().delete(backup.name)
    backup.delete()
