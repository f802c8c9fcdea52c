"""How long a topic route takes with many bindings, and how that grows: ``python -m tests.bench.topic``.

Prints microseconds of processor time. No assertion: a number here says something only beside another one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from brokers.engine.core.model.topic import TopicTrie

REGIONS = [f"region{number}" for number in range(20)]
KINDS = [f"kind{number}" for number in range(50)]
BINDINGS = (100, 1_000, 10_000)
ROUTES = 20_000


def words(pick: random.Random) -> list[str]:
    return [
        pick.choice(REGIONS),
        pick.choice(KINDS),
        f"device{pick.randrange(2_000)}",
        f"v{pick.randrange(5)}",
    ]


def selective(pick: random.Random) -> str:
    """Mostly exact patterns, some with a star in one place, few ending in a hash."""
    chosen = words(pick)
    if pick.random() < 0.3:
        chosen[pick.randrange(4)] = "*"
    if pick.random() < 0.1:
        chosen[2:] = ["#"]
    return ".".join(chosen)


def greedy(pick: random.Random) -> str:
    """Hashes anywhere, the worst case for a trie."""
    chosen = words(pick)
    chosen[pick.randrange(4)] = "#"
    chosen[pick.randrange(4)] = pick.choice(["#", "*"])
    return ".".join(chosen)


def measure(bindings: int, pattern: Callable[[random.Random], str]) -> tuple[float, float, float]:
    """(microseconds a binding added, microseconds a route, targets a route)."""
    pick = random.Random(1)
    trie: TopicTrie[str] = TopicTrie()
    patterns = [pattern(pick) for _ in range(bindings)]
    begin = time.process_time()
    for number, one in enumerate(patterns):
        trie.add(one, f"queue{number}")
    added = time.process_time() - begin
    keys = [".".join(words(pick)) for _ in range(ROUTES)]
    found = 0
    begin = time.process_time()
    for key in keys:
        found += len(trie.match(key))
    spent = time.process_time() - begin
    return added / bindings * 1e6, spent / ROUTES * 1e6, found / ROUTES


def main() -> None:
    print(f"{'patterns':<10} {'bindings':>8} {'us/add':>8} {'us/route':>9} {'targets/route':>14}")
    for pattern in (selective, greedy):
        for bindings in BINDINGS:
            added, routed, targets = measure(bindings, pattern)
            print(f"{pattern.__name__:<10} {bindings:>8} {added:>8.2f} {routed:>9.2f} {targets:>14.2f}")


if __name__ == "__main__":
    main()
