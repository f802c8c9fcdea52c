"""Where backups lie: a folder, or whatever else fsspec knows (``s3://bucket/folder`` needs ``mqconsole[s3]``).

Names are made by this program and never taken from an archive, so nothing leaves the store's root.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final

import fsspec
from django.conf import settings

from brokers.backups.errors import BackupError

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")
FILE: Final = re.compile(r"manifest\.json|definitions\.json\.zst|queues/[0-9]{6}/[0-9]{6}\.mqb\.zst")


class Store:
    """The backups under one address. All methods raise BackupError for what the storage can't do."""

    def __init__(self, url: str | None = None) -> None:
        self.url = url or settings.MQ_BACKUPS
        try:
            filesystem, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError, OSError) as error:
            raise BackupError(f"backups can't be kept at {self.url}: {error}") from error
        self._files: Any = filesystem
        self._root: str = root.rstrip("/")
        self._local = "file" in (
            filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,)
        )

    def write(self, name: str, file: str, data: bytes) -> None:
        """Write one file of the backup ``name``, whole and (in a folder) safe from a power cut."""
        path = self._path(name, file)
        try:
            if not self._local:
                self._files.pipe_file(path, data)
                return
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(target.name + ".part")
            with open(partial, "wb", opener=_private) as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(target)
        except OSError as error:
            raise BackupError(f"{file} of backup {name} can't be written: {error}") from error

    def read(self, name: str, file: str, most: int) -> bytes:
        """One file of a backup, of at most ``most`` bytes."""
        try:
            with self._files.open(self._path(name, file), "rb") as stream:
                data: bytes = stream.read(most + 1)
        except FileNotFoundError:
            raise BackupError(f"{file} of backup {name} is missing in {self.url}") from None
        except OSError as error:
            raise BackupError(f"{file} of backup {name} can't be read: {error}") from error
        if len(data) > most:
            raise BackupError(f"{file} of backup {name} is longer than {most} bytes")
        return data

    def names(self) -> list[str]:
        """The backups that are complete, by name."""
        try:
            if not self._files.exists(self._root):
                return []
            found = [path.rstrip("/").rsplit("/", 1)[-1] for path in self._files.ls(self._root, detail=False)]
            return sorted(
                n for n in found if NAME.fullmatch(n) and self._files.exists(self._path(n, "manifest.json"))
            )
        except OSError as error:
            raise BackupError(f"the backups in {self.url} can't be listed: {error}") from error

    def delete(self, name: str) -> None:
        """Remove a backup: the manifest first, so that half a backup never looks like one."""
        try:
            if self._files.exists(self._path(name, "manifest.json")):
                self._files.rm_file(self._path(name, "manifest.json"))
            if self._files.exists(self._folder(name)):
                self._files.rm(self._folder(name), recursive=True)
        except OSError as error:
            raise BackupError(f"backup {name} can't be deleted: {error}") from error

    def _folder(self, name: str) -> str:
        if not NAME.fullmatch(name):
            raise BackupError(f"{name!r:.100} is no name of a backup")
        return f"{self._root}/{name}"

    def _path(self, name: str, file: str) -> str:
        if not FILE.fullmatch(file):
            raise BackupError(f"{file!r:.100} is no file of a backup")
        return f"{self._folder(name)}/{file}"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
