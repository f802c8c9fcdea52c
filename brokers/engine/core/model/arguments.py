"""Values of AMQP tables: their kinds, and a JSON form that loses none of them.

Arguments of queues, exchanges and bindings travel in metadata commands and snapshots, which are JSON.
JSON has no bytes, decimals or times; those are written as one-key objects whose key starts with ``$``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from decimal import Decimal

from brokers.engine.core.amqp.table import Timestamp

Arguments = Mapping[str, object]

_INT32 = range(-(2**31), 2**31)


def type_name(value: object) -> str:
    """RabbitMQ's name of a table value's type, for error texts.

    Integers lose their width on the way in, so theirs is what a client would have sent: ``signedint``
    when the value fits 32 bits, else ``long``.
    """
    match value:
        case None:
            return "void"
        case bool():
            return "bool"
        case Timestamp():
            return "timestamp"
        case int():
            return "signedint" if value in _INT32 else "long"
        case str():
            return "longstr"
        case bytes() | bytearray():
            return "binary"
        case float():
            return "double"
        case Decimal():
            return "decimal"
        case Mapping():
            return "table"
        case list() | tuple():
            return "array"
    raise TypeError(f"{value!r} of type {type(value).__name__} is no AMQP table value")


def type_class(value: object) -> str:
    """The class within which values compare: integers of all widths and decimals are one, floats another."""
    name = type_name(value)
    if name in ("signedint", "long", "decimal"):
        return "int"
    return "float" if name == "double" else name


def same_value(one: object, other: object) -> bool:
    """Whether two table values are equal in type class and value (so that 1, 1.0 and true all differ)."""
    return type_class(one) == type_class(other) and one == other


def to_json(value: object) -> object:
    """The JSON form of a table value. Raises ``TypeError`` for what no AMQP table can hold."""
    match value:
        case Timestamp():
            return {"$time": int(value)}
        case None | bool() | int() | str() | float():
            return value
        case bytes() | bytearray():
            return {"$bytes": base64.b64encode(value).decode("ascii")}
        case Decimal():
            return {"$decimal": str(value)}
        case Mapping():
            plain = {str(key): to_json(item) for key, item in value.items()}
            return {"$table": plain} if any(key.startswith("$") for key in plain) else plain
        case list() | tuple():
            return [to_json(item) for item in value]
    raise TypeError(f"{value!r} of type {type(value).__name__} is no AMQP table value")


def from_json(value: object) -> object:
    """The table value of what ``to_json`` wrote. Raises ``ValueError`` for an unknown ``$`` form."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, item),) = value.items()
        match key:
            case "$bytes":
                return base64.b64decode(item)
            case "$decimal":
                return Decimal(item)
            case "$time":
                return Timestamp(item)
            case "$table":
                return {name: from_json(inner) for name, inner in item.items()}
        if key.startswith("$"):
            raise ValueError(f"unknown form {key!r} of an AMQP table value: written by a newer version?")
    return {key: from_json(item) for key, item in value.items()}


def arguments_to_json(arguments: Arguments) -> dict[str, object]:
    """The JSON object of a whole table of arguments."""
    return {key: to_json(value) for key, value in arguments.items()}


def arguments_from_json(value: object) -> dict[str, object]:
    """The table of arguments of what ``arguments_to_json`` wrote. Raises ``ValueError`` for anything else."""
    if not isinstance(value, dict):
        raise ValueError(f"arguments must be an object, not {value!r}")
    try:
        return {str(key): from_json(item) for key, item in value.items()}
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"malformed arguments {value!r}: {error!r}") from error


def canonical(arguments: Arguments) -> str:
    """A text equal for tables equal in keys and values, whatever their order: the identity of a binding's
    arguments."""
    return (
        json.dumps(arguments_to_json(arguments), sort_keys=True, separators=(",", ":")) if arguments else ""
    )


def string_argument(arguments: Arguments, key: str) -> str | None:
    """The string under ``key``, or None when there is none or it is of another type."""
    value = arguments.get(key)
    return value if isinstance(value, str) else None
