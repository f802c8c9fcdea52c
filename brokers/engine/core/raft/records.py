"""What consensus asks storage to keep, and what storage gives back after a restart.

The vocabulary between ``core.raft`` (which decides) and ``storage`` (which writes). Everything is a
plain tuple, so that neither side has to know the other.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

KIND_NOOP = 0
"""The empty entry by which a leader opens its term."""
KIND_CONFIG = 1
"""A change of membership; the payload is an encoded ``Membership``."""
KIND_DATA = 2
"""A payload of the replicated state machine, opaque to consensus and to storage."""


class Entry(NamedTuple):
    """One entry of a group's replicated log, as it lies on disk.

    An entry whose index is not above the group's last one replaces it and everything after it.
    """

    group: int
    index: int  # type: ignore[assignment]  # Raft's own word, and nobody looks up values in an entry
    term: int
    kind: int
    payload: bytes


class HardState(NamedTuple):
    """What a member must never forget (Raft, figure 2): its term and whom it voted for in it (0: nobody)."""

    group: int
    term: int
    vote: int


class Snapshot(NamedTuple):
    """A group's applied state at ``index``; entries up to it may have been dropped.

    ``membership`` is the encoded membership in force at ``index``; ``state`` is the state machine's own
    encoding and opaque here. ``keep_from`` is the oldest index that the state still refers to (message
    bodies stay in the log): entries in [keep_from, index] are data of the snapshot.
    """

    group: int
    index: int  # type: ignore[assignment]  # Raft's own word, and nobody looks up values in an entry
    term: int
    membership: bytes
    state: bytes
    keep_from: int


class Removed(NamedTuple):
    """The group is gone from this node; all its records may be dropped."""

    group: int


Record = Entry | HardState | Snapshot | Removed


class GroupImage(NamedTuple):
    """A group as recovered from disk.

    ``terms`` is run-length: (first index, term) of every run of equal terms in the kept entries,
    ascending. ``first`` is the lowest and ``last`` the highest index present (last = first - 1 when there
    is none). ``damaged`` names the first index whose record was lost to damage *below* what had been
    synced (None: intact): such a member must not vote or lead before its peers have repaired it.
    ``configs`` lists the indexes of the kept ``KIND_CONFIG`` entries, ascending (None: not known; the log
    above the snapshot is then read through to find them).
    """

    group: int
    hard: HardState
    snapshot: Snapshot | None
    first: int
    last: int
    terms: list[tuple[int, int]]
    damaged: int | None
    configs: tuple[int, ...] | None = None


class LogReader(Protocol):
    """Read access to the entries of all groups of a node, appended-but-unsynced ones included."""

    def read(self, group: int, low: int, high: int, max_bytes: int) -> list[Entry]:
        """Entries of ``group`` from ``low`` to ``high``, both included, in order.

        Stops before the entry that would exceed ``max_bytes`` of payload, but returns at least one.
        Raises ``LookupError`` when ``low`` is not in the log.
        """
        ...


class SnapshotReader(LogReader, Protocol):
    """A log reader that also hands out the snapshots a lagging member is rebuilt from."""

    def snapshot(self, group: int) -> Snapshot:
        """The newest snapshot of ``group`` whose data entries are still in the log.

        Raises ``LookupError`` when there is none.
        """
        ...
