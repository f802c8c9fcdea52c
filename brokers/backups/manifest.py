"""A backup's table of contents: every file with its size and SHA-256, signed as a whole.

Nothing of a backup is used before its manifest is: a signature by another key, another format, a name this
program would not have made or a size beyond its limits end the reading there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from brokers.backups.errors import BackupError
from brokers.backups.keys import Keys
from brokers.backups.store import FILE, Store

FORMAT: Final = 1
FILE_NAME: Final = "manifest.json"
MAX_MANIFEST: Final = 256 << 20
MAX_RAW: Final = 512 << 20
"""Bytes that a file may unpack to; parts are cut at far fewer."""
DEFINITIONS: Final = "definitions.json.zst"


@dataclass(frozen=True, slots=True)
class File:
    """One file: bytes as stored and unpacked, SHA-256 as stored, and the messages in it with their digest."""

    path: str
    size: int
    raw: int
    sha256: str
    messages: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class SavedQueue:
    """One queue: how it was declared, what of it was saved, from which node."""

    vhost: str
    name: str
    arguments: Mapping[str, Any]
    messages: int
    bytes: int
    gone: int
    node: str
    parts: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds. Times in seconds since the epoch."""

    name: str
    cluster_id: str
    cluster_name: str
    began: float
    cut: float
    ended: float
    encrypted: bool
    definitions: File
    queues: tuple[SavedQueue, ...] = ()
    format: int = field(default=FORMAT)

    @property
    def messages(self) -> int:
        """In all queues."""
        return sum(queue.messages for queue in self.queues)

    @property
    def bytes(self) -> int:
        """Unpacked, of all messages with their properties."""
        return sum(queue.bytes for queue in self.queues)

    @property
    def files(self) -> list[File]:
        """All files beside the manifest."""
        return [self.definitions, *(part for queue in self.queues for part in queue.parts)]

    @property
    def stored(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def write(self, store: Store, keys: Keys) -> None:
        """The last file of a backup: with it, it is one."""
        content = _canonical(asdict(self))
        text = json.dumps({"key": keys.id, "signature": keys.sign(content), "manifest": json.loads(content)})
        store.write(self.name, FILE_NAME, text.encode())


def read(store: Store, name: str, keys: Keys) -> Manifest:
    """The manifest of a backup, checked. Raises BackupError when it is damaged, foreign or newer."""
    raw = store.read(name, FILE_NAME, MAX_MANIFEST)
    try:
        outer = json.loads(raw)
        key, signature, content = outer["key"], outer["signature"], outer["manifest"]
        version = content["format"]
        if not isinstance(version, int) or not isinstance(signature, str):
            raise TypeError("format or signature is of a wrong type")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BackupError(f"the manifest of backup {name} is damaged: {error}") from error
    if version > FORMAT:
        raise BackupError(
            f"backup {name} is of format {version}, written by a newer release; this one reads {FORMAT}"
        )
    if key != keys.id:
        raise BackupError(
            f"backup {name} was signed with another key (it is {str(key)[:16]}, this console's {keys.id}): set "
            f"MQ_BACKUP_KEY (or MQ_SECRET_KEY) to what it was where the backup was made"
        )
    if not keys.signed(_canonical(content), signature):
        raise BackupError(f"the manifest of backup {name} was changed after it was signed")
    try:
        manifest = _parse(content)
    except (KeyError, TypeError, ValueError) as error:
        raise BackupError(f"the manifest of backup {name} is not understood: {error}") from error
    if manifest.name != name:
        raise BackupError(f"the manifest in {name} belongs to backup {manifest.name!r:.100}")
    return manifest


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _parse(content: Mapping[str, Any]) -> Manifest:
    queues = tuple(
        SavedQueue(**{**queue, "parts": tuple(_file(part) for part in queue["parts"])})
        for queue in content["queues"]
    )
    return Manifest(**{**content, "definitions": _file(content["definitions"]), "queues": queues})


def _file(content: Mapping[str, Any]) -> File:
    file = File(**content)
    if not FILE.fullmatch(file.path) or file.path == FILE_NAME:
        raise ValueError(f"{file.path!r:.100} is no file of a backup")
    if not 0 <= file.raw <= MAX_RAW or not 0 <= file.size <= MAX_RAW + (1 << 20):
        raise ValueError(f"{file.path} has a size beyond the limit of {MAX_RAW} bytes")
    return file
