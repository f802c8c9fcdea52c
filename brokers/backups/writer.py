"""Writes a backup in steps; whatever is finished stands in the database, so that any process can go on."""

from __future__ import annotations

import json
import time
from array import array
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from django.utils import timezone

from brokers.adapters.base import (
    Cluster,
    ClusterError,
    ClusterUnavailable,
    NotFound,
    OutcomeUnknown,
    QueueKey,
)
from brokers.adapters.blocks import Block, BlockReader
from brokers.adapters.content import Chunk, Content
from brokers.backups.cut import cut
from brokers.backups.digest import Digest
from brokers.backups.keys import Keys
from brokers.backups.manifest import DEFINITIONS, File, Manifest, SavedQueue
from brokers.backups.parts import PART_BYTES, part_path, put
from brokers.backups.selection import wanted
from brokers.backups.store import Store
from brokers.models import Backup, BackupQueue

AHEAD: Final = 2
"""Parts that are compressed and stored while the next are read."""
RENEW: Final = 30.0
"""Seconds after which the queues still to be read are asked to keep what they have."""


class Writer:
    """Makes the backup of one row. ``steps`` yields (bytes done, a word on it) after all that is finished."""

    def __init__(self, cluster: Cluster, backup: Backup, keys: Keys, store: Store) -> None:
        self._cluster = cluster
        self._content: Content = cluster.content()
        self._backup = backup
        self._keys = keys
        self._store = store
        self._renewed = time.monotonic()

    def steps(self, selection: list[list[str]] | None) -> Iterator[tuple[int, str]]:
        """Go on from what the rows say. ``selection``: the queues, as [vhost, name]; None for all."""
        if self._backup.cut is None:
            self._cut(selection)
            yield 0, "the cut is made"
        done = sum(self._backup.queues.values_list("size", flat=True))
        with ThreadPoolExecutor(AHEAD) as pool:
            for queue in self._backup.queues.filter(done=False):
                for size in self._queue(queue, pool):
                    done += size
                    yield done, f"saving {queue}"
        self._finish()

    def _cut(self, selection: list[list[str]] | None) -> None:
        backup = self._backup
        backup.queues.all().delete()
        found, made = cut(self._cluster, self._content, wanted(selection))
        uid, definitions = self._content.definitions()
        raw = json.dumps(definitions).encode()
        file = put(self._store, self._keys, backup.name, DEFINITIONS, raw)
        BackupQueue.objects.bulk_create(
            BackupQueue(
                backup=backup,
                number=number,
                vhost=item.queue.vhost,
                name=item.queue.name,
                arguments=item.queue.arguments,
                group=item.group,
                nodes=list(item.nodes),
                runs=_pack([position for run in item.runs for position in run]),
            )
            for number, item in enumerate(found, 1)
        )
        backup.definitions = asdict(file)
        backup.cluster_uid = uid
        backup.encrypted = self._keys.encrypting is not None
        backup.cut = datetime.fromtimestamp(made, UTC)
        backup.save()

    def _queue(self, row: BackupQueue, pool: ThreadPoolExecutor) -> Iterator[int]:
        """Read one queue; gives the bytes of each part once it is stored and written down."""
        pending: deque[tuple[Future[File], list[int], int, int]] = deque()
        parts = self._parts(row)
        number = len(row.parts)
        over = False
        while not over or pending:
            while not over and len(pending) <= AHEAD:
                part = next(parts, None)
                if part is None:
                    over = True
                    break
                blocks, left, gone = part
                number += 1
                path = part_path(row.number, number)
                size = sum(len(block.data) for block in blocks)
                pending.append((pool.submit(self._put, path, blocks), left, gone, size))
            if pending:
                future, left, gone, size = pending.popleft()
                file = future.result()
                row.parts.append(asdict(file))
                row.runs, row.gone = _pack(left), row.gone + gone
                row.messages += file.messages
                row.size += size
                row.save(update_fields=["parts", "runs", "gone", "messages", "size"])
                yield size
        row.done = True
        row.runs = b""
        row.save(update_fields=["done", "runs"])

    def _put(self, path: str, blocks: list[Block]) -> File:
        digest = Digest()
        for block in blocks:
            digest.add(block)
        raw = b"".join(block.encode() for block in blocks)
        return put(self._store, self._keys, self._backup.name, path, raw, digest)

    def _parts(self, row: BackupQueue) -> Iterator[tuple[list[Block], list[int], int]]:
        """The queue's messages in parts: blocks, the positions left after them, how many were gone."""
        runs = _unpack(row.runs)
        reader = BlockReader()
        found: list[Block] = []
        size = gone = skip = 0
        at_part = runs
        over = not runs
        while not over:
            chunk = self._read(row, runs, skip)
            gone += chunk.gone
            over, skip = chunk.done, chunk.skip
            runs = _after(runs, chunk.at)
            for block in reader.feed(chunk.data):
                found.append(block)
                size += len(block.data)
                if size >= PART_BYTES:
                    at_part = _after(at_part, block.first + len(block.ends))
                    yield found, at_part, gone
                    found, size, gone = [], 0, 0
        reader.finish()
        if found or gone:
            yield found, [], gone

    def _read(self, row: BackupQueue, runs: list[int], skip: int) -> Chunk:
        """From the first replica that answers; which one that is stays first."""
        self._renew()
        pairs = list(zip(runs[0::2], runs[1::2], strict=True))
        nodes: list[str] = list(row.nodes)
        trouble: ClusterError = ClusterUnavailable(f"no node has queue {row}")
        for node in nodes:
            try:
                chunk = self._content.read(node, (row.vhost, row.name), row.group, pairs, skip)
            except (ClusterUnavailable, OutcomeUnknown, NotFound) as error:
                trouble = error
            else:
                row.nodes = [node, *(other for other in nodes if other != node)]
                return chunk
        raise trouble

    def _renew(self) -> None:
        now = time.monotonic()
        if now - self._renewed < RENEW:
            return
        self._renewed = now
        by_node: dict[str, dict[QueueKey, int]] = defaultdict(dict)
        for row in self._backup.queues.filter(done=False):
            if row.runs:
                by_node[row.nodes[0]][row.vhost, row.name] = _unpack(row.runs)[0]
        for node, positions in by_node.items():
            # A node that is down keeps all it has; what its queues still hold is seen when they are read.
            with suppress(ClusterError):
                self._content.hold(node, positions)

    def _finish(self) -> None:
        backup = self._backup
        queues = list(backup.queues.all())
        assert backup.cut is not None  # noqa: S101  made before anything was read
        manifest = Manifest(
            name=backup.name,
            cluster_id=backup.cluster_uid,
            cluster_name=backup.cluster.name,
            began=backup.created.timestamp(),
            cut=backup.cut.timestamp(),
            ended=time.time(),
            encrypted=backup.encrypted,
            definitions=File(**backup.definitions),
            queues=tuple(_saved(queue) for queue in queues),
        )
        manifest.write(self._store, self._keys)
        backup.messages = manifest.messages
        backup.size, backup.stored = manifest.bytes, manifest.stored
        backup.gone = sum(queue.gone for queue in queues)
        backup.completed = timezone.now()
        backup.save()


def _saved(row: BackupQueue) -> SavedQueue:
    return SavedQueue(
        vhost=row.vhost,
        name=row.name,
        arguments=row.arguments,
        messages=row.messages,
        bytes=row.size,
        gone=row.gone,
        node=row.nodes[0] if row.nodes else "",
        parts=tuple(File(**part) for part in row.parts),
    )


def _after(runs: list[int], position: int) -> list[int]:
    """What of ``runs`` is left from ``position`` on."""
    return [
        value
        for first, end in zip(runs[0::2], runs[1::2], strict=True)
        if end > position
        for value in (max(first, position), end)
    ]


def _pack(values: list[int]) -> bytes:
    return array("Q", values).tobytes()


def _unpack(data: Any) -> list[int]:
    return array("Q", bytes(data)).tolist()
