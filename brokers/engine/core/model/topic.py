"""Topic matching by a trie of binding patterns.

A pattern is words separated by dots; ``*`` stands for exactly one word, ``#`` for zero or more
(AMQP 0-9-1, section 3.1.3.3). As in RabbitMQ, the empty key has no words at all, and ``a..b`` has an
empty word in its middle.

A key is matched by following all possible positions in the trie at once, word by word, as a
nondeterministic automaton is run. So the cost is bounded by (words of the key) * (nodes of the trie that
can be reached), whatever the patterns: a hostile ``#.a.#.a.#.a`` costs no more than its length.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T", bound=Hashable)


def split(key: str) -> list[str]:
    """The words of a routing key or pattern."""
    return key.split(".") if key else []


_NO_WORDS: dict[str, Any] = {}
_NO_TARGETS: dict[Any, int] = {}
"""What nodes without any share, and never write to: most nodes of a large trie have but one of the two."""


class _Node(Generic[T]):
    """A position in the trie: how it goes on, and the targets of patterns that end here."""

    __slots__ = ("any_word", "any_words", "loops", "targets", "words")

    def __init__(self, loops: bool = False) -> None:
        self.words: dict[str, _Node[T]] = _NO_WORDS
        self.any_word: _Node[T] | None = None
        self.any_words: _Node[T] | None = None
        self.loops = loops
        self.targets: dict[T, int] = _NO_TARGETS

    def child(self, word: str) -> _Node[T] | None:
        if word == "*":
            return self.any_word
        if word == "#":
            return self.any_words
        return self.words.get(word)

    def ensure(self, word: str) -> _Node[T]:
        node = self.child(word)
        if node is None:
            node = _Node(loops=word == "#")
            if word == "*":
                self.any_word = node
            elif word == "#":
                self.any_words = node
            elif self.words is _NO_WORDS:
                self.words = {word: node}
            else:
                self.words[word] = node
        return node

    def add(self, target: T) -> None:
        if self.targets is _NO_TARGETS:
            self.targets = {}
        self.targets[target] = self.targets.get(target, 0) + 1

    def drop(self, word: str) -> None:
        if word == "*":
            self.any_word = None
        elif word == "#":
            self.any_words = None
        else:
            del self.words[word]

    @property
    def empty(self) -> bool:
        return not (self.targets or self.words or self.any_word or self.any_words)


class TopicTrie(Generic[T]):
    """Patterns and their targets. One target may stand under one pattern several times; it counts them."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, pattern: str, target: T) -> None:
        node = self._root
        for word in split(pattern):
            node = node.ensure(word)
        node.add(target)

    def remove(self, pattern: str, target: T) -> None:
        """Take ``target`` off ``pattern`` once, and prune what leads nowhere.

        Raises ``KeyError`` when it does not stand there.
        """
        path: list[tuple[_Node[T], str]] = []
        node = self._root
        for word in split(pattern):
            path.append((node, word))
            below = node.child(word)
            if below is None:
                raise KeyError((pattern, target))
            node = below
        if node.targets[target] > 1:
            node.targets[target] -= 1
            return
        del node.targets[target]
        for above, word in reversed(path):
            if not node.empty:
                return
            above.drop(word)
            node = above

    def match(self, key: str) -> list[T]:
        """Targets whose patterns match ``key``; one that several patterns lead to stands once a pattern."""
        active: list[_Node[T]] = []
        _enter(self._root, active, set())
        for word in split(key):
            after: list[_Node[T]] = []
            loops: set[int] = set()
            for node in active:
                if node.loops:
                    _enter(node, after, loops)
                below = node.words.get(word)
                if below is not None:
                    _enter(below, after, loops)
                below = node.any_word
                if below is not None:
                    _enter(below, after, loops)
            if not after:
                return []
            active = after
        return [target for node in active for target in node.targets]

    @property
    def empty(self) -> bool:
        return self._root.empty

    def size(self) -> int:
        """How many nodes the trie has, its root included."""
        count, pending = 0, [self._root]
        while pending:
            node = pending.pop()
            count += 1
            pending.extend(node.words.values())
            pending.extend(below for below in (node.any_word, node.any_words) if below is not None)
        return count


def _enter(node: _Node[T], active: list[_Node[T]], loops: set[int]) -> None:
    """Put ``node`` among the active ones, and with it the ``#`` below it, which matches no word as well.

    Only nodes of ``#`` can be entered twice for one word (they loop, and their parents lead to them);
    ``loops`` has those entered already.
    """
    below: _Node[T] | None = node
    while below is not None:
        if below.loops:
            if id(below) in loops:
                return
            loops.add(id(below))
        active.append(below)
        below = below.any_words
