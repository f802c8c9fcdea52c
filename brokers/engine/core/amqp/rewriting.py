"""Content headers with a property changed: all else stays octet for octet as the publisher wrote it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from brokers.engine.core.amqp.constants import CLASS_BASIC
from brokers.engine.core.amqp.properties import HEADER, PROPERTIES
from brokers.engine.core.amqp.table import encode_field, raw_fields


def rewrite(
    header: bytes,
    *,
    reply_to: str | None = None,
    drop: Collection[str] = (),
    put: Mapping[str, object] | None = None,
) -> bytes:
    """``header`` (checked, a content header frame's payload) with another ``reply_to`` where it has one, and
    where it has a table of headers, without the fields in ``drop`` and with those in ``put``.

    A table of headers that loses its last field stays as an empty one, as in RabbitMQ. Raises ``ValueError``
    for a ``reply_to`` of more than 255 octets.
    """
    _, _, body_size, flags = HEADER.unpack_from(header)
    parts = [HEADER.pack(CLASS_BASIC, 0, body_size, flags)]
    pos = HEADER.size
    for flag, name, width in PROPERTIES:
        if not flags & flag:
            continue
        if name == "headers":
            end = pos + 4 + int.from_bytes(header[pos : pos + 4], "big")
            part = _table(header, pos, drop, put or {})
        elif width == 0:
            end = pos + 1 + header[pos]
            part = header[pos:end]
            if name == "reply_to" and reply_to is not None:
                raw = reply_to.encode()
                if len(raw) > 255:
                    raise ValueError(f"reply_to of {len(raw)} octets; 255 at most")
                part = bytes((len(raw),)) + raw
        else:
            end = pos + width
            part = header[pos:end]
        parts.append(part)
        pos = end
    return b"".join(parts)


def _table(header: bytes, pos: int, drop: Collection[str], put: Mapping[str, object]) -> bytes:
    gone = {name.encode() for name in (*drop, *put)}
    fields = [header[start:end] for name, start, end in raw_fields(header, pos) if name not in gone]
    fields += [encode_field(name, value) for name, value in put.items()]
    content = b"".join(fields)
    return len(content).to_bytes(4, "big") + content
