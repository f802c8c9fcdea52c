"""A message's death: the headers that tell of it, and which queues it must not come back to.

The ``x-death`` header is an array of tables, the latest death first, one for each (queue, reason); dying
again for the same reason in the same queue raises its ``count`` (https://www.rabbitmq.com/docs/dlx#effects).
Everything else of the message stays octet for octet as its publisher wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct

from brokers.engine.core.amqp.constants import CLASS_BASIC
from brokers.engine.core.amqp.expiration import EXPIRATION
from brokers.engine.core.amqp.properties import HEADER, HEADERS, PROPERTIES, decode_properties
from brokers.engine.core.amqp.table import Timestamp, encode_field, raw_fields
from brokers.engine.core.model.entries import Settled

REASONS: Mapping[Settled, str] = {
    Settled.REJECT: "rejected",
    Settled.EXPIRE: "expired",
    Settled.DROP: "maxlen",
    Settled.LIMIT: "delivery_limit",
}
"""What ``x-death`` calls the ways in which a message leaves a queue for its dead-letter exchange."""

_long = Struct(">q")
_size = Struct(">I")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is to be published: the first key is the one it is published with, the others are those of CC.

    ``deaths`` are its (queue, reason), the latest first.
    """

    route: bytes
    header: bytes
    keys: tuple[str, ...]
    deaths: tuple[tuple[str, str], ...]


def long_field(name: str, value: int) -> bytes:
    """A field of a table as a 64-bit integer, whatever its value: clients of typed languages cast it."""
    raw = name.encode()
    return bytes((len(raw),)) + raw + b"l" + _long.pack(value)


def annotate(
    header: bytes, fields: Mapping[str, bytes], drop: frozenset[str] = frozenset(), *, expires: bool = True
) -> bytes:
    """``header`` (a sound content header frame's payload) with more in its table of headers.

    ``fields`` maps names to encoded fields; they replace those of the same name. Without ``expires`` the
    property ``expiration`` goes.
    """
    _, _, body_size, flags = HEADER.unpack_from(header)
    parts: list[bytes] = [b""]
    at = HEADER.size
    gone = {name.encode() for name in (*fields, *drop)}
    for flag, name, width in PROPERTIES:
        end = at
        if flags & flag:
            if width > 0:
                end = at + width
            elif width == 0:
                end = at + 1 + header[at]
            else:
                end = at + 4 + _size.unpack_from(header, at)[0]
        if name == "headers":
            kept = []
            if end > at:
                kept = [header[low:high] for key, low, high in raw_fields(header, at) if key not in gone]
            content = b"".join((*kept, *fields.values()))
            if content or end > at:
                parts += (_size.pack(len(content)), content)
                flags |= HEADERS
        elif name != "expiration" or expires:
            parts.append(header[at:end])
        at = end
    if not expires:
        flags &= ~EXPIRATION
    parts[0] = HEADER.pack(CLASS_BASIC, 0, body_size, flags)
    return b"".join(parts)


def with_delivery_count(header: bytes, count: int) -> bytes:
    """``header`` with ``x-delivery-count``: how often the message was delivered before."""
    return annotate(header, {"x-delivery-count": long_field("x-delivery-count", count)})


def split_route(route: bytes) -> tuple[str, str]:
    """(exchange, routing key) of the two short strings."""
    middle = 1 + route[0]
    return route[1:middle].decode(), route[middle + 1 :].decode("utf-8", "surrogateescape")


def join_route(exchange: str, key: str) -> bytes:
    """Exchange and routing key as two short strings. Raises ``ValueError`` when one has over 255 octets."""
    parts: list[bytes] = []
    for text in (exchange, key):
        raw = text.encode("utf-8", "surrogateescape")
        if len(raw) > 255:
            raise ValueError(f"{text[:40]!r}... has {len(raw)} octets; exchange and key have 255 at most")
        parts += (bytes((len(raw),)), raw)
    return b"".join(parts)


