"""Where a message goes: from an exchange and a routing key to queues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from brokers.engine.core.model.arguments import string_argument
from brokers.engine.core.model.delayed import delay_of
from brokers.engine.core.model.policies import ALTERNATE_EXCHANGE, alternate_exchange
from brokers.engine.core.model.tables import Headers
from brokers.engine.core.model.topology import DEFAULT_EXCHANGE, Destination, Exchange, Kind, QueueInfo
from brokers.engine.core.model.vhost import VHost

__all__ = ["ALTERNATE_EXCHANGE", "needs_headers", "route"]


def route(
    vhost: VHost, exchange: str, routing_key: str, headers: Headers, also: Sequence[str] = ()
) -> tuple[QueueInfo, ...]:
    """The queues that a message published to ``exchange`` reaches, each once.

    ``also`` are further routing keys (CC, BCC): it reaches whatever one of its keys matches.

    Follows bindings from exchange to exchange, every exchange at most once (so that cycles end), and the
    alternate exchange of those where nothing matched; a message to be delayed goes as far as the first
    delayed exchange. ``headers`` is called at most once, and only when
    the way leads through an exchange that looks at headers. Raises ``KeyError`` when there is no such
    exchange; destinations missing on the way are passed over.
    """
    keys = (routing_key, *also)
    if exchange == DEFAULT_EXCHANGE:
        return tuple(vhost.queues[key] for key in dict.fromkeys(keys) if key in vhost.queues)
    table = vhost.tables[exchange]
    once = _Once(headers)
    queues: dict[str, QueueInfo] = {}
    seen = {exchange}
    pending = [exchange]
    while pending:
        name = pending.pop()
        if name == DEFAULT_EXCHANGE:
            matched: Iterable[Destination] = [(Kind.QUEUE, key) for key in keys]
        else:
            table = vhost.tables[name]
            waiting = vhost.delays.get(name)
            if waiting is not None and delay_of(once()):
                queues[f"\0{name}"] = waiting
                continue
            if also:
                matched = [target for key in keys for target in table.match(key, once)]
            else:
                matched = table.match(routing_key, once)
            matched = matched or _alternate(vhost, vhost.exchanges[name])
        for kind, destination in matched:
            if kind is Kind.QUEUE:
                queue = vhost.queues.get(destination)
                if queue is not None:
                    queues[destination] = queue
            elif destination not in seen and (destination in vhost.tables or destination == DEFAULT_EXCHANGE):
                seen.add(destination)
                pending.append(destination)
    return tuple(queues.values())


def needs_headers(vhost: VHost, exchange: str) -> bool:
    """Whether routes from ``exchange`` depend on a message's headers.

    When they do not, a route may be kept per routing key until the topology's generation changes.
    """
    if exchange == DEFAULT_EXCHANGE:
        return False
    seen = {exchange}
    pending = [exchange]
    while pending:
        name = pending.pop()
        table = vhost.tables.get(name)
        if table is None:
            continue
        if table.needs_headers:
            return True
        onward = [
            binding.destination for binding in vhost.bindings_from(name) if binding.kind is Kind.EXCHANGE
        ]
        onward += [destination for _, destination in _alternate(vhost, vhost.exchanges[name])]
        for destination in onward:
            if destination not in seen:
                seen.add(destination)
                pending.append(destination)
    return False


def _alternate(vhost: VHost, exchange: Exchange) -> tuple[Destination, ...]:
    name = string_argument(exchange.arguments, ALTERNATE_EXCHANGE)
    if name is None and vhost.policies:
        name = alternate_exchange(vhost, exchange.name)
    return ((Kind.EXCHANGE, name),) if name is not None else ()


class _Once:
    """Headers parsed when first asked for, and not again."""

    __slots__ = ("_headers", "_parse")

    def __init__(self, parse: Headers) -> None:
        self._parse = parse
        self._headers: Mapping[str, object] | None = None

    def __call__(self) -> Mapping[str, object]:
        if self._headers is None:
            self._headers = self._parse()
        return self._headers
