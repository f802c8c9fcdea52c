"""The part of the port that backups need: definitions, and the content of queues as raw messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brokers.adapters.base import QueueKey

Definitions = Mapping[str, Sequence[Mapping[str, Any]]]
"""As RabbitMQ lays them out: section -> items."""
Runs = Sequence[tuple[int, int]]
"""Stretches [first, end) of positions, ascending."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What of a queue is unsettled, as one replica knows it; ``group`` tells it from a namesake."""

    group: int
    runs: Runs
    next: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of the stream of blocks. To go on: from byte ``skip`` of the block at position ``at``.

    ``gone`` messages of those asked for were settled since, and are not kept any more.
    """

    data: bytes
    done: bool
    at: int
    skip: int
    gone: int


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import of definitions came to: counts by section, and what is there and different."""

    made: Mapping[str, int]
    kept: Mapping[str, int]
    conflicts: Sequence[str]


class Content(ABC):
    """Reads and writes whole queues. All methods raise ``ClusterError`` and its subclasses."""

    @abstractmethod
    def definitions(self) -> tuple[str, Definitions]:
        """The cluster's id and its definitions."""

    @abstractmethod
    def import_definitions(self, definitions: Definitions) -> Imported:
        """Make what is not there; what is there stays."""

    @abstractmethod
    def open(self, node: str, queues: Sequence[QueueKey]) -> list[Opened]:
        """What is unsettled of queues that have a replica on ``node``; it stays readable for a while."""

    @abstractmethod
    def ends(self, node: str, queues: Sequence[QueueKey]) -> dict[QueueKey, tuple[int, int]]:
        """Group, and the position that a message published now would get, of queues that ``node`` leads."""

    @abstractmethod
    def hold(self, node: str, positions: Mapping[QueueKey, int]) -> None:
        """Keep what is at and after ``positions`` readable on ``node`` for two more minutes."""

    @abstractmethod
    def read(self, node: str, queue: QueueKey, group: int, runs: Runs, skip: int) -> Chunk:
        """Messages from ``node``'s replica."""

    @abstractmethod
    def write(self, queue: QueueKey, data: bytes, mark: str | None) -> tuple[int, int]:
        """Publish blocks into a queue; how many messages it took and refused, once all are committed.

        ``mark`` is written into their header ``x-restored-from``. Raises ``OutcomeUnknown``.
        """
