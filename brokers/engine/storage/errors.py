"""What can go wrong with a node's log, each with what was wrong and what to do about it."""

from __future__ import annotations

from pathlib import Path


class StorageError(Exception):
    """Base of everything this package raises for reasons of its own."""


class FolderInUse(StorageError):
    """Another process has the log's folder open."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"the log in {folder} is in use by another process; stop that node first, or give this one "
            f"another data folder"
        )
        self.folder = folder


class UnsupportedFormat(StorageError):
    """A file was written by a newer release; it is refused as a whole and left as it is."""

    def __init__(self, path: Path, version: int, known: int) -> None:
        super().__init__(
            f"{path} has format version {version}, this release reads up to {known}; start the release that "
            f"wrote it (nothing was changed)"
        )
        self.path = path
        self.version = version


class DamagedRecord(StorageError):
    """A record's bytes on disk are not the ones that were written."""

    def __init__(self, group: int, index: int, path: Path, offset: int) -> None:
        super().__init__(
            f"entry {index} of group {group} is damaged: checksum failed in {path} at byte {offset}; this "
            f"replica has to be repaired from its peers"
        )
        self.group = group
        self.index = index
        self.path = path
        self.offset = offset


class LogFailed(StorageError):
    """The log takes no more records: a write or sync failed, and what reached the disk is unknown.

    Never retried: after a failed fsync the kernel may have dropped the pages and marked them clean, so a
    second fsync that succeeds proves nothing (Rebello et al., "Can Applications Recover from fsync
    Failures?", ATC 2020). The process has to exit and recover from what the disk holds.
    """

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"the log failed and takes no more records: {cause}; restart the node")
        self.cause = cause


class LogFull(StorageError):
    """There is no room for the records that wait. They stay queued, and are written once there is room."""

    def __init__(self, folder: Path, cause: OSError) -> None:
        super().__init__(f"no room for the log in {folder}: {cause}; free disk space, nothing was lost")
        self.folder = folder
        self.cause = cause


class LogClosed(StorageError):
    """The log was closed."""

    def __init__(self) -> None:
        super().__init__("the log is closed")
