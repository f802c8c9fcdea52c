"""The leader's side of a group: feeding followers, counting what is durable, handing leadership on."""

from __future__ import annotations

from brokers.engine.core.raft.host import Timer
from brokers.engine.core.raft.install import Sender
from brokers.engine.core.raft.log import merge
from brokers.engine.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    InstallSnapshot,
    SnapshotResponse,
    TimeoutNow,
)
from brokers.engine.core.raft.progress import Feed, Progress
from brokers.engine.core.raft.records import KIND_CONFIG, KIND_NOOP, Entry
from brokers.engine.core.raft.state import State
from brokers.engine.core.raft.types import Membership, Refused, Role, decode_membership


class Leader(State):
    """What a member does while it leads."""

    __slots__ = ()

    def lead(self) -> None:
        """The election is won: open the term."""
        host = self.host
        self.votes = {}
        self.role = Role.LEADER
        self.leader = host.me
        self.attempts = self.yielded = 0
        self.prompt = False
        self.own_match = 0
        self.receiver = None
        host.timers.clear(self.id, Timer.ELECTION)
        for node in self.membership.members:
            if node != host.me:
                self._feed(node)
        self.report_role()
        self.term_start = self.append(KIND_NOOP, b"")
        host.timers.set(self.id, Timer.QUORUM, host.now + host.settings.election_timeout)

    def _feed(self, node: int) -> None:
        self.progress[node] = Progress(node, self.log.last + 1, self.host.now)
        self.host.peer(node).leads.add(self.id, self.term)

    def append(self, kind: int, payload: bytes) -> int:
        """One more entry of our own; returns its index."""
        entry = Entry(self.id, self.log.append(self.term), self.term, kind, payload)
        self.tail.append(entry)
        self.host.wrote(self, entry)
        self.host.touch(self)
        return entry.index

    # Feeding followers.

    def feed_all(self) -> None:
        """Send every follower what it may have."""
        for progress in self.progress.values():
            self.feed(progress)

    def feed(self, progress: Progress) -> None:
        """Send ``progress.node`` what it may have, and let it know of commits."""
        host = self.host
        node = progress.node
        if not host.peer(node).reachable:
            return
        settings = host.settings
        if progress.feed is Feed.SNAPSHOT:
            self._feed_snapshot(progress)
        while progress.feed is not Feed.SNAPSHOT and not progress.full(settings):
            last = self.log.last
            if progress.next > last and progress.feed is Feed.REPLICATE:
                break
            if not self._send_append(progress):
                self._offer_snapshot(progress)
        if progress.waiting:
            key = (self.id, node)
            if key not in host.waiting:
                host.waiting[key] = progress
                progress.active = host.now
        if progress.told < self.commit:
            if self.id in settings.eager and progress.feed is Feed.REPLICATE and not progress.full(settings):
                self._send_append(progress)
            self.note_news(progress)

    def _send_append(self, progress: Progress) -> bool:
        log = self.log
        prev = progress.next - 1
        prev_term = log.term(prev)
        if prev < log.first - 1 or (prev_term is None and prev > progress.commit):
            return False
        try:
            entries = self._entries(progress.next)
        except LookupError:
            return False
        boot = self.host.peer(progress.node).boot
        message = AppendEntries(self.id, self.term, prev, prev_term or 0, self.commit, boot, entries)
        self.host.send(progress.node, message)
        progress.told = self.commit
        progress.sent(prev + len(entries), sum([len(entry[4]) for entry in entries]))
        return True

    def _entries(self, low: int) -> list[Entry]:
        """Some entries from ``low`` on, as many as fit into one message."""
        last = self.log.last
        if low > last:
            return []
        limit = self.host.settings.max_append_bytes
        tail = self.tail
        start = tail[0].index if tail else last + 1
        if low < start:
            return self.host.reader.read(self.id, low, start - 1, limit)
        found: list[Entry] = []
        size = 0
        for entry in tail[low - start :] if low > start else tail:
            size += len(entry[4])
            if size > limit and found:
                break
            found.append(entry)
        return found

    def note_news(self, progress: Progress) -> None:
        """The follower does not know the newest commit: the next heartbeat tells, unless an append does."""
        if progress.commit < min(self.commit, progress.match):
            self.host.peer(progress.node).news[self.id] = None

    def _offer_snapshot(self, progress: Progress) -> None:
        host = self.host
        progress.probe(progress.next)
        progress.feed = Feed.SNAPSHOT
        host.transfers += 1
        progress.sender = Sender(host.reader.snapshot(self.id), host.transfers)
        self._feed_snapshot(progress)

    def _feed_snapshot(self, progress: Progress) -> None:
        host, sender = self.host, progress.sender
        if sender is None:
            raise AssertionError(
                f"group {self.id} feeds node {progress.node} a snapshot that was never offered"
            )
        if not sender.offered:
            sender.offered = True
            host.send(progress.node, self._offer(sender))
        settings = host.settings
        try:
            while (
                chunk := sender.chunk(
                    host.reader, self.id, self.term, settings.chunk_window, settings.chunk_bytes
                )
            ) is not None:
                host.send(progress.node, chunk)
        except LookupError:
            self._offer_snapshot(progress)

    def _offer(self, sender: Sender) -> InstallSnapshot:
        snapshot = sender.snapshot
        base = decode_membership(snapshot.membership)[1]
        if base is None:
            raise ValueError(
                f"snapshot {snapshot.index} of group {self.id} was not made with make_snapshot()"
            )
        keep_from = snapshot.keep_from
        runs = merge([(keep_from - 1, base), *self.log.runs(keep_from, snapshot.index)])
        return InstallSnapshot(
            self.id,
            self.term,
            sender.transfer,
            snapshot.index,
            snapshot.term,
            snapshot.keep_from,
            tuple(runs),
            snapshot.membership,
        )

    # What followers answer.

    def on_append_response(self, node: int, message: AppendResponse) -> None:
        """A follower acknowledged, or told where its log parts from ours."""
        progress = self._progress(node, message.boot)
        if progress is None:
            return
        progress.active = self.host.now
        if message.commit > progress.commit:
            progress.commit = message.commit
        if not message.success:
            self._on_reject(progress, message)
            return
        if message.match_index > self.log.last:
            return
        advanced = message.match_index > progress.match
        if progress.feed is Feed.REPLICATE:
            progress.acknowledged(message.match_index)
        elif progress.feed is Feed.PROBE:
            progress.match = max(progress.match, message.match_index)
            progress.replicate()
        elif advanced:
            progress.match = message.match_index
            progress.probe()
        self.host.touch(self)
        if advanced:
            if message.match_index > self.commit:
                self.count()
                if self.role is not Role.LEADER:
                    return
            if self.transferee == node:
                self._try_transfer()
        if progress.commit < self.commit:
            self.note_news(progress)

    def _progress(self, node: int, boot: int) -> Progress | None:
        """The follower that answered; None when the answer is from another life of it."""
        progress = self.progress.get(node) if self.role is Role.LEADER else None
        if progress is None:
            return None
        known = self.host.peer(node).boot
        return progress if known in (0, boot) else None

    def _on_reject(self, progress: Progress, message: AppendResponse) -> None:
        if progress.feed is Feed.SNAPSHOT or message.match_index <= progress.match:
            return
        if progress.feed is Feed.PROBE and message.match_index != progress.next - 1:
            return
        index = self.log.possible_match(message.hint_index, message.hint_term)[0]
        progress.probe(min(max(index, message.commit) + 1, message.match_index))
        self.host.touch(self)

    def on_snapshot_response(self, node: int, message: SnapshotResponse) -> None:
        """A follower wants the next chunks."""
        progress = self._progress(node, message.boot)
        if progress is None or progress.sender is None or progress.sender.transfer != message.transfer:
            return
        progress.active = self.host.now
        if progress.sender.acknowledged(message.next_seq):
            self.host.touch(self)

    def retry(self, progress: Progress) -> None:
        """Nothing was heard of ``progress.node`` for long although an answer is due: send again."""
        if progress.sender is not None:
            progress.sender.rewind()
        elif progress.feed is Feed.PROBE:
            progress.probing = False
        else:
            progress.probe()
        progress.active = self.host.now
        self.host.touch(self)

    def refresh(self, node: int, reborn: bool) -> None:
        """``node`` can be reached (again), or is another process than before."""
        progress = self.progress[node]
        if reborn:
            progress.reborn(self.log.last + 1)
        elif progress.feed is not Feed.REPLICATE:
            self.retry(progress)
        elif progress.waiting or progress.match < self.log.last or progress.commit < self.commit:
            progress.probe()
        else:
            return
        self.host.touch(self)

    # Counting.

    def durable(self, term: int, index: int) -> None:
        """Our own entries up to ``index``, appended in ``term``, are on our disk."""
        if self.role is Role.LEADER and term == self.term and index > self.own_match:
            self.own_match = index
            self.count()

    def count(self) -> None:
        """Commit what a majority holds durably. Only an entry of this term counts (Raft, 5.4.2)."""
        voters = self.membership.voters
        me, progress = self.host.me, self.progress
        held = sorted([self.own_match if node == me else progress[node].match for node in voters])
        index = held[-self.membership.quorum]
        if index <= self.commit or index < self.term_start:
            return
        config = self.configs[-1][0]
        done = self.commit < config <= index
        self.commit = index
        self.host.touch(self)
        if done and me not in voters:
            self._retire()

    def _retire(self) -> None:
        """The membership without us is committed: the best follower takes over, told of the commit first."""
        host = self.host
        self.feed_all()
        best = max(
            (progress for progress in self.progress.values() if progress.node in self.membership.voters),
            key=lambda progress: (progress.match, -progress.node),
            default=None,
        )
        if best is not None:
            host.send(best.node, TimeoutNow(self.id, self.term))
        self.follow(self.term, 0)

    def check_quorum(self) -> None:
        """Step down when no majority of the voters has answered a heartbeat within the election timeout."""
        host = self.host
        since = host.now - host.settings.election_timeout
        live = 0
        for node in self.membership.voters:
            if node == host.me or host.peer(node).answered_at >= since:
                live += 1
        if live < self.membership.quorum:
            self.follow(self.term, 0)

    # Membership and transfer.

    def change_membership(self, target: Membership) -> tuple[int, int]:
        """Append the new membership; returns (index, term). Raises ``Refused``."""
        old = self.configs[-1]
        if self.commit < self.term_start:
            raise Refused(f"group {self.id} has not committed in term {self.term} yet; try again shortly")
        if old[0] > self.commit:
            raise Refused(f"group {self.id} is still changing to {old[1]}; try again when that is committed")
        voters, before = set(target.voters), set(old[1].voters)
        if not voters:
            raise Refused(f"group {self.id} would be left without a voter")
        if len(voters ^ before) > 1:
            raise Refused(
                f"group {self.id}: one voter at a time may come or go; {sorted(voters ^ before)} would change"
            )
        if target != Membership.of(target.voters, target.learners):
            raise Refused(f"{target} is not in canonical form; make it with Membership.of()")
        if target == old[1]:
            raise Refused(f"group {self.id} has this membership already")
        index = self.append(KIND_CONFIG, target.encode())
        self.configs.append((index, target))
        self.adopt_membership()
        return index, self.term

    def members_changed(self, old: Membership) -> None:
        """Feed those who came, forget those who left."""
        host = self.host
        members = set(self.membership.members)
        for node in set(self.progress) - members:
            self.unlead(node)
            del self.progress[node]
        for node in self.membership.members:
            if node != host.me and node not in self.progress:
                self._feed(node)
        if self.transferee and self.transferee not in self.membership.voters:
            self.end_transfer()
        host.timers.set(self.id, Timer.QUORUM, host.now + host.settings.election_timeout)
        host.touch(self)

    def transfer(self, target: int) -> None:
        """Hand leadership to ``target`` as soon as it holds everything. Raises ``Refused``."""
        host = self.host
        if target == host.me:
            raise Refused(f"node {target} leads group {self.id} already")
        if target not in self.membership.voters:
            raise Refused(
                f"node {target} is no voter of group {self.id}; voters are {self.membership.voters}"
            )
        self.transferee = target
        host.timers.set(self.id, Timer.TRANSFER, host.now + host.settings.election_timeout)
        self._try_transfer()

    def _try_transfer(self) -> None:
        if self.progress[self.transferee].match == self.log.last:
            self.host.send(self.transferee, TimeoutNow(self.id, self.term))

    def end_transfer(self) -> None:
        """The transfer did not come about in time: take proposals again."""
        self.transferee = 0
        self.host.timers.clear(self.id, Timer.TRANSFER)
