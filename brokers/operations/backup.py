"""Back up: definitions and messages of a cluster as they were at one moment, while traffic goes on."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Mapping
from typing import Any, ClassVar

from django.utils import timezone

from brokers import models
from brokers.adapters.base import Cluster
from brokers.backups.errors import BackupError
from brokers.backups.keys import Keys
from brokers.backups.selection import wanted
from brokers.backups.store import Store
from brokers.backups.writer import Writer
from brokers.operations.base import Plan
from brokers.operations.long import Job, LongKind, Step
from brokers.templatetags.mq import size


class BackUp(LongKind):
    """Makes a backup. Parameters: queues ([[vhost, name], ...], None for all), scheduled."""

    name: ClassVar[str] = "backup"
    title: ClassVar[str] = "Back up"
    unit: ClassVar[str] = "bytes"

    def plan(self, row: models.Cluster, cluster: Cluster, params: Mapping[str, Any]) -> Plan:
        selection = params.get("queues")
        is_wanted = wanted(selection)
        store, keys = Store(), Keys.load()
        found = [queue for queue in cluster.snapshot().queues if is_wanted(queue)]
        kept = [queue for queue in found if queue.replicated]
        asked = {**params, "name": f"{row.slug}-{timezone.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"}
        if selection and len(found) < len(selection):
            return Plan(refusal="Some of these queues are not there any more.", params=asked)
        lines = [
            f"All definitions and {sum(queue.messages for queue in kept):,} messages of {len(kept):,} queues, "
            f"{size(sum(queue.bytes for queue in kept))} of bodies, go to {store.url}.",
            "It shows one moment: everything confirmed before it is in. Traffic goes on; followers are read.",
            "Every file has its SHA-256 in a signed manifest; "
            + (
                "all of it is encrypted."
                if keys.encrypting
                else "it is not encrypted (MQ_BACKUP_KEY is not set)."
            ),
        ]
        warnings = []
        if len(kept) < len(found):
            warnings.append(
                f"{len(found) - len(kept):,} queues live in the memory of one node and are not saved."
            )
        return Plan(tuple(lines), tuple(warnings), params=asked)

    def steps(self, cluster: Cluster, job: Job) -> Generator[Step, None, dict[str, Any]]:
        operation = models.Operation.objects.get(pk=job.pk)
        backup, _ = models.Backup.objects.get_or_create(
            operation=operation,
            defaults={
                "cluster": operation.cluster,
                "name": job.params["name"],
                "scheduled": bool(job.params.get("scheduled")),
            },
        )
        keys = Keys.load()
        if backup.cut is not None and backup.encrypted != (keys.encrypting is not None):
            raise BackupError(
                "MQ_BACKUP_KEY was set or taken away in the middle of this backup; make a new one"
            )
        total = None
        last = 0
        for done, note in Writer(cluster, backup, keys, Store()).steps(job.params.get("queues")):
            if total is None:
                kept = {queue.key: queue.bytes for queue in cluster.snapshot().queues}
                total = sum(kept.get((q.vhost, q.name), 0) for q in backup.queues.all())
            yield Step({"backup": backup.pk}, done, max(done, total), done - last, note)
            last = done
        return {
            "backup": backup.pk,
            "name": backup.name,
            "queues": backup.queues.count(),
            "messages": backup.messages,
            "bytes": backup.size,
            "stored": backup.stored,
            "gone": backup.gone,
            "seconds": round((timezone.now() - backup.created).total_seconds(), 1),
        }

    def summary(self, result: Mapping[str, Any]) -> str:
        text = (
            f"{result['messages']:,} messages of {result['queues']:,} queues are saved: "
            f"{size(result['bytes'])}, {size(result['stored'])} as stored."
        )
        if result["gone"]:
            text += f" {result['gone']:,} were settled and let go before they could be read."
        return text
