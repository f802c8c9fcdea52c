"""Changes to the metadata are answered when every node in reach has applied them.

A client that has declared a queue through one node may use it through another at once, as in RabbitMQ, whose
nodes agree on topology before they answer. Reads stay local: it is the writer who waits, one round trip. A peer
that does not answer in time is not waited for again until it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from struct import Struct, error

ASK, ANSWER = 0, 1
PATIENCE = 0.25
"""Seconds a peer has to apply what a quorum has committed."""

_frame = Struct(">BQQ")


class Barrier:
    """``send(node, parts)`` hands a frame to a peer; ``peers()`` are those in reach."""

    def __init__(
        self,
        send: Callable[[int, Sequence[bytes]], bool],
        peers: Callable[[], Collection[int]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._send = send
        self._peers = peers
        self._loop = loop
        self._applied = 0
        self._newest = 0
        self._number = 0
        self._waiting: dict[int, tuple[set[int], Callable[[], None], asyncio.TimerHandle]] = {}
        """By number: who has not answered, who waits for it, and for how long."""
        self._asked: list[tuple[int, int, int]] = []
        """(index, node, number): questions of peers about what is not applied here yet."""
        self._slow: set[int] = set()

    def applying(self, index: int) -> None:
        """What is applied next; whoever waits because of it waits for peers to have this too."""
        self._newest = index

    def applied(self, index: int) -> None:
        """This node has applied the metadata up to ``index``."""
        self._applied = self._newest = index
        if self._asked:
            asked, self._asked = self._asked, []
            for item in asked:
                self._answer(*item)

    def wait(self, done: Callable[[], None]) -> None:
        """``done()`` when all peers in reach have applied what this node has."""
        awaited = {node for node in self._peers() if node not in self._slow}
        self._number += 1
        number = self._number
        for node in self._peers():
            self._send(node, [_frame.pack(ASK, number, self._newest)])
        if not awaited:
            done()
            return
        timer = self._loop.call_later(PATIENCE, self._give_up, number)
        self._waiting[number] = (awaited, done, timer)

    def _give_up(self, number: int) -> None:
        awaited, done, _ = self._waiting.pop(number)
        self._slow |= awaited
        done()

    def peer_down(self, node: int) -> None:
        """A peer is out of reach."""
        self._asked = [item for item in self._asked if item[1] != node]
        self._slow.discard(node)
        for number in list(self._waiting):
            self._answered(node, number)

    def receive(self, node: int, frame: bytes) -> None:
        """A frame of a peer. Raises ``ValueError`` when it is malformed."""
        try:
            kind, number, index = _frame.unpack(frame)
        except error as problem:
            raise ValueError(f"malformed barrier frame of {len(frame)} bytes") from problem
        if kind == ASK:
            self._answer(index, node, number)
        else:
            self._slow.discard(node)
            self._answered(node, number)

    def _answer(self, index: int, node: int, number: int) -> None:
        if index <= self._applied:
            self._send(node, [_frame.pack(ANSWER, number, index)])
        else:
            self._asked.append((index, node, number))

    def _answered(self, node: int, number: int) -> None:
        found = self._waiting.get(number)
        if found is None:
            return
        awaited, done, timer = found
        awaited.discard(node)
        if not awaited:
            del self._waiting[number]
            timer.cancel()
            done()
