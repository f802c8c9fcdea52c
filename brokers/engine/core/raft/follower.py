"""The follower's side: taking entries and snapshots from a leader."""

from __future__ import annotations

from collections.abc import Sequence

from brokers.engine.core.raft.candidate import Candidate
from brokers.engine.core.raft.host import InstallDone, RepairDone
from brokers.engine.core.raft.install import Receiver
from brokers.engine.core.raft.log import LogIndex, clip
from brokers.engine.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    InstallSnapshot,
    SnapshotChunk,
    SnapshotResponse,
    TimeoutNow,
)
from brokers.engine.core.raft.records import KIND_CONFIG, KIND_NOOP, Entry
from brokers.engine.core.raft.types import Membership, decode_membership


class Follower(Candidate):
    """What a member does for the leader of its term."""

    __slots__ = ()

    def on_append(self, node: int, message: AppendEntries) -> None:
        """Take the entries that follow what we share with the leader, and answer once they are durable."""
        prev, entries, log = message.prev_index, message.entries, self.log
        end = prev + len(entries)
        if prev > self.commit and log.term(prev) != message.prev_term:
            self._reject(node, message)
            return
        if entries:
            self._take(entries)
        if end > self.verified:
            self.verified = end
        self.learn_commit(message.commit)
        index = max(end, self.commit)
        self._acknowledge(node, index)
        if self.damaged:
            if message.boot == self.host.boot and self.repair[0] != self.term:
                self.repair = (self.term, message.commit)
            self._check_repair()

    def _take(self, entries: Sequence[Entry]) -> None:
        """Append what we lack. Only a conflicting term makes us drop entries, never a shorter message."""
        log, host = self.log, self.host
        for at, entry in enumerate(entries):
            index = entry.index
            if index <= self.commit:
                continue
            if index <= log.last:
                if log.term(index) == entry.term:
                    continue
                log.truncate(index)
                self.truncate_configs(index)
            self.receiver = None
            fresh = entries[at:] if at else entries
            for new in fresh:
                log.append(new[2])
                if new[3] == KIND_CONFIG:
                    self._take_config(new)
            host.records.extend(fresh)
            self.token = host.token
            return

    def _take_config(self, entry: Entry) -> None:
        self.configs.append((entry.index, Membership.decode(entry.payload)))
        self.adopt_membership()

    def learn_commit(self, commit: int) -> None:
        """The leader has committed up to ``commit``; that counts as far as our log is known to match."""
        commit = min(commit, self.verified)
        if commit > self.commit:
            self.commit = commit
            self.host.touch(self)
            if self.damaged:
                self._check_repair()

    def _acknowledge(self, node: int, index: int) -> None:
        boot = self.host.boot
        message = AppendResponse(self.id, self.term, True, index, 0, 0, self.commit, boot)
        self.host.acknowledge(self, node, message)

    def _reject(self, node: int, message: AppendEntries) -> None:
        index, term = self.log.possible_match(message.prev_index, message.prev_term)
        if index < self.commit:
            index, term = self.commit, self.log.term(self.commit) or 0
        self.host.send_durable(
            self,
            node,
            AppendResponse(
                self.id, self.term, False, message.prev_index, index, term, self.commit, self.host.boot
            ),
        )

    def refuse_old_leader(self, node: int) -> None:
        """``node`` believes to lead in a term that is over: tell it ours."""
        answer = AppendResponse(self.id, self.term, False, 0, 0, 0, 0, self.host.boot)
        self.host.send_durable(self, node, answer)

    def _check_repair(self) -> None:
        """Is all here again that we may have acknowledged before the damage?

        It is when we hold what the leader had committed at a moment when it knew this boot of ours (so that
        no acknowledgement from before the damage counts any more), up to an entry of its own term (so
        that nothing its predecessors committed is missing).
        """
        term, commit = self.repair
        if term != self.term or self.commit < commit or self.log.term(self.commit) != term:
            return
        if self.token > self.host.durable:
            self.host.tell_self(self, RepairDone(self.id))
        else:
            self.on_repaired()

    def on_repaired(self) -> None:
        """... and durable."""
        if self.damaged:
            self.damaged = False
            self.host.repaired.append(self.id)

    def on_timeout_now(self, node: int, message: TimeoutNow) -> None:
        """The leader wishes us to lead."""
        if self.promotable:
            self.elect(force=True)

    # Snapshots.

    def on_install(self, node: int, offer: InstallSnapshot) -> None:
        """A snapshot is on offer: say that we do not need it, or get ready for it."""
        if offer.snapshot_index <= self.commit:
            self._acknowledge(node, self.commit)
            return
        shared = self._shared(offer)
        if shared is not None:
            self.verified = max(self.verified, shared)
            self._acknowledge(node, shared)
            return
        if self.receiver is None or self.receiver.offer != offer:
            decode_membership(offer.membership)
            self.receiver = Receiver(offer)
            mark = offer.keep_from - 1
            if self.log.last >= mark:
                self._cut_off(mark)
        self._want(node, self.receiver)

    def _cut_off(self, mark: int) -> None:
        """Our log conflicts from ``mark`` on: end it there durably, before foreign data follows it.

        Otherwise a crash halfway would leave our stale entries followed by the leader's, as if they were one
        log. An entry of term 0 tells recovery where the log ends (``restore``).
        """
        self.log.truncate(mark)
        self.truncate_configs(mark)
        self.host.record(self, Entry(self.id, mark, 0, KIND_NOOP, b""))

    def _shared(self, offer: InstallSnapshot) -> int | None:
        """The highest entry within the snapshot's reach that our log has in common with the leader's."""
        log = self.log
        high = min(log.last, offer.snapshot_index)
        if self.commit >= offer.keep_from - 1:
            return self.commit
        for start, term in reversed(offer.terms):
            index = high
            while index >= start:
                mine = log.term(index)
                if mine == term:
                    return index
                if mine is None or mine < term:
                    break
                index = log.run_start(index) - 1
            high = min(high, start - 1)
        return None

    def _want(self, node: int, receiver: Receiver) -> None:
        offer, boot = receiver.offer, self.host.boot
        response = SnapshotResponse(self.id, self.term, offer.transfer, receiver.next_seq, boot)
        self.host.send_durable(self, node, response)

    def on_chunk(self, node: int, chunk: SnapshotChunk) -> None:
        """Write a piece of the snapshot's data, or put the snapshot in force with the last piece."""
        receiver = self.receiver
        if receiver is None or receiver.offer.transfer != chunk.transfer or receiver.offer.term != chunk.term:
            if chunk.done and self.commit and not receiver:
                self._acknowledge(node, self.commit)
            return
        if receiver.take(chunk):
            for entry in chunk.entries:
                self.host.record(self, entry)
            if chunk.done:
                self._install(node, receiver)
                return
        self._want(node, receiver)

    def _install(self, node: int, receiver: Receiver) -> None:
        snapshot, offer = receiver.snapshot(), receiver.offer
        self.receiver = None
        membership, base = decode_membership(snapshot.membership)
        runs = clip(list(offer.terms), offer.keep_from)
        self.log = LogIndex()
        self.log.reset(
            snapshot.index,
            snapshot.term,
            base,
            runs if offer.keep_from <= offer.snapshot_index else [],
            offer.keep_from,
            offer.snapshot_index,
        )
        self.commit = self.handed = self.verified = snapshot.index
        self.configs = [(snapshot.index, membership)]
        self.adopt_membership()
        self.installing = True
        self.host.record(self, snapshot)
        self.host.tell_self(self, InstallDone(self.id, snapshot))
        self._acknowledge(node, snapshot.index)

    def on_installed(self, done: InstallDone) -> None:
        """The snapshot is durable: the state machine may start from it."""
        host = self.host
        host.installed.append(done.snapshot)
        self.installing = False
        host.touch(self)
        if not self.leader:
            self.await_leader()
