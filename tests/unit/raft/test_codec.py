from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.engine.core.raft.codec import decode, encode
from brokers.engine.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    Claims,
    ClaimsRequest,
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

number = st.integers(0, (1 << 63) - 1)
triples = st.lists(st.tuples(number, number, number), max_size=5)
payloads = st.lists(st.tuples(number, st.integers(0, 255), st.binary(max_size=50)), max_size=6)


def entries(group: int, first: int, items: list[tuple[int, int, bytes]]) -> list[Entry]:
    return [Entry(group, first + at, *item) for at, item in enumerate(items)]


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(PreVote, number, number, number, number),
    st.builds(PreVoteResponse, number, number, st.booleans()),
    st.builds(Vote, number, number, number, number, st.booleans()),
    st.builds(VoteResponse, number, number, st.booleans()),
    st.builds(AppendResponse, number, number, st.booleans(), number, number, number, number, number),
    st.builds(TimeoutNow, number, number),
    st.builds(SnapshotResponse, number, number, number, number, number),
    st.builds(HeartbeatResponse, number, number, number),
    st.builds(ClaimsRequest, number),
    st.builds(Heartbeat, number, number, number, triples),
    st.builds(Claims, number, triples),
    st.builds(
        lambda group, prev, items: AppendEntries(group, 5, prev, 4, 3, 2, entries(group, prev + 1, items)),
        number,
        st.integers(0, 1 << 60),
        payloads,
    ),
    st.builds(
        lambda runs, membership: InstallSnapshot(1, 2, 3, 4, 5, 6, tuple(runs), membership),
        st.lists(st.tuples(number, number), max_size=5),
        st.binary(max_size=30),
    ),
    st.builds(
        lambda items, state, done: SnapshotChunk(1, 2, 3, 4, done, entries(1, 77, items), state),
        payloads,
        st.binary(max_size=30),
        st.booleans(),
    ),
)


@given(messages)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    assert decode(b"".join(encode(message))) == message


@given(messages, st.data())
def test_cut_or_changed_messages_are_refused_or_are_others(message: Message, data: st.DataObject) -> None:
    whole = b"".join(encode(message))
    with pytest.raises(ValueError, match=r"."):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ValueError, match=r"."):
        decode(whole + b"x")


@given(st.binary(max_size=200))
def test_noise_raises_value_error_only(noise: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode(memoryview(noise))


def test_announced_entries_must_be_there() -> None:
    whole = bytearray(b"".join(encode(AppendEntries(1, 1, 0, 0, 0, 0, []))))
    whole[-4:] = b"\xff\xff\xff\xff"
    with pytest.raises(ValueError, match="announces 4294967295 entries, but only 0 bytes follow"):
        decode(bytes(whole))


def test_payloads_pass_through_uncopied() -> None:
    payload = b"p" * 1000
    pieces = encode(AppendEntries(1, 1, 0, 0, 0, 0, [Entry(1, 1, 1, 2, payload)]))
    assert any(piece is payload for piece in pieces)
