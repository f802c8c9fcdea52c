"""A member's state and the moves that every role shares: terms, beliefs about the leader, membership."""

from __future__ import annotations

from brokers.engine.core.raft.host import Host, Timer
from brokers.engine.core.raft.install import Receiver
from brokers.engine.core.raft.log import LogIndex
from brokers.engine.core.raft.progress import Progress
from brokers.engine.core.raft.records import Entry, HardState
from brokers.engine.core.raft.types import Membership, Role, RoleChange


class State:
    """The part of a group's member that all roles share.

    ``token`` names the turn of its newest record. ``verified``: up to there the log is known to equal that of
    the leader of ``term``. ``handed``: entries handed out for applying. ``tail``: this turn's own entries,
    which the reader does not see yet. ``attempts``: campaigns since there was a leader.
    ``repair``: (term, commit) when a leader first spoke to this boot of a damaged member.
    """

    __slots__ = (
        "attempts",
        "commit",
        "configs",
        "damaged",
        "handed",
        "host",
        "id",
        "installing",
        "leader",
        "log",
        "membership",
        "own_match",
        "progress",
        "prompt",
        "receiver",
        "repair",
        "role",
        "tail",
        "term",
        "term_start",
        "token",
        "transferee",
        "verified",
        "vote",
        "votes",
        "yielded",
    )

    def __init__(self, group: int, host: Host, membership: Membership) -> None:
        self.id = group
        self.host = host
        self.term = 0
        self.vote = 0
        self.role = Role.FOLLOWER
        self.leader = 0
        self.log = LogIndex()
        self.commit = 0
        self.handed = 0
        self.verified = 0
        self.token = 0
        self.damaged = False
        self.repair = (-1, 0)
        self.configs: list[tuple[int, Membership]] = [(0, membership)]
        self.membership = Membership((), ())
        self.progress: dict[int, Progress] = {}
        self.own_match = 0
        self.term_start = 0
        self.transferee = 0
        self.tail: list[Entry] = []
        self.votes: dict[int, bool] = {}
        self.attempts = 0
        self.prompt = False
        self.yielded = 0
        self.receiver: Receiver | None = None
        self.installing = False

    # Membership is in force as soon as it is in the log, committed or not (Raft, section 6).

    def adopt_membership(self) -> None:
        """The newest membership in the log is in force."""
        host, old, new = self.host, self.membership, self.configs[-1][1]
        if new == old:
            return
        self.membership = new
        for node in set(new.members) - set(old.members) - {host.me}:
            host.peer(node).groups += 1
        for node in set(old.members) - set(new.members) - {host.me}:
            host.peer(node).groups -= 1
        if self.role is Role.LEADER:
            self.members_changed(old)
        elif self.role in (Role.FOLLOWER, Role.LEARNER):
            self.role = self.passive_role
            if not self.leader:
                self.await_leader()

    def members_changed(self, old: Membership) -> None:
        """The membership of a group led here is another now (``Leader`` knows what to do)."""
        raise NotImplementedError

    def forget_members(self) -> None:
        """The group leaves this node."""
        for node in set(self.membership.members) - {self.host.me}:
            self.host.peer(node).groups -= 1

    def truncate_configs(self, index: int) -> None:
        """The entries from ``index`` on are gone, and what they said about membership with them."""
        if self.configs[-1][0] >= index:
            while self.configs[-1][0] >= index:
                self.configs.pop()
            self.adopt_membership()

    def membership_at(self, index: int) -> Membership:
        """The membership in force at ``index``, which is not below the last snapshot."""
        for at, membership in reversed(self.configs):
            if at <= index:
                return membership
        raise LookupError(f"the membership of group {self.id} at {index} is not known any more")

    @property
    def passive_role(self) -> Role:
        """Follower, or learner when not a voter."""
        return Role.FOLLOWER if self.host.me in self.membership.voters else Role.LEARNER

    # Terms and leaders.

    def enter_term(self, term: int, vote: int = 0) -> None:
        """Adopt a higher ``term``."""
        self.term, self.vote = term, vote
        self.verified = 0
        self.host.record(self, HardState(self.id, term, vote))

    def note_vote(self, node: int) -> None:
        """Our vote of this term is ``node``'s."""
        self.vote = node
        self.host.record(self, HardState(self.id, self.term, node))

    def follow(self, term: int, leader: int) -> None:
        """Be a follower in ``term``, which is not below ours, of ``leader`` (0: not known, wait and see)."""
        before = (self.role, self.term, self.leader)
        self.leave_role()
        if term > self.term:
            self.enter_term(term)
        self.role = self.passive_role
        self.leader = leader
        if leader:
            self.attempts = self.yielded = 0
            self.prompt = False
            self.host.timers.clear(self.id, Timer.ELECTION)
            self.host.peer(leader).follows.add(self.id, self.term)
        else:
            self.await_leader()
        if before != (self.role, self.term, leader):
            self.report_role()

    def leave_role(self) -> None:
        """Undo what the current role has noted elsewhere."""
        host = self.host
        if self.role is Role.LEADER:
            for node in self.progress:
                self.unlead(node)
            self.progress = {}
            self.transferee = 0
            host.timers.clear(self.id, Timer.QUORUM)
            host.timers.clear(self.id, Timer.TRANSFER)
        elif self.leader:
            host.peer(self.leader).follows.discard(self.id)
        self.leader = 0
        self.votes = {}

    def unlead(self, node: int) -> None:
        """``node`` is no follower of ours (any more)."""
        peer = self.host.peer(node)
        peer.leads.discard(self.id)
        peer.news.pop(self.id, None)
        self.host.waiting.pop((self.id, node), None)

    def report_role(self) -> None:
        """Let the driver know."""
        self.host.role_changes.append(RoleChange(self.id, self.role, self.term, self.leader))

    # Waiting for a leader.

    def await_leader(self) -> None:
        """No leader is known: campaign if none turns up."""
        if self.promotable:
            self.host.timers.set(self.id, Timer.ELECTION, self.host.now + self._patience())
        else:
            self.host.timers.clear(self.id, Timer.ELECTION)

    def orphan(self, prompt: bool) -> None:
        """The leader's node fell silent or (``prompt``) is most likely gone: look for another one soon."""
        self.prompt = prompt
        self.attempts = 0
        self.follow(self.term, 0)
        if not prompt and self.promotable:
            host = self.host
            host.timers.set(
                self.id, Timer.ELECTION, host.now + host.between(0, host.settings.election_timeout)
            )

    def _patience(self) -> float:
        host, timeout = self.host, self.host.settings.election_timeout
        if self.membership.voters == (host.me,):
            return 0.0
        if self.prompt:
            low, high = host.settings.prompt
            scale = 1 << min(self.attempts, 10)
            return min(host.between(low, high) * scale, host.between(timeout / 2, timeout))
        return host.between(timeout, 2 * timeout)

    @property
    def promotable(self) -> bool:
        """May this member campaign?"""
        return (
            self.host.me in self.membership.voters
            and not self.damaged
            and not self.installing
            and self.host.disk_healthy
        )

    @property
    def leader_alive(self) -> bool:
        """Is there a leader, and has it been heard of of late?"""
        if self.role is Role.LEADER:
            return True
        return self.leader != 0 and self.host.peer(self.leader).alive
