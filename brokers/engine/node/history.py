"""What a queue retains, settled messages included: ranges of positions, and walking through them.

Reading is done from any replica's log, in slices, so that a walk through a long history leaves the node's loop
to its clients most of the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import NamedTuple

from brokers.engine.core.amqp.properties import decode_properties
from brokers.engine.core.model.entries import split
from brokers.engine.core.model.queue_state import QueueState
from brokers.engine.core.model.topic import TopicTrie
from brokers.engine.node.hosts import Host
from brokers.engine.node.targets import names

SLICE = 0.004
"""Seconds that a walk works before it lets others work for as long."""


class Kept(NamedTuple):
    """A retained message; ``stamp`` is when it was published, in milliseconds since 1970."""

    position: int
    stamp: int
    route: bytes
    header: bytes
    body: bytes


@dataclass(frozen=True)
class Filter:
    """Which messages are meant. ``routing_key`` is a topic pattern (``*`` one word, ``#`` any number of words),
    empty for all; ``headers`` are names and the values that they must have, compared as texts.
    """

    routing_key: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return not self.routing_key and not self.headers

    @cached_property
    def _pattern(self) -> TopicTrie[int]:
        trie: TopicTrie[int] = TopicTrie()
        trie.add(self.routing_key, 0)
        return trie

    def matches(self, route: bytes, header: bytes) -> bool:
        """Whether a message is meant."""
        if self.routing_key and not self._pattern.match(names(route)[1]):
            return False
        if not self.headers:
            return True
        given = decode_properties(header).headers or {}
        return all(name in given and as_text(given[name]) == value for name, value in self.headers.items())


def as_text(value: object) -> str:
    """A header's value as a filter compares it: ``true`` and ``false``, octets as UTF-8."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")
    return str(value)


def stamp_at(host: Host, position: int) -> int:
    """When the message at a retained position was published (ms). Raises ``LookupError``."""
    return host.read(host.state.index.find(position).entry).stamp


def position_at(host: Host, stamp: int) -> int:
    """The first retained position that was published at ``stamp`` (ms) or later; the next one if none was.

    Stamps are taken for ascending. Where a new leader's clock was behind its predecessor's, they are not quite.
    """
    state = host.state
    low, high = oldest(state), state.next_position
    before = None
    for mark in state.marks:
        if mark.stamp >= stamp:
            high = max(low, min(high, mark.position))
            break
        before = mark
    if before is not None:
        low = min(high, max(low, before.position))
    while low < high:
        _, base, size = state.index.find((low + high) // 2)
        if stamp_at(host, base) >= stamp:
            high = max(low, base)
        else:
            low = min(high, base + size)
    return low


def oldest(state: QueueState) -> int:
    """The oldest position that can be read."""
    return min(state.kept, state.next_position)


def count_settled(state: QueueState, first: int, end: int) -> int:
    """How many of the positions [first, end) are settled."""
    return end - first - sum(high - low for low, high in state.settled.gaps(first, end))


class Walk:
    """Goes through retained messages from ``position`` on, in order, up to ``end``.

    ``position``: all before it has been looked at. ``gone``: how many were let go before they were reached.
    """

    def __init__(self, host: Host, first: int, end: int, wanted: Filter) -> None:
        self.position = first
        self.end = end
        self.gone = 0
        self._host = host
        self._filter = wanted

    async def entries(self) -> AsyncIterator[list[Kept]]:
        """The messages meant, an entry of the log at a time. Entries without any give empty lists."""
        began = perf_counter()
        while self.position < self.end:
            kept = self._host.state.kept
            if kept > self.position:
                self.gone += min(kept, self.end) - self.position
                self.position = min(kept, self.end)
                continue
            yield self._entry()
            worked = perf_counter() - began
            if worked >= SLICE:
                await asyncio.sleep(worked)
                began = perf_counter()

    def _entry(self) -> list[Kept]:
        first = self.position
        entry, base, size = self._host.state.index.find(first)
        end = min(base + size, self.end)
        messages = self._host.read(entry)
        wanted = self._filter
        found = [
            Kept(position, messages.stamp, route, header, body)
            for position, (route, header, body) in enumerate(
                split(*messages.slice(first - base, end - base)), first
            )
            if wanted.matches(route, header)
        ]
        self.position = end
        return found
