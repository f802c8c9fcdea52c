"""Restore: definitions and messages of a backup come into a cluster, under their own or other names."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, ClassVar, Final

from brokers import models
from brokers.adapters.base import Cluster, QueueKey
from brokers.backups.keys import Keys
from brokers.backups.manifest import SavedQueue
from brokers.backups.parts import groups
from brokers.backups.reader import Archive, chosen
from brokers.backups.store import Store
from brokers.operations.base import Plan
from brokers.operations.long import Job, LongKind, Step
from brokers.templatetags.mq import size

GROUP_BYTES: Final = 4 << 20
"""Bytes of messages that are published and confirmed together."""


class Restore(LongKind):
    """Puts a backup back. Parameters: backup (its name), definitions (whether all of them are restored),
    queues ([[vhost, name], ...], None for all, [] for none), prefix (put before the queues' names)."""

    name: ClassVar[str] = "restore"
    title: ClassVar[str] = "Restore"

    def plan(self, row: models.Cluster, cluster: Cluster, params: Mapping[str, Any]) -> Plan:
        archive = Archive(Store(), params["backup"], Keys.load())
        manifest = archive.manifest
        queues = chosen(manifest, params.get("queues"))
        prefix = params.get("prefix", "")
        there = {queue.key: queue for queue in cluster.snapshot().queues}
        long = [queue.name for queue in queues if len(f"{prefix}{queue.name}".encode()) > 255]
        if long:
            return Plan(
                refusal=f"With this prefix the name of {long[0]} is longer than 255 bytes.",
                params=dict(params),
            )
        lines = []
        if params.get("definitions"):
            lines.append(
                "Virtual hosts, users, permissions, policies, exchanges, queues and bindings that are missing are "
                "made again. What is there stays as it is."
            )
        messages = sum(queue.messages for queue in queues)
        lines += [
            f"{messages:,} messages ({size(sum(queue.bytes for queue in queues))}) are published into "
            f"{len(queues):,} queues{f', whose names get {prefix} before them' if prefix else ''}.",
            "Each is marked by the header x-restored-from and counts as new: its time to live begins again.",
            "All files are checked before anything is written.",
        ]
        warnings = []
        full = [there[t] for q in queues if (t := _target(q, prefix)) in there and there[t].messages]
        if full:
            warnings.append(
                f"{len(full):,} of these queues hold messages now ({sum(q.messages for q in full):,}): what is "
                f"restored comes on top, also what is still there."
            )
        if any(t in there and there[t].consumers for q in queues if (t := _target(q, prefix))):
            warnings.append("Consumers are waiting: they get the restored messages at once.")
        if manifest.cluster_name != row.name or manifest.cluster_id != _uid(cluster):
            warnings.append(f"This backup was made of another cluster ({manifest.cluster_name}).")
        warnings.append("It can't be undone except by purging or deleting the queues.")
        return Plan(tuple(lines), tuple(warnings), params=dict(params))

    def steps(self, cluster: Cluster, job: Job) -> Generator[Step, None, dict[str, Any]]:
        archive = Archive(Store(), job.params["backup"], Keys.load())
        queues = chosen(archive.manifest, job.params.get("queues"))
        total = sum(queue.messages for queue in queues)
        cursor: dict[str, Any] = {
            "checked": 0, "definitions": None, "queue": 0, "part": 0, "group": 0,
            "written": 0, "refused": 0, "repeated": 0, **job.cursor,
        }  # fmt: skip
        files = [archive.manifest.definitions, *(part for queue in queues for part in queue.parts)]
        for file in files[cursor["checked"] :]:
            archive.check(file)
            cursor["checked"] += 1
            yield Step(dict(cursor), 0, total, 0, f"checking file {cursor['checked']:,} of {len(files):,}")
        if cursor["definitions"] is None:
            cursor["definitions"] = _define(cluster, archive, queues, job.params)
            yield Step(dict(cursor), 0, total, 0, "the definitions are there")
        unsure = job.unsure
        for index in range(cursor["queue"], len(queues)):
            for step in _fill(cluster, archive, queues[index], job, cursor, unsure):
                unsure = False
                yield Step(
                    dict(cursor),
                    cursor["written"] + cursor["refused"],
                    total,
                    step,
                    f"filling {queues[index].name}",
                )
            cursor.update(queue=index + 1, part=0, group=0)
        return self.so_far(cursor)

    def so_far(self, cursor: Mapping[str, Any]) -> dict[str, Any]:
        """Counts of messages, and what the definitions came to."""
        definitions = cursor.get("definitions") or {}
        return {
            "written": cursor.get("written", 0),
            "refused": cursor.get("refused", 0),
            "repeated": cursor.get("repeated", 0),
            "made": definitions.get("made", 0),
            "conflicts": definitions.get("conflicts", []),
        }

    def summary(self, result: Mapping[str, Any]) -> str:
        text = f"{result['written']:,} messages are back, {result['made']:,} definitions were made."
        if result["refused"]:
            text += f" {result['refused']:,} were refused by full queues."
        if result["repeated"]:
            text += f" Up to {result['repeated']:,} may be there twice, as the run was interrupted."
        if result["conflicts"]:
            text += (
                f" {len(result['conflicts']):,} definitions are there and different: {result['conflicts'][0]}"
            )
        return text


def _fill(
    cluster: Cluster, archive: Archive, queue: SavedQueue, job: Job, cursor: dict[str, Any], unsure: bool
) -> Generator[int, None, None]:
    """Publish a queue's messages from the cursor on; moves the cursor, and gives the count of each group."""
    content = cluster.content()
    target = _target(queue, job.params.get("prefix", ""))
    mark = f"{archive.manifest.name}:{queue.vhost}/{queue.name}"
    most = GROUP_BYTES
    for part in range(cursor["part"], len(queue.parts)):
        ready = list(groups(archive.part(queue.parts[part]), most))
        for number in range(cursor["group"], len(ready)):
            group = ready[number]
            count = sum(len(block.ends) for block in group)
            if unsure:
                cursor["repeated"] += count
                unsure = False
            written, refused = content.write(target, b"".join(block.encode() for block in group), mark)
            cursor["written"] += written
            cursor["refused"] += refused
            cursor.update(part=part, group=number + 1)
            yield count
        cursor.update(part=part + 1, group=0)


def _define(
    cluster: Cluster, archive: Archive, queues: list[SavedQueue], params: Mapping[str, Any]
) -> dict[str, Any]:
    """Make what is missing: all definitions if that is asked for, and the queues to be filled."""
    content = cluster.content()
    made, conflicts = 0, []
    prefix = params.get("prefix", "")
    if params.get("definitions"):
        found = content.import_definitions(archive.definitions())
        made, conflicts = sum(found.made.values()), list(found.conflicts)
    needed: dict[str, list[dict[str, Any]]] = {
        "vhosts": [{"name": vhost} for vhost in sorted({queue.vhost for queue in queues})],
        "queues": [
            {"vhost": vhost, "name": name, "durable": True, "arguments": dict(queue.arguments)}
            for queue in queues
            for vhost, name in (_target(queue, prefix),)
        ],
    }
    found = content.import_definitions(needed)
    return {"made": made + sum(found.made.values()), "conflicts": [*conflicts, *found.conflicts][:100]}


def _target(queue: SavedQueue, prefix: str) -> QueueKey:
    return queue.vhost, f"{prefix}{queue.name}"


def _uid(cluster: Cluster) -> str:
    return cluster.content().definitions()[0]
