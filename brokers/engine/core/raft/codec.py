"""Messages as bytes, big-endian: a type byte, fixed fields, then lists. Payloads pass through uncopied.

Decoding checks every count against the bytes that are there before anything is made from it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from brokers.engine.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    Claims,
    ClaimsRequest,
    GroupClaim,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteResponse,
    SnapshotChunk,
    SnapshotResponse,
    TimeoutNow,
    Vote,
    VoteResponse,
)
from brokers.engine.core.raft.records import Entry

_ENTRY = struct.Struct(">QBI")
_CLAIM = struct.Struct(">QQQ")
_RUN = struct.Struct(">QQ")

_FIXED: dict[type, tuple[int, struct.Struct]] = {
    PreVote: (1, struct.Struct(">BQQQQ")),
    PreVoteResponse: (2, struct.Struct(">BQQ?")),
    Vote: (3, struct.Struct(">BQQQQ?")),
    VoteResponse: (4, struct.Struct(">BQQ?")),
    AppendResponse: (6, struct.Struct(">BQQ?QQQQQ")),
    TimeoutNow: (7, struct.Struct(">BQQ")),
    SnapshotResponse: (10, struct.Struct(">BQQQQQ")),
    HeartbeatResponse: (12, struct.Struct(">BQQQ")),
    ClaimsRequest: (13, struct.Struct(">BQ")),
}
_APPEND = struct.Struct(">BQQQQQQI")
_INSTALL = struct.Struct(">BQQQQQQIH")
_CHUNK = struct.Struct(">BQQQQ?QII")
_HEARTBEAT = struct.Struct(">BQQQI")
_CLAIMS = struct.Struct(">BQI")


def encode(message: Message) -> list[bytes]:
    """``message`` as pieces to be joined or written one after the other."""
    kind = type(message)
    fixed = _FIXED.get(kind)
    if fixed is not None:
        return [fixed[1].pack(fixed[0], *message)]
    if isinstance(message, AppendEntries):
        group, term, prev_index, prev_term, commit, boot, entries = message
        head = _APPEND.pack(5, group, term, prev_index, prev_term, commit, boot, len(entries))
        return _with_entries(head, entries)
    if isinstance(message, Heartbeat):
        head = _HEARTBEAT.pack(11, message.boot, message.seq, message.digest, len(message.commits))
        return [head + _claims(message.commits)]
    if isinstance(message, Claims):
        return [_CLAIMS.pack(14, message.boot, len(message.claims)) + _claims(message.claims)]
    if isinstance(message, InstallSnapshot):
        *numbers, runs, membership = message
        head = _INSTALL.pack(8, *numbers, len(runs), len(membership))
        return [head + b"".join(_RUN.pack(*run) for run in runs) + membership]
    if isinstance(message, SnapshotChunk):
        entries = message.entries
        head = _CHUNK.pack(
            9, *message[:5], entries[0].index if entries else 0, len(entries), len(message.state)
        )
        pieces = _with_entries(head, entries)
        pieces.append(message.state)
        return pieces
    raise TypeError(f"{kind.__name__} is not a message between nodes")


def _with_entries(head: bytes, entries: Sequence[Entry]) -> list[bytes]:
    pack = _ENTRY.pack
    table = b"".join([pack(entry[2], entry[3], len(entry[4])) for entry in entries])
    pieces = [head + table]
    pieces.extend([entry[4] for entry in entries])
    return pieces


def _claims(claims: Sequence[GroupClaim]) -> bytes:
    return b"".join([_CLAIM.pack(*claim) for claim in claims])


def decode(data: memoryview | bytes) -> Message:
    """The message in ``data``, which is exactly one. Raises ``ValueError`` when it is malformed."""
    view = memoryview(data)
    if not view:
        raise ValueError("an empty message")
    decoder = _DECODERS.get(view[0])
    if decoder is None:
        raise ValueError(f"message type {view[0]} is unknown")
    return decoder(view)


def _fixed(kind: Callable[..., Message], shape: struct.Struct) -> Callable[[memoryview], Message]:
    def decoder(view: memoryview) -> Message:
        if len(view) != shape.size:
            raise ValueError(f"{kind.__name__} has {shape.size} bytes, got {len(view)}")
        return kind(*shape.unpack(view)[1:])

    return decoder


def _head(name: str, shape: struct.Struct, view: memoryview) -> tuple[int, ...]:
    if len(view) < shape.size:
        raise ValueError(f"{name} has at least {shape.size} bytes, got {len(view)}")
    return shape.unpack_from(view)


def _need(name: str, what: str, count: int, size: int, view: memoryview, start: int) -> int:
    end = start + count * size
    if end > len(view):
        raise ValueError(f"{name} announces {count} {what}, but only {len(view) - start} bytes follow")
    return end


def _entries(
    name: str, group: int, index: int, count: int, view: memoryview, start: int
) -> tuple[list[Entry], int]:
    at = _need(name, "entries", count, _ENTRY.size, view, start)
    found: list[Entry] = []
    size = len(view)
    for term, kind, length in _ENTRY.iter_unpack(view[start:at]):
        end = at + length
        if end > size:
            raise ValueError(f"{name} announces a payload of {length} bytes where {size - at} are left")
        found.append(Entry(group, index, term, kind, bytes(view[at:end])))
        index += 1
        at = end
    return found, at


def _ends(name: str, view: memoryview, end: int) -> None:
    if end != len(view):
        raise ValueError(f"{name} is followed by {len(view) - end} bytes that do not belong to it")


def _append(view: memoryview) -> Message:
    _, group, term, prev_index, prev_term, commit, boot, count = _head("AppendEntries", _APPEND, view)
    entries, end = _entries("AppendEntries", group, prev_index + 1, count, view, _APPEND.size)
    _ends("AppendEntries", view, end)
    return AppendEntries(group, term, prev_index, prev_term, commit, boot, entries)


def _claims_of(name: str, count: int, view: memoryview, start: int) -> list[GroupClaim]:
    end = _need(name, "groups", count, _CLAIM.size, view, start)
    _ends(name, view, end)
    return list(_CLAIM.iter_unpack(view[start:end]))


def _heartbeat(view: memoryview) -> Message:
    _, boot, seq, digest, count = _head("Heartbeat", _HEARTBEAT, view)
    return Heartbeat(boot, seq, digest, _claims_of("Heartbeat", count, view, _HEARTBEAT.size))


def _claims_message(view: memoryview) -> Message:
    _, boot, count = _head("Claims", _CLAIMS, view)
    return Claims(boot, _claims_of("Claims", count, view, _CLAIMS.size))


def _install(view: memoryview) -> Message:
    _, *numbers, runs, length = _head("InstallSnapshot", _INSTALL, view)
    group, term, transfer, index, snapshot_term, keep_from = numbers
    middle = _need("InstallSnapshot", "term runs", runs, _RUN.size, view, _INSTALL.size)
    _ends("InstallSnapshot", view, middle + length)
    terms = tuple(_RUN.iter_unpack(view[_INSTALL.size : middle]))
    membership = bytes(view[middle:])
    return InstallSnapshot(group, term, transfer, index, snapshot_term, keep_from, terms, membership)


def _chunk(view: memoryview) -> Message:
    _, group, term, transfer, seq, done, first, count, length = _head("SnapshotChunk", _CHUNK, view)
    entries, end = _entries("SnapshotChunk", group, first, count, view, _CHUNK.size)
    _ends("SnapshotChunk", view, end + length)
    return SnapshotChunk(group, term, transfer, seq, bool(done), entries, bytes(view[end:]))


_DECODERS: dict[int, Callable[[memoryview], Message]] = {
    5: _append,
    8: _install,
    9: _chunk,
    11: _heartbeat,
    14: _claims_message,
    **{number: _fixed(kind, shape) for kind, (number, shape) in _FIXED.items()},
}
