"""Whether a second declaration fits what exists, and whether a first one makes sense (RabbitMQ's checks).

The texts are part of the interface: programs and people look for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from brokers.engine.core.amqp import errors
from brokers.engine.core.amqp.errors import AmqpError
from brokers.engine.core.model.arguments import Arguments, same_value, string_argument, type_name
from brokers.engine.core.model.delayed import DELAYED_TYPE
from brokers.engine.core.model.queue_settings import parse_backoff
from brokers.engine.core.model.routing import ALTERNATE_EXCHANGE
from brokers.engine.core.model.topology import Exchange, Kind, QueueInfo, resource

QUEUE_TYPES = ("classic", "quorum")
DEAD_LETTER_EXCHANGE = "x-dead-letter-exchange"
QUEUE_TYPE = "x-queue-type"

MAX_MILLISECONDS = 315_360_000_000
"""Ten years: the longest time to live and expiry."""
MAX_PRIORITY = 255


def check_queue_equivalent(
    queue: QueueInfo,
    durable: bool,
    auto_delete: bool,
    exclusive: str | None,
    arguments: Arguments,
) -> None:
    """Check a declaration of a queue that exists. ``exclusive`` is the declaring connection's id when it
    asks for exclusive use.

    Raises ``AmqpError`` 405 when the queue is another connection's or the exclusive property differs, 406
    when another property or argument does.
    """
    if queue.exclusive != exclusive:
        raise errors.queue_locked(queue.name, queue.vhost)
    check = _Checker(Kind.QUEUE, queue.name, queue.vhost)
    check.field("durable", queue.durable, durable)
    check.field("auto_delete", queue.auto_delete, auto_delete)
    for key in QUEUE_ARGUMENTS:
        check.argument(key, queue.arguments, arguments)


def check_exchange_equivalent(
    exchange: Exchange, type_: str, durable: bool, auto_delete: bool, internal: bool, arguments: Arguments
) -> None:
    """Check a declaration of an exchange that exists. Raises ``AmqpError`` 406 when it differs.

    Of the arguments only those count that RabbitMQ compares.
    """
    check = _Checker(Kind.EXCHANGE, exchange.name, exchange.vhost)
    check.field("type", exchange.type, type_)
    check.field("durable", exchange.durable, durable)
    check.field("auto_delete", exchange.auto_delete, auto_delete)
    check.field("internal", exchange.internal, internal)
    for key in (ALTERNATE_EXCHANGE, DELAYED_TYPE):
        check.argument(key, exchange.arguments, arguments)


def check_access(queue: QueueInfo, connection: str) -> None:
    """Raises ``AmqpError`` 405 when the queue is exclusive to another connection."""
    if queue.exclusive is not None and queue.exclusive != connection:
        raise errors.queue_locked(queue.name, queue.vhost)


def check_string(kind: Kind, name: str, vhost: str, arguments: Arguments, key: str) -> str | None:
    """The name of an exchange under ``key``, or None. Raises ``AmqpError`` 406 when it is no string."""
    if key not in arguments:
        return None
    value = string_argument(arguments, key)
    if value is None:
        found = type_name(arguments[key])
        raise errors.precondition_failed(
            f"invalid type '{found}' for arg '{key}' in {resource(kind, name, vhost)}"
        )
    return value


class _Checker:
    """Compares a declaration with what exists, for one queue or exchange."""

    def __init__(self, kind: Kind, name: str, vhost: str) -> None:
        self.kind, self.name, self.vhost = kind, name, vhost

    def field(self, field: str, current: bool | str, received: bool | str) -> None:
        if current != received:
            self.fail(field, f"'{_print(received)}'", f"'{_print(current)}'")

    def argument(self, key: str, current: Arguments, received: Arguments) -> None:
        if key in current and key in received:
            if not same_value(current[key], received[key]):
                self.fail(key, f"'{_print(received[key])}'", f"'{_print(current[key])}'")
        elif key in current or key in received:
            if key == QUEUE_TYPE and "classic" in (current.get(key), received.get(key)):
                return
            self.fail(key, _describe(received, key), _describe(current, key))

    def fail(self, key: str, received: str, current: str) -> None:
        raise errors.inequivalent_argument(key, self.kind, self.name, self.vhost, received, current)


def _print(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "undefined" if value is None else str(value)


def _describe(arguments: Arguments, key: str) -> str:
    if key not in arguments:
        return "none"
    return f"the value '{_print(arguments[key])}' of type '{type_name(arguments[key])}'"


# Arguments of a first declaration. A check returns what is wrong, as RabbitMQ prints it, or None.

Check = Callable[[object, Arguments], str | None]


def _integer(value: object, arguments: Arguments) -> str | None:
    if type_name(value) in ("signedint", "long"):
        return None
    return f"{{unacceptable_type,{type_name(value)}}}"


def _natural(value: object, arguments: Arguments) -> str | None:
    return _bounded(value, arguments)


def _positive(value: object, arguments: Arguments) -> str | None:
    return "{value_zero,0}" if _is_zero(value) else _natural(value, arguments)


def _is_zero(value: object) -> bool:
    return value == 0 and type_name(value) == "signedint"


def _milliseconds(value: object, arguments: Arguments) -> str | None:
    return _bounded(value, arguments, MAX_MILLISECONDS, "value_too_large")


def _expires(value: object, arguments: Arguments) -> str | None:
    return "{value_zero,0}" if _is_zero(value) else _milliseconds(value, arguments)


def _priority(value: object, arguments: Arguments) -> str | None:
    return _bounded(value, arguments, MAX_PRIORITY, "max_value_exceeded")


def _bounded(value: object, arguments: Arguments, limit: int | None = None, over: str = "") -> str | None:
    wrong = _integer(value, arguments)
    if wrong is not None or not isinstance(value, int):
        return wrong
    if value < 0:
        return f"{{value_negative,{value}}}"
    return f"{{{over},{value}}}" if limit is not None and value > limit else None


def _boolean(value: object, arguments: Arguments) -> str | None:
    return None if isinstance(value, bool) else f"{{unacceptable_type,{type_name(value)}}}"


def _text(value: object, arguments: Arguments) -> str | None:
    return None if isinstance(value, str) else f"{{unacceptable_type,{type_name(value)}}}"


def _dead_letter_key(value: object, arguments: Arguments) -> str | None:
    wrong = _text(value, arguments)
    if wrong is None and DEAD_LETTER_EXCHANGE not in arguments:
        return "routing_key_but_no_dlx_defined"
    return wrong


def _one_of(words: tuple[str, ...], otherwise: str) -> Check:
    def check(value: object, arguments: Arguments) -> str | None:
        wrong = _text(value, arguments)
        return otherwise if wrong is None and value not in words else wrong

    return check


def _queue_type(value: object, arguments: Arguments) -> str | None:
    wrong = _text(value, arguments)
    return f"\"unsupported queue type '{value}'\"" if wrong is None and value not in QUEUE_TYPES else wrong


def _queue_version(value: object, arguments: Arguments) -> str | None:
    wrong = _natural(value, arguments)
    return f"\"unsupported queue version '{value}'\"" if wrong is None and value not in (1, 2) else wrong


def _retry_backoff(value: object, arguments: Arguments) -> str | None:
    wrong = _text(value, arguments)
    if wrong is not None or not isinstance(value, str):
        return wrong
    try:
        parse_backoff(value)
    except ValueError as error:
        return str(error)
    return None


QUEUE_ARGUMENTS: Mapping[str, Check] = {
    QUEUE_TYPE: _queue_type,
    "x-expires": _expires,
    "x-message-ttl": _milliseconds,
    DEAD_LETTER_EXCHANGE: _text,
    "x-dead-letter-routing-key": _dead_letter_key,
    "x-dead-letter-strategy": _one_of(("at-most-once", "at-least-once"), "invalid_dlx_strategy"),
    "x-max-length": _natural,
    "x-max-length-bytes": _natural,
    "x-max-in-memory-length": _natural,
    "x-max-in-memory-bytes": _natural,
    "x-max-priority": _priority,
    "x-overflow": _one_of(("drop-head", "reject-publish", "reject-publish-dlx"), "invalid_overflow"),
    "x-queue-mode": _one_of(("default", "lazy"), "invalid_queue_mode"),
    "x-queue-version": _queue_version,
    "x-single-active-consumer": _boolean,
    "x-delivery-limit": _integer,
    "x-retry-attempts": _natural,
    "x-retention-bytes": _natural,
    "x-retention-ms": _natural,
    "x-retry-backoff": _retry_backoff,
    "x-quorum-initial-group-size": _positive,
    "x-queue-leader-locator": _one_of(
        ("client-local", "balanced", "random", "least-leaders"), "invalid_queue_locator_arg"
    ),
    "x-queue-master-locator": _one_of(("client-local", "min-masters", "random"), "invalid_queue_locator_arg"),
    "x-consumer-timeout": _natural,
}
"""Every argument of a queue that means something, with its check. Others are kept and not looked at."""


def check_queue_arguments(vhost: str, name: str, arguments: Arguments) -> None:
    """Check the arguments of a new queue. Raises ``AmqpError`` 406 for the first that is wrong."""
    for key, check in QUEUE_ARGUMENTS.items():
        if key in arguments:
            wrong = check(arguments[key], arguments)
            if wrong is not None:
                raise invalid_argument(vhost, name, key, wrong)


def invalid_argument(vhost: str, name: str, key: str, wrong: str) -> AmqpError:
    return errors.precondition_failed(f"invalid arg '{key}' for {resource(Kind.QUEUE, name, vhost)}: {wrong}")


def check_quorum_properties(
    vhost: str, name: str, durable: bool, auto_delete: bool, exclusive: bool, arguments: Arguments
) -> None:
    """A queue that asks to be a quorum queue must be one that is replicated.

    Raises ``AmqpError`` 406 naming the property that stands against it.
    """
    if arguments.get(QUEUE_TYPE) != "quorum":
        return
    for wrong, property_ in (
        (auto_delete, "auto-delete"),
        (exclusive, "exclusive-owner"),
        (not durable, "non-durable"),
    ):
        if wrong:
            raise errors.precondition_failed(
                f"invalid property '{property_}' for {resource(Kind.QUEUE, name, vhost)}"
            )
