"""The delayed-message exchange (RabbitMQ's plugin ``x-delayed-message``).

A message with an ``x-delay`` (milliseconds) waits that long in the exchange before it is routed as the type
in ``x-delayed-type`` says; others are routed at once. What waits lies in a replicated queue of the exchange's
own that nobody else sees, and so survives what any confirmed message survives. The header of a message that
has waited is negative, so that no second delayed exchange makes it wait again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from brokers.engine.core.amqp import errors
from brokers.engine.core.model.arguments import Arguments

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from brokers.engine.core.model.tables import Headers, Table
    from brokers.engine.core.model.topology import Binding, Destination

DELAYED_MESSAGE = "x-delayed-message"
DELAYED_TYPE = "x-delayed-type"
DELAY_HEADER = "x-delay"
MAX_DELAY = 2**32 - 1
"""Milliseconds; as with the plugin, who asks for more is not delayed."""


def check_delayed_arguments(arguments: Arguments, types: Collection[str]) -> None:
    """Check a declaration's arguments, in the plugin's words. Raises ``AmqpError`` 406 too for a type that
    is not among ``types``."""
    type_ = arguments.get(DELAYED_TYPE)
    if not isinstance(type_, str):
        raise errors.precondition_failed(
            "Invalid argument, 'x-delayed-type' must be an existing exchange type"
        )
    if type_ == DELAYED_MESSAGE:
        raise errors.precondition_failed(
            "Invalid argument, 'x-delayed-message' can't be used for 'x-delayed-type'"
        )
    if type_ not in types:
        raise errors.unknown_exchange_type(type_)


def delay_of(headers: Mapping[str, object]) -> int:
    """How many milliseconds a message with these headers is to wait; 0 for not at all."""
    return delay(headers.get(DELAY_HEADER))


def delay(value: object) -> int:
    """What the value of ``x-delay`` means: whole numbers, also as a float or text."""
    if isinstance(value, bool):
        return 0
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) <= 10 else 0
    elif isinstance(value, float):
        value = int(value) if 0 < value <= MAX_DELAY else 0
    return value if isinstance(value, int) and 0 < value <= MAX_DELAY else 0


class DelayedTable:
    """The bindings of a delayed exchange: those of the type it delays for."""

    needs_headers: ClassVar[bool] = True

    def __init__(self, inner: Table) -> None:
        self._inner = inner

    def add(self, binding: Binding) -> None:
        self._inner.add(binding)

    def remove(self, binding: Binding) -> None:
        self._inner.remove(binding)

    def match(self, routing_key: str, headers: Headers) -> Iterable[Destination]:
        return self._inner.match(routing_key, headers)
