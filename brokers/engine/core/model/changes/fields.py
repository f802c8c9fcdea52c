"""Reading the fields of a command, each with its type.

All raise ``ValueError`` naming the field when it is missing or of another type: such a command is refused
by all replicas alike.
"""

from __future__ import annotations

from brokers.engine.core.model.commands import Command


def text(command: Command, key: str) -> str:
    value = command.get(key)
    if not isinstance(value, str):
        raise _wrong(command, key, "a string")
    return value


def optional_text(command: Command, key: str) -> str | None:
    return None if command.get(key) is None else text(command, key)


def number(command: Command, key: str) -> int:
    value = command.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(command, key, "an integer")
    return value


def optional_number(command: Command, key: str) -> int | None:
    return None if command.get(key) is None else number(command, key)


def flag(command: Command, key: str) -> bool:
    value = command.get(key)
    if not isinstance(value, bool):
        raise _wrong(command, key, "true or false")
    return value


def numbers(command: Command, key: str) -> tuple[int, ...]:
    value = command.get(key)
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise _wrong(command, key, "a list of integers")
    return tuple(value)


def texts(command: Command, key: str) -> tuple[str, ...]:
    value = command.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong(command, key, "a list of strings")
    return tuple(value)


def mapping(command: Command, key: str) -> dict[str, object]:
    value = command.get(key)
    if not isinstance(value, dict):
        raise _wrong(command, key, "an object")
    return value


def text_mapping(command: Command, key: str) -> dict[str, str]:
    value = mapping(command, key)
    if not all(isinstance(item, str) for item in value.values()):
        raise _wrong(command, key, "an object of strings")
    return {name: str(item) for name, item in value.items()}


def _wrong(command: Command, key: str, expected: str) -> ValueError:
    return ValueError(
        f"{key!r} of command {command.get('op')!r} must be {expected}, not {command.get(key)!r}"
    )
