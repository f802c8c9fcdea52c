"""Verify: a backup is proven by restoring it into a cluster made for that, and comparing what is there then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from django.conf import settings
from django.utils import timezone

from brokers import models
from brokers.adapters.base import Cluster, ClusterError, QueueKey
from brokers.adapters.blocks import Block, BlockReader
from brokers.adapters.content import Content
from brokers.adapters.scratch import scratch_cluster
from brokers.backups.digest import Digest
from brokers.backups.errors import BackupError
from brokers.backups.keys import Keys
from brokers.backups.manifest import SavedQueue
from brokers.backups.parts import groups
from brokers.backups.reader import Archive, recut
from brokers.backups.store import Store
from brokers.operations.base import Kind, Plan, Report
from brokers.templatetags.mq import size

GROUP_BYTES: Final = 4 << 20


class Verify(Kind):
    """Proves a backup. Parameter: backup (its name)."""

    name: ClassVar[str] = "verify"
    title: ClassVar[str] = "Verify"

    def plan(self, row: models.Cluster, cluster: Cluster, params: Mapping[str, Any]) -> Plan:
        manifest = Archive(Store(), params["backup"], Keys.load()).manifest
        lines = (
            f"All {len(manifest.files):,} files are checked, then a cluster of one node is started on free ports, "
            f"all definitions and {manifest.messages:,} messages ({size(manifest.bytes)}) are restored into it, "
            f"read back and compared. Afterwards it is removed.",
            "The running cluster is not touched. It needs as much free disk as the backup has messages.",
        )
        return Plan(lines, params=dict(params))

    def run(self, cluster: Cluster, params: Mapping[str, Any], report: Report) -> dict[str, Any]:
        rows = models.Backup.objects.filter(name=params["backup"])
        try:
            result = prove(params["backup"], report)
        except ClusterError as error:
            rows.update(problem=str(error), verified=None)
            raise
        rows.update(problem="", verified=timezone.now())
        return result

    def summary(self, result: Mapping[str, Any]) -> str:
        return (
            f"Proven: {result['messages']:,} messages of {result['queues']:,} queues and "
            f"{result['definitions']:,} definitions came back exactly as they were."
        )


def prove(name: str, report: Report) -> dict[str, Any]:
    """Restore a backup elsewhere and compare. Raises BackupError for any difference."""
    archive = Archive(Store(), name, Keys.load())
    manifest = archive.manifest
    for number, file in enumerate(manifest.files, 1):
        archive.check(file)
        report(20 * number // len(manifest.files), f"checking file {number:,} of {len(manifest.files):,}")
    definitions = archive.definitions()
    with scratch_cluster(settings.MQ_HOME / "verify") as scratch:
        content = scratch.content()
        found = content.import_definitions(definitions)
        if found.conflicts:
            raise BackupError(f"the definitions of backup {name} can't all be made: {found.conflicts[0]}")
        _, made = content.definitions()
        for section, rows in definitions.items():
            missing = [row for row in rows if row not in made[section] and section != "users"]
            if missing or len(made[section]) < len(rows):
                raise BackupError(f"definitions of backup {name} did not come back: {section} {missing[:1]}")
        done = 0
        for number, queue in enumerate(manifest.queues, 1):
            # Plain queues in a vhost of their own: nothing expires there, is dropped, or goes elsewhere.
            target = (VHOST, f"{number:06}")
            percent = 20 + 79 * done // max(1, manifest.messages)
            for note in _prove_queue(content, archive, queue, target):
                report(percent, note)
            done += queue.messages
    return {
        "queues": len(manifest.queues),
        "messages": manifest.messages,
        "bytes": manifest.bytes,
        "definitions": sum(len(rows) for rows in definitions.values()),
    }


VHOST: Final = "mqconsole-verify"


def _prove_queue(content: Content, archive: Archive, queue: SavedQueue, target: QueueKey) -> Iterator[str]:
    """Restore one queue and read it back; says after each part how far it is.

    Raises BackupError for any difference.
    """
    rows = {"vhosts": [{"name": VHOST}], "queues": [{"vhost": target[0], "name": target[1]}]}
    content.import_definitions(rows)
    for part in queue.parts:
        for group in groups(archive.part(part), GROUP_BYTES):
            _, refused = content.write(target, b"".join(block.encode() for block in group), None)
            if refused:
                raise BackupError(f"{refused} messages of {part.path} were refused")
        yield f"{queue.name}: {part.path} is restored"
    counts = [part.messages for part in queue.parts]
    digests = []
    for group in recut(_read_back(content, target), counts):
        digest = Digest()
        for block in group:
            digest.add(block)
        digests.append((digest.messages, digest.hexdigest()))
        yield f"{queue.name}: {len(digests):,} of {len(counts):,} parts are read back"
    if digests != [(part.messages, part.digest) for part in queue.parts]:
        raise BackupError(f"queue {queue.name!r} of vhost {queue.vhost!r} did not come back as it was saved")


def _read_back(content: Content, target: QueueKey) -> Iterator[Block]:
    opened = content.open("node1", [target])[0]
    runs = list(opened.runs)
    reader = BlockReader()
    skip = 0
    while runs:
        chunk = content.read("node1", target, opened.group, runs, skip)
        yield from reader.feed(chunk.data)
        if chunk.done:
            return
        skip = chunk.skip
        runs = [(max(first, chunk.at), end) for first, end in runs if end > chunk.at]
