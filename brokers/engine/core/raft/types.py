"""The words consensus and the node share: membership, settings, roles, and what a turn asks for."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from brokers.engine.core.raft.messages import Message
from brokers.engine.core.raft.records import Record, Snapshot

_HEAD = struct.Struct(">BHH")
_BASE = struct.Struct(">Q")
_FORMAT = 1


class Membership(NamedTuple):
    """Who holds a copy of a group: voters decide, learners only receive. Sorted tuples of node ids."""

    voters: tuple[int, ...]
    learners: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, voters: tuple[int, ...] | list[int], learners: tuple[int, ...] | list[int] = ()
    ) -> Membership:
        """A membership in its canonical form. Raises ``ValueError`` when a node is both voter and learner."""
        both = set(voters) & set(learners)
        if both:
            raise ValueError(f"node {min(both)} cannot be voter and learner of a group at once")
        return cls(tuple(sorted(set(voters))), tuple(sorted(set(learners))))

    @property
    def members(self) -> tuple[int, ...]:
        """All nodes that hold a copy, voters first."""
        return self.voters + self.learners

    @property
    def quorum(self) -> int:
        """How many voters are a majority."""
        return len(self.voters) // 2 + 1

    def encode(self, base_term: int | None = None) -> bytes:
        """As bytes. ``base_term`` (snapshots only) is the term of the entry before ``keep_from``."""
        ids = self.members
        body = _HEAD.pack(_FORMAT, len(self.voters), len(self.learners)) + struct.pack(f">{len(ids)}H", *ids)
        return body if base_term is None else body + _BASE.pack(base_term)

    @classmethod
    def decode(cls, data: bytes) -> Membership:
        """The membership in ``data``; a snapshot's base term is passed over. Raises ``ValueError``."""
        return decode_membership(data)[0]


def decode_membership(data: bytes) -> tuple[Membership, int | None]:
    """The membership in ``data`` and its base term, if it carries one. Raises ``ValueError``."""
    if len(data) < _HEAD.size:
        raise ValueError(f"a membership has at least {_HEAD.size} bytes, got {len(data)}")
    version, voters, learners = _HEAD.unpack_from(data)
    if version != _FORMAT:
        raise ValueError(f"membership format {version} is unknown (this version reads {_FORMAT})")
    end = _HEAD.size + 2 * (voters + learners)
    if len(data) not in (end, end + _BASE.size):
        raise ValueError(f"a membership of {voters}+{learners} nodes has {end} bytes, got {len(data)}")
    ids = struct.unpack_from(f">{voters + learners}H", data, _HEAD.size)
    base = _BASE.unpack_from(data, end)[0] if len(data) > end else None
    return Membership(tuple(ids[:voters]), tuple(ids[voters:])), base


class Refused(Exception):
    """A change of membership or a transfer that cannot be done now; the text says why and what to do."""


class Role(IntEnum):
    """What a member is in its group."""

    FOLLOWER = 0
    LEARNER = 1
    PRE_CANDIDATE = 2
    CANDIDATE = 3
    LEADER = 4


@dataclass(frozen=True, slots=True)
class Settings:
    """Times are in seconds, sizes in bytes of payload.

    ``prompt`` is the range of the random wait after a peer's connection has ended (its process is most
    likely gone). ``retry`` is how long an append may stay unanswered before it is probed again.
    Followers of the groups in ``eager`` are told of every commit at once, others by the next heartbeat.
    """

    heartbeat: float = 0.05
    election_timeout: float = 0.5
    prompt: tuple[float, float] = (0.010, 0.050)
    retry: float = 0.5
    max_append_bytes: int = 1 << 20
    max_inflight_bytes: int = 16 << 20
    max_inflight_messages: int = 256
    chunk_bytes: int = 1 << 20
    chunk_window: int = 4
    campaigns_per_tick: int = 256
    commits_per_heartbeat: int = 4096
    eager: frozenset[int] = frozenset()


class RoleChange(NamedTuple):
    """A member's role, term or believed leader (0: unknown) is another now."""

    group: int
    role: Role
    term: int
    leader: int


class Committed(NamedTuple):
    """Entries ``low`` to ``high`` (both included) of ``group`` are decided: apply them in order."""

    group: int
    low: int
    high: int


@dataclass(slots=True)
class Ready:
    """What a turn asks of the driver, in this order.

    Append ``records`` to storage, in order, so that the ``LogReader`` sees them (one sync makes them durable:
    then ``Multi.persisted(token)``); send ``messages``; restore ``installed`` snapshots; apply
    ``committed``. ``token`` is 0 when there are no records. ``repaired`` groups are whole again: storage may
    forget that they were damaged.
    """

    token: int = 0
    records: list[Record] = field(default_factory=list)
    messages: list[tuple[int, Message]] = field(default_factory=list)
    installed: list[Snapshot] = field(default_factory=list)
    committed: list[Committed] = field(default_factory=list)
    role_changes: list[RoleChange] = field(default_factory=list)
    repaired: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FollowerStatus:
    """How far a follower is, as its leader knows. ``lag`` is in entries, ``state`` how it is being fed."""

    node: int
    match: int
    lag: int
    state: str
    reachable: bool


@dataclass(frozen=True, slots=True)
class Status:
    """A member's view of its group. ``followers`` is empty where the member does not lead.

    ``transferring`` is the node that leadership is being handed to (0: none), ``installing`` tells that a
    snapshot is arriving, ``damaged`` that the log waits for repair, ``changing`` that ``membership`` is not
    committed yet.
    """

    group: int
    role: Role
    term: int
    leader: int
    commit: int
    applied: int
    first: int
    last: int
    membership: Membership
    followers: tuple[FollowerStatus, ...]
    transferring: int
    installing: bool
    damaged: bool
    changing: bool
