"""What one simulated run is like; all of it follows from the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from brokers.engine.core.raft.types import Settings

FAULTS = (
    "crash",
    "pause",
    "cut",
    "partition",
    "slow_disk",
    "bad_disk",
    "damage",
    "wipe",
    "transfer",
    "members",
    "compact",
    "campaign",
    "stampede",
)


@dataclass(frozen=True)
class Options:
    """Times in seconds; rates are probabilities a message."""

    seed: int
    nodes: int
    voters: int
    groups: int
    duration: float
    drop: float
    duplicate: float
    fifo: bool
    delay: tuple[float, float]
    sync: tuple[float, float]
    fault_every: float
    faults: tuple[str, ...]
    propose_every: float
    turn: float
    silent: float
    compact_every: float
    codec: float
    settings: Settings

    @classmethod
    def of(cls, seed: int, faults: tuple[str, ...] | None = None) -> Options:
        """The options of ``seed``; ``faults``: these and no others."""
        rng = random.Random(f"options {seed}")
        nodes = rng.choice([3, 3, 3, 4, 5])
        quiet = rng.random() < 0.1
        small = rng.random() < 0.6
        timeout = rng.choice([0.15, 0.3, 0.5])
        settings = Settings(
            heartbeat=timeout / 5,
            election_timeout=timeout,
            retry=timeout,
            max_append_bytes=rng.choice([40, 200]) if small else 1 << 20,
            max_inflight_bytes=rng.choice([100, 1000]) if small else 16 << 20,
            max_inflight_messages=rng.choice([2, 8]) if small else 256,
            chunk_bytes=rng.choice([20, 100]) if small else 1 << 20,
            chunk_window=rng.choice([1, 3]),
        )
        wanted = tuple(fault for fault in FAULTS if rng.random() < 0.6)
        lossy = rng.random() < 0.5
        return cls(
            seed=seed,
            nodes=nodes,
            voters=rng.choice([nodes, min(3, nodes)]),
            groups=rng.choice([1, 1, 2, 3]),
            duration=rng.uniform(4.0, 8.0),
            drop=rng.choice([0.01, 0.05, 0.2]) if lossy else 0.0,
            duplicate=rng.choice([0.0, 0.05, 0.2]) if lossy else 0.0,
            fifo=not lossy or rng.random() < 0.3,
            delay=rng.choice([(0.0002, 0.001), (0.001, 0.01), (0.001, timeout / 8)]),
            sync=rng.choice([(0.0005, 0.002), (0.002, 0.02), (0.01, timeout / 3)]),
            fault_every=10.0 if quiet else rng.choice([0.1, 0.25, 0.5]),
            faults=wanted if faults is None else faults,
            propose_every=rng.choice([0.01, 0.03, 0.1]),
            turn=rng.choice([0.0, 0.001, 0.004]),
            silent=rng.choice([0.0, 0.3, 1.0]),
            compact_every=rng.choice([0.1, 0.5, 2.0]),
            codec=0.3,
            settings=settings,
        )
