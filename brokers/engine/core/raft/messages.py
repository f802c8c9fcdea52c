"""What nodes say to each other about their groups.

All but the last four belong to one group. Sources: Raft (Ongaro, Ousterhout 2014) figures 2 and 13; pre-vote
and leadership transfer: Ongaro's thesis, 9.6 and 3.10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from brokers.engine.core.raft.records import Entry

GroupClaim = tuple[int, int, int]
"""(group, term, commit) of a group that the sender leads."""


class PreVote(NamedTuple):
    """Would you vote for me in ``term``? Changes nothing at either side."""

    group: int
    term: int
    last_index: int
    last_term: int


class PreVoteResponse(NamedTuple):
    """``term`` is the asked one when granted, else the responder's own."""

    group: int
    term: int
    granted: bool


class Vote(NamedTuple):
    """Vote for me in ``term``. ``force``: our leader asked me to, so do not wait for its silence."""

    group: int
    term: int
    last_index: int
    last_term: int
    force: bool


class VoteResponse(NamedTuple):
    """``term`` is the responder's."""

    group: int
    term: int
    granted: bool


class AppendEntries(NamedTuple):
    """Entries from ``prev_index`` + 1 on. ``boot``: the receiver's boot as its leader knows it, 0 unknown."""

    group: int
    term: int
    prev_index: int
    prev_term: int
    commit: int
    boot: int
    entries: Sequence[Entry]


class AppendResponse(NamedTuple):
    """Success: all up to ``match_index`` matches the leader's log and is durable.

    Failure: ``match_index`` is the ``prev_index`` that did not match, and (``hint_index``, ``hint_term``) the
    responder's highest entry that may. ``commit`` is what it knows to be committed, ``boot`` its boot.
    """

    group: int
    term: int
    success: bool
    match_index: int
    hint_index: int
    hint_term: int
    commit: int
    boot: int


class TimeoutNow(NamedTuple):
    """Campaign at once: you hold all I have, and I wish you to lead."""

    group: int
    term: int


class InstallSnapshot(NamedTuple):
    """A snapshot is on offer; its data and state follow in chunks once the receiver has agreed.

    ``terms`` are the (first index, term) runs of the entries [keep_from - 1, snapshot_index], so that a
    receiver finds out whether its log matches anywhere there, in which case it needs no snapshot.
    """

    group: int
    term: int
    transfer: int
    snapshot_index: int
    snapshot_term: int
    keep_from: int
    terms: tuple[tuple[int, int], ...]
    membership: bytes


class SnapshotChunk(NamedTuple):
    """Chunk ``seq`` (from 1) of a transfer: data entries in order first, then pieces of the state."""

    group: int
    term: int
    transfer: int
    seq: int
    done: bool
    entries: Sequence[Entry]
    state: bytes


class SnapshotResponse(NamedTuple):
    """Chunks below ``next_seq`` are durable (1: the offer is taken)."""

    group: int
    term: int
    transfer: int
    next_seq: int
    boot: int


class Heartbeat(NamedTuple):
    """The sender lives. ``digest`` sums up what it leads that the receiver is member of.

    ``commits`` are commit indexes the receiver has not heard of yet.
    """

    boot: int
    seq: int
    digest: int
    commits: Sequence[GroupClaim]


class HeartbeatResponse(NamedTuple):
    """Answers heartbeat ``seq`` of the boot ``to``."""

    boot: int
    to: int
    seq: int


class ClaimsRequest(NamedTuple):
    """Our digests differ: which groups do you lead that I am member of?"""

    boot: int


class Claims(NamedTuple):
    """All groups that the sender leads and the receiver is member of."""

    boot: int
    claims: Sequence[GroupClaim]


GroupMessage = (
    PreVote
    | PreVoteResponse
    | Vote
    | VoteResponse
    | AppendEntries
    | AppendResponse
    | TimeoutNow
    | InstallSnapshot
    | SnapshotChunk
    | SnapshotResponse
)
NodeMessage = Heartbeat | HeartbeatResponse | ClaimsRequest | Claims
Message = GroupMessage | NodeMessage