def bury(
    route: bytes,
    header: bytes,
    *,
    queue: str,
    reason: str,
    seconds: int,
    exchange: str,
    key: str | None,
) -> DeadLetter:
    """The dead letter of a message that died in ``queue``; it goes to ``exchange`` under ``key``, None for
    the keys it came with.

    ``seconds`` since 1970 is when it died. The property ``expiration`` goes, so that it does not expire again
    on its way (``original-expiration`` keeps it); the CC header goes with a ``key`` of the queue's own.
    """
    properties = decode_properties(header)
    headers = properties.headers or {}
    origin, first = split_route(route)
    copies = _copies(headers)
    death = {
        "reason": encode_field("reason", reason),
        "queue": encode_field("queue", queue),
        "time": encode_field("time", Timestamp(seconds)),
        "exchange": encode_field("exchange", origin),
        "routing-keys": encode_field("routing-keys", [first, *copies]),
    }
    if properties.expiration is not None:
        death["original-expiration"] = encode_field("original-expiration", properties.expiration)
    before = _Deaths(header, headers)
    fields = {"x-death": before.with_another(queue, reason, death)}
    for which in ("first", "last"):
        if which == "last" or not before.known:
            for name, value in (("reason", reason), ("queue", queue), ("exchange", origin)):
                field = f"x-{which}-death-{name}"
                fields[field] = encode_field(field, value)
    drop = frozenset() if key is None else frozenset({"CC"})
    target = first if key is None else key
    return DeadLetter(
        join_route(exchange, target),
        annotate(header, fields, drop, expires=False),
        (target, *copies) if key is None else (target,),
        ((queue, reason), *((q, r) for q, r in before.known if (q, r) != (queue, reason))),
    )


def is_cycle(queue: str, deaths: tuple[tuple[str, str], ...]) -> bool:
    """Whether a message with these deaths would come back to ``queue`` all by itself: it died there before,
    and nobody has rejected it since.
    """
    for at, (name, _) in enumerate(deaths):
        if name == queue:
            return all(reason != "rejected" for _, reason in deaths[: at + 1])
    return False


def _copies(headers: Mapping[str, object]) -> list[str]:
    copies = headers.get("CC")
    return [key for key in copies if isinstance(key, str)] if isinstance(copies, list) else []


class _Deaths:
    """The ``x-death`` header a message already has."""

    def __init__(self, header: bytes, headers: Mapping[str, object]) -> None:
        found = headers.get("x-death")
        tables = [table for table in found if isinstance(table, dict)] if isinstance(found, list) else []
        self._tables: list[dict[str, object]] = tables
        self.known = [(str(table.get("queue")), str(table.get("reason"))) for table in tables]

    def with_another(self, queue: str, reason: str, death: Mapping[str, bytes]) -> bytes:
        """The whole field, with one more death in it."""
        count, fields, others = 1, death, []
        for table, known in zip(self._tables, self.known, strict=True):
            if known == (queue, reason):
                seen = table.get("count")
                count = seen + 1 if isinstance(seen, int) else 2
                fields = {name: encode_field(name, value) for name, value in table.items() if name != "count"}
            else:
                others.append(_table(table))
        content = b"".join((_death(count, fields), *others))
        return b"\x07x-deathA" + _size.pack(len(content)) + content


def _death(count: int, fields: Mapping[str, bytes]) -> bytes:
    content = b"".join((long_field("count", count), *fields.values()))
    return b"F" + _size.pack(len(content)) + content


def _table(table: Mapping[str, object]) -> bytes:
    count = table.get("count")
    fields = {name: encode_field(name, value) for name, value in table.items() if name != "count"}
    if isinstance(count, int):
        return _death(count, fields)
    if "count" in table:
        fields["count"] = encode_field("count", count)
    content = b"".join(fields.values())
    return b"F" + _size.pack(len(content)) + content
