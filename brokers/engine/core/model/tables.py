"""How each exchange type finds the destinations of a message: one binding table a type.

A table holds the bindings of one exchange and answers ``match``. Destinations may come out more than once
(two bindings may lead to one queue); whoever routes takes each once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Protocol

from brokers.engine.core.model.arguments import Arguments, type_class
from brokers.engine.core.model.delayed import DELAYED_MESSAGE, DELAYED_TYPE, DelayedTable
from brokers.engine.core.model.hashing import CONSISTENT_HASH, ConsistentHashTable
from brokers.engine.core.model.topic import TopicTrie
from brokers.engine.core.model.topology import Binding, BindingKey, Destination

Headers = Callable[[], Mapping[str, object]]
"""Gives a message's headers; called only when a binding needs them."""


class Table(Protocol):
    """The bindings of one exchange."""

    @property
    def needs_headers(self) -> bool:
        """Whether ``match`` looks at more than the routing key."""

    def add(self, binding: Binding) -> None: ...

    def remove(self, binding: Binding) -> None: ...

    def match(self, routing_key: str, headers: Headers) -> Iterable[Destination]: ...


class _Counted:
    """Destinations, each with how many bindings lead to it."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[Destination, int] = {}

    def add(self, target: Destination) -> None:
        self._counts[target] = self._counts.get(target, 0) + 1

    def remove(self, target: Destination) -> None:
        if self._counts[target] > 1:
            self._counts[target] -= 1
        else:
            del self._counts[target]

    def targets(self) -> Iterable[Destination]:
        return self._counts.keys()

    @property
    def empty(self) -> bool:
        return not self._counts


class DirectTable:
    """direct: the routing key equals the binding key."""

    needs_headers: ClassVar[bool] = False

    def __init__(self) -> None:
        self._keys: dict[str, _Counted] = {}

    def add(self, binding: Binding) -> None:
        self._keys.setdefault(binding.routing_key, _Counted()).add(binding.target)

    def remove(self, binding: Binding) -> None:
        counted = self._keys[binding.routing_key]
        counted.remove(binding.target)
        if counted.empty:
            del self._keys[binding.routing_key]

    def match(self, routing_key: str, headers: Headers) -> Iterable[Destination]:
        counted = self._keys.get(routing_key)
        return counted.targets() if counted is not None else ()


class FanoutTable:
    """fanout: everything matches."""

    needs_headers: ClassVar[bool] = False

    def __init__(self) -> None:
        self._all = _Counted()

    def add(self, binding: Binding) -> None:
        self._all.add(binding.target)

    def remove(self, binding: Binding) -> None:
        self._all.remove(binding.target)

    def match(self, routing_key: str, headers: Headers) -> Iterable[Destination]:
        return self._all.targets()


class TopicTable:
    """topic: the binding key is a pattern over the words of the routing key."""

    needs_headers: ClassVar[bool] = False

    def __init__(self) -> None:
        self._trie: TopicTrie[Destination] = TopicTrie()

    def add(self, binding: Binding) -> None:
        self._trie.add(binding.routing_key, binding.target)

    def remove(self, binding: Binding) -> None:
        self._trie.remove(binding.routing_key, binding.target)

    def match(self, routing_key: str, headers: Headers) -> Iterable[Destination]:
        return self._trie.match(routing_key)


X_MATCH = "x-match"
X_MATCH_MODES = ("all", "any", "all-with-x", "any-with-x")


class HeaderPattern:
    """What a headers binding asks of a message's headers.

    ``x-match`` is ``all`` (the default) or ``any``; other arguments whose names start with ``x-`` count
    only in the ``-with-x`` modes. An argument without value (void) asks only that the header is there.
    With nothing to ask for, ``all`` matches every message and ``any`` none.
    """

    __slots__ = ("_any", "_wanted")

    def __init__(self, arguments: Arguments) -> None:
        mode = arguments.get(X_MATCH, "all")
        with_x = mode in ("all-with-x", "any-with-x")
        self._any = mode in ("any", "any-with-x")
        self._wanted = tuple(
            (name, None if value is None else type_class(value), value)
            for name, value in arguments.items()
            if name != X_MATCH and (with_x or not name.startswith("x-"))
        )

    def matches(self, headers: Mapping[str, object]) -> bool:
        for name, kind, value in self._wanted:
            found = name in headers and (
                kind is None or (headers[name] == value and type_class(headers[name]) == kind)
            )
            if found is self._any:
                return self._any
        return not self._any


class HeadersTable:
    """headers: the binding's arguments ask for headers of the message."""

    needs_headers: ClassVar[bool] = True

    def __init__(self) -> None:
        self._patterns: dict[BindingKey, tuple[HeaderPattern, Destination]] = {}

    def add(self, binding: Binding) -> None:
        self._patterns[binding.key] = (HeaderPattern(binding.arguments), binding.target)

    def remove(self, binding: Binding) -> None:
        del self._patterns[binding.key]

    def match(self, routing_key: str, headers: Headers) -> Iterable[Destination]:
        if not self._patterns:
            return ()
        present = headers()
        return [target for pattern, target in self._patterns.values() if pattern.matches(present)]


class NowhereTable:
    """An exchange of a type that this program does not know, declared through a newer node.

    Its bindings are kept as metadata; messages published to it through this node reach nobody.
    """

    needs_headers: ClassVar[bool] = False

    def add(self, binding: Binding) -> None:
        """Nothing to prepare."""

    def remove(self, binding: Binding) -> None:
        """Nothing was prepared."""

    def match(self, routing_key: str, headers: Headers) -> Iterable[Destination]:
        return ()


def _delayed(arguments: Arguments) -> Table:
    return DelayedTable(make_table(str(arguments.get(DELAYED_TYPE)), arguments))


TABLES: Mapping[str, Callable[[Arguments], Table]] = {
    "direct": lambda arguments: DirectTable(),
    "fanout": lambda arguments: FanoutTable(),
    "topic": lambda arguments: TopicTable(),
    "headers": lambda arguments: HeadersTable(),
    CONSISTENT_HASH: ConsistentHashTable,
    DELAYED_MESSAGE: _delayed,
}
"""The exchange types there are, each making its table from the declaration's arguments. Another type is one
more entry."""


def make_table(type_: str, arguments: Arguments) -> Table:
    """The table of a new exchange."""
    make = TABLES.get(type_)
    return NowhereTable() if make is None else make(arguments)
