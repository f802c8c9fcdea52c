"""Reads a backup that was checked: its files, its definitions, its messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from brokers.adapters.blocks import Block
from brokers.adapters.content import Definitions
from brokers.backups.errors import BackupError
from brokers.backups.keys import Keys
from brokers.backups.manifest import File, Manifest, SavedQueue, read
from brokers.backups.parts import blocks, fetch, get
from brokers.backups.store import Store


class Archive:
    """One backup. Raises BackupError when its manifest can't be trusted."""

    def __init__(self, store: Store, name: str, keys: Keys) -> None:
        self.manifest: Manifest = read(store, name, keys)
        self._store = store
        self._keys = keys
        if self.manifest.encrypted and keys.encrypting is None:
            raise BackupError(f"backup {name} is encrypted: set MQ_BACKUP_KEY to the key it was made with")

    def check(self, file: File) -> None:
        """Raises BackupError unless the file is there, whole and unchanged."""
        fetch(self._store, self.manifest.name, file)

    def definitions(self) -> Definitions:
        """What was declared and set."""
        raw = self._get(self.manifest.definitions)
        try:
            found = json.loads(raw)
        except ValueError as error:
            raise BackupError(
                f"the definitions of backup {self.manifest.name} are damaged: {error}"
            ) from error
        if not isinstance(found, dict):
            raise BackupError(f"the definitions of backup {self.manifest.name} are no object")
        return found

    def part(self, file: File) -> list[Block]:
        """The messages of one file."""
        return blocks(self._get(file), file)

    def _get(self, file: File) -> bytes:
        encrypted = self.manifest.encrypted
        return get(self._store, self._keys, self.manifest.name, file, encrypted=encrypted)


def chosen(manifest: Manifest, selection: Sequence[Sequence[str]] | None) -> list[SavedQueue]:
    """The queues of a backup that are to be restored. Raises BackupError for one that isn't in it."""
    if selection is None:
        return list(manifest.queues)
    by_key = {(queue.vhost, queue.name): queue for queue in manifest.queues}
    found = []
    for vhost, name in selection:
        queue = by_key.get((vhost, name))
        if queue is None:
            raise BackupError(f"backup {manifest.name} has no queue {name!r} of vhost {vhost!r}")
        found.append(queue)
    return found


def recut(found: Iterator[Block], counts: Sequence[int]) -> Iterator[list[Block]]:
    """The same messages in groups of ``counts`` messages; fewer at the end when there are not enough."""
    rest: Block | None = None
    for count in counts:
        group: list[Block] = []
        left = count
        while left:
            block = rest or next(found, None)
            rest = None
            if block is None:
                break
            if len(block.ends) > left:
                block, rest = _split(block, left)
            group.append(block)
            left -= len(block.ends)
        yield group
    if rest is not None:
        yield [rest]
    for block in found:
        yield [block]


def _split(block: Block, count: int) -> tuple[Block, Block]:
    at = block.ends[count - 1]
    ends = [end - at for end in block.ends[count:]]
    return (
        Block(block.first, block.stamp, block.ends[:count], block.data[:at]),
        Block(block.first + count, block.stamp, ends, block.data[at:]),
    )
