"""Why a message is a dead letter, in so few words that those with the same cause say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from brokers.engine.core.amqp.properties import decode_properties
from brokers.engine.core.model.death import split_route

EXCEPTION_HEADERS = (
    "x-exception-message",  # Spring
    "x-exception",
    "x-exception-stacktrace",
    "exception",
    "exception-message",
    "x-error",
    "error",
    "error-message",
    "NServiceBus.ExceptionInfo.Message",
    "MT-Fault-Message",  # MassTransit
)
"""Where frameworks write what went wrong, the most telling first."""
LOOKED_INTO = 64 * 1024
"""Bytes of the largest body that is parsed to see its shape."""
TEXT_LIMIT = 200
KEYS_SHOWN = 8

_VARYING = re.compile(
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|\b[0-9a-fA-F]{12,}\b|\d+"
)


class Origin(NamedTuple):
    """Where a dead letter died last: the queue, and how it had come there."""

    reason: str
    queue: str
    exchange: str
    routing_key: str


class Cause(NamedTuple):
    """What dead letters have in common. Numbers and identifiers in texts are written ``#``."""

    reason: str
    queue: str
    routing_key: str
    exception: str
    shape: str

    @property
    def identity(self) -> str:
        """The same on every node and in every process."""
        text = json.dumps(self, ensure_ascii=True).encode()
        return blake2b(text, digest_size=8).hexdigest()


def cause_of(route: bytes, header: bytes, body: bytes) -> Cause:
    """Why a message lies in a dead-letter queue. Without ``x-death`` its reason is empty."""
    headers: Mapping[str, object] = decode_properties(header).headers or {}
    origin = origin_of(headers)
    key = origin.routing_key if origin is not None else split_route(route)[1]
    return Cause(
        origin.reason if origin is not None else "",
        origin.queue if origin is not None else "",
        _alike(key),
        _exception(headers),
        shape_of(body),
    )


def origin_of(headers: Mapping[str, object]) -> Origin | None:
    """The latest of the deaths in ``x-death``; None where there is none that can be understood."""
    deaths = headers.get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths else None
    if not isinstance(latest, dict):
        return None
    queue, exchange, keys = latest.get("queue"), latest.get("exchange"), latest.get("routing-keys")
    if not isinstance(queue, str):
        return None
    key = keys[0] if isinstance(keys, list) and keys else ""
    return Origin(
        str(latest.get("reason", "")),
        queue,
        exchange if isinstance(exchange, str) else "",
        key if isinstance(key, str) else "",
    )


def shape_of(body: bytes) -> str:
    """What kind of body it is: the keys of a JSON object, or text, or bytes."""
    if not body:
        return "empty"
    if len(body) > LOOKED_INTO:
        return "large"
    start = body.lstrip()[:1]
    if start in (b"{", b"["):
        try:
            return _json_shape(json.loads(body))
        except (ValueError, RecursionError):
            return "text, looks like JSON and is not"
    try:
        body.decode()
    except UnicodeDecodeError:
        return "binary"
    return "XML" if start == b"<" else "text"


def _json_shape(value: object) -> str:
    if isinstance(value, dict):
        keys = sorted(value)
        names = ", ".join(_alike(key)[:40] for key in keys[:KEYS_SHOWN])
        more = ", …" if len(keys) > KEYS_SHOWN else ""
        return f"JSON {{{names}{more}}}"
    if isinstance(value, list):
        return f"JSON [{_json_shape(value[0])}]" if value and isinstance(value[0], dict) else "JSON array"
    return "JSON"


def _exception(headers: Mapping[str, object]) -> str:
    for name in EXCEPTION_HEADERS:
        value = headers.get(name)
        if isinstance(value, str) and value.strip():
            return _alike(value.strip().splitlines()[0])
    return ""


def _alike(text: str) -> str:
    clean = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _VARYING.sub("#", clean[: 2 * TEXT_LIMIT])[:TEXT_LIMIT]
