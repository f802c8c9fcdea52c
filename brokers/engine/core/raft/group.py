"""One group's member: recovery, and the dispatch of what is said to it."""

from __future__ import annotations

from collections.abc import Callable

from brokers.engine.core.raft.follower import Follower
from brokers.engine.core.raft.host import Host
from brokers.engine.core.raft.log import clip
from brokers.engine.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    GroupMessage,
    InstallSnapshot,
    PreVote,
    PreVoteResponse,
    SnapshotChunk,
    SnapshotResponse,
    TimeoutNow,
    Vote,
    VoteResponse,
)
from brokers.engine.core.raft.records import KIND_CONFIG, GroupImage, Snapshot
from brokers.engine.core.raft.types import (
    FollowerStatus,
    Membership,
    Refused,
    Role,
    Status,
    decode_membership,
)

_SCAN_BYTES = 4 << 20

_FromLeader = AppendEntries | InstallSnapshot | SnapshotChunk | TimeoutNow


class Group(Follower):
    """A member of one group; ``Multi`` holds many."""

    __slots__ = ()

    # Recovery.

    @classmethod
    def restore(cls, image: GroupImage, host: Host, bootstrap: Membership) -> tuple[Group, Snapshot | None]:
        """The member as it was left on disk, and the snapshot its state machine starts from (None: empty).

        ``bootstrap`` is the membership the group was founded with, in force until the log says otherwise.
        Of a damaged log only what lies before the damage counts. Raises ``ValueError`` for an image that no
        sequence of our records can have left.
        """
        group = cls(image.group, host, bootstrap)
        group.term, group.vote = image.hard.term, image.hard.vote
        snapshot = image.snapshot
        damaged = image.damaged
        if snapshot is not None:
            group.configs = [(snapshot.index, Membership.decode(snapshot.membership))]
        if snapshot is not None and damaged is not None and damaged <= snapshot.index:
            group.configs = [(0, group.configs[0][1])]
            snapshot = None
            damaged = 1
        group._restore_log(image, snapshot, damaged)
        if group.log.last_term > group.term:
            raise ValueError(
                f"group {image.group} has an entry of term {group.log.last_term} in term {group.term}"
            )
        group._restore_configs(image.configs)
        group.adopt_membership()
        group.role = group.passive_role
        return group, snapshot

    def _restore_log(self, image: GroupImage, snapshot: Snapshot | None, damaged: int | None) -> None:
        index, term, keep_from, base = 0, 0, 1, 0
        if snapshot is not None:
            index, term, keep_from = snapshot.index, snapshot.term, snapshot.keep_from
            base = decode_membership(snapshot.membership)[1] or 0
        first, last = image.first, image.last
        if first > index + 1 and last >= first:
            damaged = index + 1
        if damaged is not None:
            self.damaged = True
            last = min(last, damaged - 1)
        for start, run_term in image.terms:
            if run_term == 0 and start > index:
                last = min(last, start - 1)
        runs = [run for run in image.terms if run[0] <= last]
        while runs and runs[0][1] == 0:
            first = runs[1][0] if len(runs) > 1 else last + 1
            del runs[0]
        if last < index or first > last:
            first, last, runs = index + 1, index, []
            base_term: int | None = term
        elif first < keep_from:
            runs, first, base_term = clip(runs, keep_from), keep_from, base
        else:
            base_term = base if first == keep_from else (term if first == index + 1 else None)
        if first > last:
            first, last, runs = last + 1, last, []
            base_term = term
        self.log.reset(index, term, base_term, runs, first, last)
        self.commit = self.handed = index

    def _restore_configs(self, known: tuple[int, ...] | None) -> None:
        """Find the changes of membership above the snapshot."""
        low, last = self.log.snapshot_index + 1, self.log.last
        read = self.host.reader.read
        if known is not None:
            for index in known:
                if low <= index <= last:
                    payload = read(self.id, index, index, _SCAN_BYTES)[0].payload
                    self.configs.append((index, Membership.decode(payload)))
            return
        while low <= last:
            for entry in read(self.id, low, last, _SCAN_BYTES):
                if entry.kind == KIND_CONFIG:
                    self.configs.append((entry.index, Membership.decode(entry.payload)))
                low = entry.index + 1

    # Compaction.

    def make_snapshot(self, index: int, state: bytes, keep_from: int) -> Snapshot:
        """A snapshot of the applied ``state`` at ``index``. Raises ``ValueError``."""
        if not self.log.snapshot_index <= index <= self.handed:
            raise ValueError(
                f"group {self.id}: a snapshot at {index} is not between the last one at"
                f" {self.log.snapshot_index} and what has been handed out for applying, {self.handed}"
            )
        if not self.log.first <= keep_from <= index + 1:
            raise ValueError(
                f"group {self.id}: keep_from {keep_from} is not in [{self.log.first}, {index + 1}]"
            )
        term, base = self.log.term(index), self.log.term(keep_from - 1)
        if term is None or base is None:
            raise ValueError(f"group {self.id}: the term at {index} or {keep_from - 1} is not known")
        return Snapshot(self.id, index, term, self.membership_at(index).encode(base), state, keep_from)

    def compact(self, snapshot: Snapshot) -> None:
        """Entries below ``snapshot.keep_from`` may go. Raises ``ValueError``."""
        membership, base = decode_membership(snapshot.membership)
        if base is None:
            raise ValueError(f"group {self.id}: a snapshot is made with make_snapshot()")
        if snapshot.index > self.commit or self.log.term(snapshot.index) != snapshot.term:
            raise ValueError(f"group {self.id}: a snapshot at {snapshot.index} is not of committed entries")
        if snapshot.index < self.log.snapshot_index:
            return
        self.log.compact(snapshot.index, snapshot.term, snapshot.keep_from)
        newer = [config for config in self.configs if config[0] > snapshot.index]
        self.configs = [(snapshot.index, membership), *newer]

    # Messages.

    def receive(self, node: int, message: GroupMessage) -> None:
        """``node`` says ``message``."""
        kind = type(message)
        if kind is PreVote:
            self.on_pre_vote(node, message)  # type: ignore[arg-type]  # by its type
            return
        if message.term != self.term and not self._settle_term(node, message):
            return
        if kind in _LEADERS:
            peer = self.host.peer(node)
            peer.heard_at, peer.alive = self.host.now, True
            if self.leader != node:
                if self.role is Role.LEADER:
                    raise AssertionError(
                        f"group {self.id}: node {node} leads term {self.term} as well as we do"
                    )
                self.follow(self.term, node)
        _HANDLERS[kind](self, node, message)

    def _settle_term(self, node: int, message: GroupMessage) -> bool:
        """Come to terms with a message of another term. False: there is nothing more to do."""
        if message.term > self.term:
            if isinstance(message, PreVoteResponse) and message.granted:
                return True
            if isinstance(message, Vote):
                if not self.host.disk_healthy:
                    return False
                if not message.force and self.leader_alive and node != self.leader:
                    return False
            self.follow(message.term, node if isinstance(message, _FromLeader) else 0)
            return True
        if isinstance(message, AppendEntries | InstallSnapshot | SnapshotChunk):
            self.refuse_old_leader(node)
        elif isinstance(message, Vote):
            self.host.send_durable(self, node, VoteResponse(self.id, self.term, False))
        return False

    def claimed_by(self, node: int, term: int, commit: int) -> None:
        """``node`` says that it leads this group in ``term``."""
        if term < self.term:
            self.refuse_old_leader(node)
        elif self.role is not Role.LEADER or term > self.term:
            if term > self.term or self.leader != node:
                self.follow(term, node)
            self.learn_commit(commit)

    def status(self) -> Status:
        """A snapshot of this member's view."""
        host, last = self.host, self.log.last
        followers = tuple(
            FollowerStatus(
                node,
                progress.match,
                last - progress.match,
                progress.feed.value,
                host.peer(node).reachable,
            )
            for node, progress in sorted(self.progress.items())
        )
        return Status(
            self.id,
            self.role,
            self.term,
            self.leader,
            self.commit,
            self.handed,
            self.log.first,
            last,
            self.membership,
            followers,
            self.transferee,
            self.installing or self.receiver is not None,
            self.damaged,
            self.configs[-1][0] > self.commit,
        )

    def require_leader(self) -> None:
        """Raises ``Refused`` when this member does not lead, or is handing leadership on."""
        if self.role is not Role.LEADER:
            raise Refused(f"group {self.id} is not led here; its leader is node {self.leader or 'unknown'}")
        if self.transferee:
            raise Refused(f"group {self.id} is being handed to node {self.transferee}; ask it")


_LEADERS = frozenset({AppendEntries, InstallSnapshot, SnapshotChunk})

_HANDLERS: dict[type, Callable[..., None]] = {
    PreVoteResponse: Group.on_pre_vote_response,
    Vote: Group.on_vote,
    VoteResponse: Group.on_vote_response,
    AppendEntries: Group.on_append,
    AppendResponse: Group.on_append_response,
    TimeoutNow: Group.on_timeout_now,
    InstallSnapshot: Group.on_install,
    SnapshotChunk: Group.on_chunk,
    SnapshotResponse: Group.on_snapshot_response,
}
