"""The files of a backup: compressed, perhaps encrypted, with their sizes and sums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import zstandard

from brokers.adapters.blocks import Block, BlockReader
from brokers.backups.digest import Digest
from brokers.backups.errors import BackupError
from brokers.backups.keys import Keys
from brokers.backups.manifest import MAX_RAW, File
from brokers.backups.store import Store

PART_BYTES: Final = 32 << 20
"""Bytes of messages after which a part is closed; a single message may be longer."""
LEVEL: Final = 3


def part_path(queue: int, part: int) -> str:
    """The name of a queue's file."""
    return f"queues/{queue:06}/{part:06}.mqb.zst"


def put(store: Store, keys: Keys, backup: str, path: str, raw: bytes, digest: Digest | None = None) -> File:
    """Compress, seal and store a file; its entry for the manifest."""
    packed = keys.seal(zstandard.ZstdCompressor(level=LEVEL).compress(raw), f"{backup}/{path}")
    store.write(backup, path, packed)
    return File(
        path=path,
        size=len(packed),
        raw=len(raw),
        sha256=hashlib.sha256(packed).hexdigest(),
        messages=digest.messages if digest else 0,
        digest=digest.hexdigest() if digest else "",
    )


def fetch(store: Store, backup: str, file: File) -> bytes:
    """A file as stored. Raises BackupError unless it is what the manifest says."""
    packed = store.read(backup, file.path, file.size)
    if len(packed) != file.size:
        raise BackupError(
            f"{file.path} of backup {backup} has {len(packed)} bytes, not {file.size}: it is cut off"
        )
    if hashlib.sha256(packed).hexdigest() != file.sha256:
        raise BackupError(f"{file.path} of backup {backup} was changed or damaged: its SHA-256 is another")
    return packed


def get(store: Store, keys: Keys, backup: str, file: File, *, encrypted: bool) -> bytes:
    """A file's content, checked on the way and never larger than its entry says."""
    packed = fetch(store, backup, file)
    if encrypted:
        packed = keys.unseal(packed, f"{backup}/{file.path}")
    try:
        if zstandard.frame_content_size(packed) != file.raw or file.raw > MAX_RAW:
            raise BackupError(f"{file.path} of backup {backup} would unpack to another size than it should")
        raw = zstandard.ZstdDecompressor().decompress(packed, max_output_size=file.raw)
    except zstandard.ZstdError as error:
        raise BackupError(f"{file.path} of backup {backup} can't be unpacked: {error}") from error
    if len(raw) != file.raw:
        raise BackupError(f"{file.path} of backup {backup} unpacks to {len(raw)} bytes, not {file.raw}")
    return raw


def blocks(raw: bytes, file: File) -> list[Block]:
    """The messages of a part. Raises BackupError when they are not what the manifest says."""
    reader = BlockReader()
    digest = Digest()
    try:
        found = reader.feed(raw)
        reader.finish()
    except ValueError as error:
        raise BackupError(f"{file.path} holds no sound messages: {error}") from error
    for block in found:
        digest.add(block)
    if digest.messages != file.messages or digest.hexdigest() != file.digest:
        raise BackupError(f"{file.path} holds other messages than its manifest says")
    return found


def groups(found: list[Block], most: int) -> Iterator[list[Block]]:
    """Blocks in a row of about ``most`` bytes together."""
    group: list[Block] = []
    size = 0
    for block in found:
        if group and size + len(block.data) > most:
            yield group
            group, size = [], 0
        group.append(block)
        size += len(block.data)
    if group:
        yield group
