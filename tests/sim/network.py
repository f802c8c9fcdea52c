"""A network that drops, duplicates, reorders, delays and cuts, in one direction or in both."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from brokers.engine.core.raft.codec import decode, encode
from brokers.engine.core.raft.messages import Message

if TYPE_CHECKING:
    from tests.sim.world import World


class Network:
    """Carries messages between the nodes of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = random.Random(f"network {world.options.seed}")
        self.cuts: set[tuple[int, int]] = set()
        self.reliable = False
        self._latest: dict[tuple[int, int], float] = {}

    def send(self, source: int, target: int, message: Message) -> None:
        """``source`` says ``message`` to ``target``."""
        options, rng = self._world.options, self._rng
        if target not in self._world.nodes or (source, target) in self.cuts:
            return
        if not self.reliable and options.drop and rng.random() < options.drop:
            return
        if rng.random() < options.codec:
            message = decode(b"".join(encode(message)))
        self._schedule(source, target, message)
        if not self.reliable and options.duplicate and rng.random() < options.duplicate:
            self._schedule(source, target, message)

    def _schedule(self, source: int, target: int, message: Message) -> None:
        options, rng = self._world.options, self._rng
        when = self._world.clock.now + rng.uniform(*options.delay)
        if not options.fifo and rng.random() < 0.02:
            when += rng.uniform(0, 1.0)
        if options.fifo:
            when = self._latest[source, target] = max(when, self._latest.get((source, target), 0.0) + 1e-6)
        self._world.clock.at(when, self._arrive, source, target, message)

    def _arrive(self, source: int, target: int, message: Message) -> None:
        if (source, target) not in self.cuts:
            self._world.nodes[target].deliver(source, message)
