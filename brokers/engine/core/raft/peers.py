"""What a node knows of another node: is it alive, does it hear us, and which groups bind the two."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

_MASK = (1 << 64) - 1


def mix(group: int, term: int) -> int:
    """A 64-bit hash of (group, term), made so that sums of them differ whenever the sets do (splitmix64)."""
    z = (group * 0x9E3779B97F4A7C15 + term * 0xD1B54A32D192ED03 + 0x8BB84B93962EACC9) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class Beliefs:
    """A set of (group, term) claims of leadership and its digest, kept up to date in constant time."""

    __slots__ = ("_terms", "digest")

    def __init__(self) -> None:
        self._terms: dict[int, int] = {}
        self.digest = 0

    def __iter__(self) -> Iterator[int]:
        return iter(self._terms)

    def __len__(self) -> int:
        return len(self._terms)

    def __contains__(self, group: int) -> bool:
        return group in self._terms

    def term(self, group: int) -> int | None:
        """The term claimed for ``group``, None when none is."""
        return self._terms.get(group)

    def add(self, group: int, term: int) -> None:
        """``group`` is led in ``term``; an earlier claim for it is replaced."""
        self.discard(group)
        self._terms[group] = term
        self.digest = (self.digest + mix(group, term)) & _MASK

    def discard(self, group: int) -> None:
        """``group`` is not led (any more)."""
        term = self._terms.pop(group, None)
        if term is not None:
            self.digest = (self.digest - mix(group, term)) & _MASK


class Peer:
    """Another node.

    ``follows``: groups we believe it leads and we are member of (``strangers`` among them are not on this
    node, or not yet). ``leads``: groups we lead that it is member of. ``alive``: its heartbeats are heard.
    ``answers``: it answers ours. ``reachable``: worth sending appends to. ``news``: groups whose commit it
    has not heard of.
    """

    __slots__ = (
        "_beats",
        "alive",
        "answered_at",
        "answers",
        "ask_after",
        "ask_wait",
        "boot",
        "follows",
        "groups",
        "heard_at",
        "leads",
        "mismatches",
        "news",
        "node",
        "reachable",
        "reachable_since",
        "seq",
        "strangers",
    )

    def __init__(self, node: int, now: float) -> None:
        self.node = node
        self.boot = 0
        self.groups = 0
        self.follows = Beliefs()
        self.strangers: set[int] = set()
        self.leads = Beliefs()
        self.alive = False
        self.heard_at = now
        self.answers = False
        self.answered_at = -1e9
        self.reachable = True
        self.reachable_since = now
        self.news: dict[int, None] = {}
        self.seq = 0
        self._beats: deque[tuple[int, float, list[tuple[int, int, int]]]] = deque(maxlen=64)
        self.mismatches = 0
        self.ask_after = 0.0
        self.ask_wait = 0.0

    def beat(self, now: float, commits: list[tuple[int, int, int]]) -> int:
        """A heartbeat goes out; returns its number."""
        self.seq += 1
        self._beats.append((self.seq, now, commits))
        return self.seq

    def answered(self, seq: int) -> list[tuple[int, int, int]]:
        """The peer heard us when heartbeat ``seq`` was sent. Returns the commits that it told."""
        for number, sent_at, commits in self._beats:
            if number == seq:
                self.answered_at = max(self.answered_at, sent_at)
                return commits
        return []

    def forget_beats(self) -> None:
        """Answers to earlier heartbeats mean nothing any more (another process answers)."""
        self._beats.clear()
        self.answered_at = -1e9
        self.answers = False
