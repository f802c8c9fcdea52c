"""Reading the parameters of control calls, each with its type.

All raise ControlError ``bad-params`` that names the parameter and what it was. With a default, the parameter
may be left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from brokers.engine.control import protocol
from brokers.engine.control.protocol import ControlError

Params = dict[str, Any]


def text(params: Params, key: str, default: str | None = None) -> str:
    value = params.get(key, default)
    if not isinstance(value, str):
        raise _wrong(key, "a text", value)
    return value


def optional_text(params: Params, key: str) -> str | None:
    return None if params.get(key) is None else text(params, key)


def flag(params: Params, key: str, default: bool | None = None) -> bool:
    value = params.get(key, default)
    if not isinstance(value, bool):
        raise _wrong(key, "true or false", value)
    return value


def number(params: Params, key: str, default: int | None = None, low: int = -(2**31)) -> int:
    value = params.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < 2**53:
        raise _wrong(key, f"a whole number from {low}", value)
    return value


def table(params: Params, key: str, default: dict[str, object] | None = None) -> dict[str, object]:
    value = params.get(key, default)
    if not isinstance(value, dict):
        raise _wrong(key, "an object", value)
    return value


def names(params: Params, key: str, default: Sequence[str] | None = None) -> list[str]:
    value = params.get(key, default)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise _wrong(key, "a list of texts", value)
    return list(value)


def _wrong(key: str, expected: str, value: object) -> ControlError:
    return ControlError(protocol.BAD_PARAMS, f"{key!r} must be {expected}, not {value!r:.200}")
