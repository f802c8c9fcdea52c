"""Both ends of a snapshot transfer: its data entries and its state, in bounded chunks that are acknowledged.

A snapshot refers to entries [keep_from, index] of the log, which may be far more than fits in memory. So
the data is written at the receiver as it comes, ahead of the snapshot's record, and counts only once that
record is durable too. Until then the receiver's own log stays what it was: the data lies beyond its end, or,
where the receiver's log conflicts with it, behind an entry of term 0 that marks the end (see ``Follower``).
"""

from __future__ import annotations

from collections import deque

from brokers.engine.core.raft.messages import InstallSnapshot, SnapshotChunk
from brokers.engine.core.raft.records import LogReader, Snapshot

Cursor = tuple[int, int]
"""(next data entry, offset in the state)."""


class Sender:
    """A transfer under way, as the leader sees it. Chunks not acknowledged in time are sent again."""

    __slots__ = (
        "_cursor",
        "_flying",
        "_resumed",
        "_seq",
        "accepted",
        "done",
        "offered",
        "snapshot",
        "transfer",
    )

    def __init__(self, snapshot: Snapshot, transfer: int) -> None:
        self.snapshot = snapshot
        self.transfer = transfer
        self.offered = False
        self.accepted = False
        self.done = False
        self._resumed = False
        self._seq = 1
        self._cursor: Cursor = (snapshot.keep_from, 0)
        self._flying: deque[tuple[int, Cursor]] = deque()

    @property
    def lowest(self) -> int:
        """The lowest entry that may still have to be read."""
        return self._flying[0][1][0] if self._flying else self._cursor[0]

    def acknowledged(self, next_seq: int) -> bool:
        """Chunks below ``next_seq`` are durable there; True when there may be more to send now."""
        if next_seq > self._seq:
            return False
        oldest = self._flying[0][0] if self._flying else self._seq
        if next_seq < oldest and not (self._resumed and next_seq == 1):
            return False
        news = not self.accepted or next_seq > oldest
        while self._flying and self._flying[0][0] < next_seq:
            self._flying.popleft()
        if self._resumed:
            if next_seq < oldest:
                self._seq, self._cursor, self.done = 1, (self.snapshot.keep_from, 0), False
            elif self._flying:
                (self._seq, self._cursor), self.done = self._flying[0], False
            self._flying.clear()
        self.accepted, self._resumed = True, False
        return news

    def rewind(self) -> None:
        """Offer again, and go on from what the receiver then says it has."""
        self._resumed = self.accepted or self._resumed
        self.offered = self.accepted = False

    def chunk(self, reader: LogReader, group: int, term: int, window: int, size: int) -> SnapshotChunk | None:
        """The next chunk, None when enough is on its way. Raises ``LookupError`` when data has gone."""
        if not self.accepted or self.done or len(self._flying) >= window:
            return None
        snapshot = self.snapshot
        index, offset = self._cursor
        before, seq = self._cursor, self._seq
        if index <= snapshot.index:
            entries = reader.read(group, index, snapshot.index, size)
            self._cursor = (entries[-1].index + 1, 0)
            chunk = SnapshotChunk(group, term, self.transfer, seq, False, entries, b"")
        else:
            piece = snapshot.state[offset : offset + size]
            self._cursor = (index, offset + len(piece))
            self.done = offset + len(piece) >= len(snapshot.state)
            chunk = SnapshotChunk(group, term, self.transfer, seq, self.done, (), piece)
        self._flying.append((seq, before))
        self._seq += 1
        return chunk


class Receiver:
    """A transfer under way, as the receiver sees it: chunks are taken in order only."""

    __slots__ = ("next_index", "next_seq", "offer", "state")

    def __init__(self, offer: InstallSnapshot) -> None:
        self.offer = offer
        self.next_seq = 1
        self.next_index = offer.keep_from
        self.state: list[bytes] = []

    def take(self, chunk: SnapshotChunk) -> bool:
        """True when ``chunk`` is the next one; its entries are then to be written."""
        if chunk.seq != self.next_seq:
            return False
        if chunk.entries:
            if chunk.entries[0].index != self.next_index:
                raise ValueError(
                    f"chunk {chunk.seq} of group {chunk.group} starts at entry {chunk.entries[0].index},"
                    f" expected {self.next_index}"
                )
            self.next_index = chunk.entries[-1].index + 1
        self.next_seq += 1
        self.state.append(chunk.state)
        return True

    def snapshot(self) -> Snapshot:
        """The snapshot, once its last chunk is here."""
        offer = self.offer
        if self.next_index != offer.snapshot_index + 1:
            raise ValueError(
                f"snapshot {offer.snapshot_index} of group {offer.group} came with entries"
                f" up to {self.next_index - 1} only"
            )
        return Snapshot(
            offer.group,
            offer.snapshot_index,
            offer.snapshot_term,
            offer.membership,
            b"".join(self.state),
            offer.keep_from,
        )
