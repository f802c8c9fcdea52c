"""Session messages as bytes, for the peer link. Big-endian; runs and pieces are counted by a u32.

The peers are authenticated and of one version, so what cannot be decoded is a defect: ``decode`` raises
``ValueError`` and the link is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct, error
from typing import Any

from brokers.engine.core.model.entries import Run, decode_runs, encode_runs
from brokers.engine.core.session import messages as m

_group = Struct(">BQ")
_two = Struct(">BQQ")
_settle = Struct(">BQQQBI")
_attach = Struct(">BQQQ?????hQI")
_flagged = Struct(">BQQ?")
_four = Struct(">BQQQQ")
_pieces = Struct(">BQQQI")
_piece = Struct(">Q?II")

_flat_layouts: dict[type[Any], Struct] = {
    m.Published: _two,
    m.SettledTo: _two,
    m.Follow: Struct(">BQQQ?BQ"),
    m.Following: Struct(">BQQQ"),
    m.Attached: Struct(">BQQ?Q"),
    m.Refused: Struct(">BQQQ"),
    m.Detach: _flagged,
    m.Credit: _four,
    m.Limit: Struct(">BQQQ?"),
    m.Get: _flagged,
    m.Ask: _flagged,
    m.Answer: _four,
    m.Hello: Struct(">BQQQ"),
    m.Resuming: _two,
    m.Resumed: _two,
}
_types: list[type[Any]] = [
    m.Publish,
    m.Published,
    m.Settle,
    m.SettledTo,
    m.Attach,
    m.Attached,
    m.Detach,
    m.Credit,
    m.Get,
    m.Got,
    m.Deliver,
    m.Ask,
    m.Answer,
    m.Hello,
    m.Resumed,
    m.Refused,
    m.Limit,
    m.Follow,
    m.Following,
    m.Resuming,
]
_codes = {cls: code for code, cls in enumerate(_types)}


def encode(message: m.Message) -> list[bytes]:
    """The message as byte strings to be written one after the other."""
    cls = type(message)
    code = _codes[cls]
    flat = _flat_layouts.get(cls)
    if flat is not None:
        return [flat.pack(code, *message)]
    if isinstance(message, m.Publish):
        return [_group.pack(code, message.group), message.batch]
    if isinstance(message, m.Settle):
        head = _settle.pack(code, *message[:4], len(message.runs))
        return [head, encode_runs(message.runs)]
    if isinstance(message, m.Attach):
        head = _attach.pack(code, *message[:10], len(message.outstanding))
        return [head, encode_runs(message.outstanding)]
    if isinstance(message, m.Got):
        return _encode_pieces(code, message.group, message.consumer, message.ready, message.pieces)
    if isinstance(message, m.Deliver):
        return _encode_pieces(code, message.group, message.consumer, 0, message.pieces)
    raise TypeError(f"not a session message: {message!r}")


def _encode_pieces(code: int, group: int, consumer: int, ready: int, pieces: list[m.Piece]) -> list[bytes]:
    parts = [_pieces.pack(code, group, consumer, ready, len(pieces))]
    for first, redelivered, ends, data in pieces:
        parts.append(_piece.pack(first, redelivered, len(ends), len(data)))
        parts.append(Struct(f">{len(ends)}I").pack(*ends))
        parts.append(data)
    return parts


def decode(data: bytes) -> m.Message:
    """The message that ``encode`` made. Raises ``ValueError`` when ``data`` is none."""
    try:
        cls = _types[data[0]]
        flat = _flat_layouts.get(cls)
        if flat is not None:
            _, *fields = flat.unpack(data)
            message: m.Message = cls(*fields)
            return message
        return _decoders[cls](data)
    except (error, IndexError) as problem:
        raise ValueError(f"malformed session message of {len(data)} bytes: {problem}") from problem


def _decode_publish(data: bytes) -> m.Publish:
    return m.Publish(_group.unpack_from(data)[1], data[_group.size :])


def _decode_settle(data: bytes) -> m.Settle:
    _, group, number, consumer, outcome, count = _settle.unpack_from(data)
    return m.Settle(group, number, consumer, outcome, _runs(data, _settle.size, count))


def _decode_attach(data: bytes) -> m.Attach:
    fields = _attach.unpack_from(data)
    return m.Attach._make((*fields[1:-1], _runs(data, _attach.size, fields[-1])))


def _runs(data: bytes, offset: int, count: int) -> list[Run]:
    if offset + 16 * count != len(data):
        raise ValueError(f"{count} runs announced in {len(data) - offset} bytes")
    return decode_runs(data, offset, count)


def _decode_pieces(data: bytes) -> tuple[int, int, int, list[m.Piece]]:
    _, group, consumer, ready, count = _pieces.unpack_from(data)
    at = _pieces.size
    pieces: list[m.Piece] = []
    for _ in range(count):
        first, redelivered, number, size = _piece.unpack_from(data, at)
        at += _piece.size
        ends = list(Struct(f">{number}I").unpack_from(data, at))
        at += 4 * number
        pieces.append((first, redelivered, ends, data[at : at + size]))
        at += size
    if at != len(data):
        raise ValueError(f"pieces end at {at} of {len(data)} bytes")
    return group, consumer, ready, pieces


def _decode_got(data: bytes) -> m.Got:
    return m.Got(*_decode_pieces(data))


def _decode_deliver(data: bytes) -> m.Deliver:
    group, consumer, _, pieces = _decode_pieces(data)
    return m.Deliver(group, consumer, pieces)


_decoders: dict[type[Any], Callable[[bytes], m.Message]] = {
    m.Publish: _decode_publish,
    m.Settle: _decode_settle,
    m.Attach: _decode_attach,
    m.Got: _decode_got,
    m.Deliver: _decode_deliver,
}
