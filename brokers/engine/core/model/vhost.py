"""A virtual host: its exchanges, queues and bindings, with the indexes that make changes and routing cheap.

Methods here only keep the three consistent with each other; whether somebody may do what they do is
decided elsewhere (``handlers``, ``metadata``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeVar

from brokers.engine.core.model.policies import Policy
from brokers.engine.core.model.tables import Table, make_table
from brokers.engine.core.model.topology import (
    DELAY_QUEUE,
    PREDECLARED_EXCHANGES,
    Binding,
    BindingKey,
    Destination,
    Exchange,
    Kind,
    QueueInfo,
)


class VHost:
    """One virtual host."""

    def __init__(self, name: str, description: str = "", tags: Iterable[str] = ()) -> None:
        self.name = name
        self.description = description
        self.tags = tuple(tags)
        self.exchanges: dict[str, Exchange] = {}
        self.queues: dict[str, QueueInfo] = {}
        self.delays: dict[str, QueueInfo] = {}
        """What waits in delayed exchanges, by the exchange's name: queues that no client sees."""
        self.tables: dict[str, Table] = {}
        self.policies: dict[str, Policy] = {}
        self.operator_policies: dict[str, Policy] = {}
        self.limits: dict[str, int] = {}
        """``max-connections`` and ``max-queues``, where there is a limit; below 0 is none."""
        self._bindings: dict[BindingKey, Binding] = {}
        self._by_source: dict[str, dict[BindingKey, Binding]] = {}
        self._by_target: dict[Destination, dict[BindingKey, Binding]] = {}

    def declare_predeclared(self) -> None:
        """Put the exchanges in place that every vhost has."""
        for name, kind in PREDECLARED_EXCHANGES.items():
            if name not in self.exchanges:
                self.add_exchange(Exchange(self.name, name, kind))

    # Exchanges and queues

    def add_exchange(self, exchange: Exchange) -> None:
        self.exchanges[exchange.name] = exchange
        self.tables[exchange.name] = make_table(exchange.type, exchange.arguments)

    def remove_exchange(self, name: str) -> tuple[list[Exchange], list[Binding]]:
        """Remove an exchange with the bindings from and to it.

        Returns the exchanges gone (this one first, then the auto-delete ones that lost their last
        binding by it) and the bindings gone.
        """
        gone_exchanges: list[Exchange] = []
        gone_bindings: list[Binding] = []
        pending = [name]
        while pending:
            exchange = self.exchanges.pop(pending.pop(0), None)
            if exchange is None:
                continue
            gone_exchanges.append(exchange)
            leading_here = list(self._by_target.get((Kind.EXCHANGE, exchange.name), {}).values())
            leading_away = list(self._by_source.get(exchange.name, {}).values())
            gone_bindings += [binding for binding in leading_away + leading_here if self._drop(binding)]
            del self.tables[exchange.name]
            pending.extend(self._unused(binding.source for binding in leading_here))
        return gone_exchanges, gone_bindings

    def add_queue(self, queue: QueueInfo) -> None:
        self._kept(queue)[queue.name] = queue

    def _kept(self, queue: QueueInfo) -> dict[str, QueueInfo]:
        return self.delays if queue.type == DELAY_QUEUE else self.queues

    def replace_queue(self, queue: QueueInfo) -> None:
        """Exchange what is known of a queue; its bindings stay."""
        self._kept(queue)[queue.name] = queue

    def remove_queue(self, name: str) -> tuple[list[Exchange], list[Binding]]:
        """Remove a queue with its bindings. Returns (auto-delete exchanges gone with it, bindings gone)."""
        del self.queues[name]
        bindings = list(self._by_target.get((Kind.QUEUE, name), {}).values())
        for binding in bindings:
            self._drop(binding)
        exchanges, more = self._remove_all(self._unused(binding.source for binding in bindings))
        return exchanges, bindings + more

    # Bindings

    @property
    def bindings(self) -> Collection[Binding]:
        """All stored bindings; those of the default exchange are implied and not among them."""
        return self._bindings.values()

    def has_binding(self, key: BindingKey) -> bool:
        return key in self._bindings

    def bindings_from(self, source: str) -> Collection[Binding]:
        return self._by_source.get(source, {}).values()

    def bindings_to(self, target: Destination) -> Collection[Binding]:
        return self._by_target.get(target, {}).values()

    def bind(self, binding: Binding) -> bool:
        """Add a binding whose ends exist. False when it was there already."""
        key = binding.key
        if key in self._bindings:
            return False
        self._bindings[key] = binding
        self._by_source.setdefault(binding.source, {})[key] = binding
        self._by_target.setdefault(binding.target, {})[key] = binding
        self.tables[binding.source].add(binding)
        return True

    def unbind(self, key: BindingKey) -> tuple[list[Exchange], list[Binding]]:
        """Remove a binding. Returns (auto-delete exchanges gone with it, bindings gone, this one first)."""
        binding = self._bindings[key]
        self._drop(binding)
        exchanges, more = self._remove_all(self._unused([binding.source]))
        return exchanges, [binding, *more]

    def _drop(self, binding: Binding) -> bool:
        key = binding.key
        if self._bindings.pop(key, None) is None:
            return False
        _discard(self._by_source, binding.source, key)
        _discard(self._by_target, binding.target, key)
        self.tables[binding.source].remove(binding)
        return True

    def _unused(self, sources: Iterable[str]) -> list[str]:
        """Which of ``sources``, each of which has just lost a binding, are auto-delete and have none left."""
        return [
            source
            for source in dict.fromkeys(sources)
            if source not in self._by_source
            and source in self.exchanges
            and self.exchanges[source].auto_delete
        ]

    def _remove_all(self, names: Iterable[str]) -> tuple[list[Exchange], list[Binding]]:
        exchanges: list[Exchange] = []
        bindings: list[Binding] = []
        for name in names:
            more_exchanges, more_bindings = self.remove_exchange(name)
            exchanges += more_exchanges
            bindings += more_bindings
        return exchanges, bindings


Name = TypeVar("Name", str, Destination)


def _discard(index: dict[Name, dict[BindingKey, Binding]], name: Name, key: BindingKey) -> None:
    entries = index[name]
    del entries[key]
    if not entries:
        del index[name]
