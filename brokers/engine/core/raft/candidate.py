"""Elections: asking for votes and giving them (Raft 5.2, 5.4.1; pre-vote: Ongaro's thesis 9.6)."""

from __future__ import annotations

from brokers.engine.core.raft.host import Timer
from brokers.engine.core.raft.leader import Leader
from brokers.engine.core.raft.messages import PreVote, PreVoteResponse, Vote, VoteResponse
from brokers.engine.core.raft.types import Role

_PATIENT_ROUNDS = 3
"""For so many rounds do rival pre-candidates make way for the better placed one; then anybody may try."""


class Candidate(Leader):
    """What a member does to become the leader, and how it votes for others."""

    __slots__ = ()

    def campaign(self) -> None:
        """Ask whether an election could be won, and go into one if so."""
        if self.role is Role.LEADER:
            return
        host = self.host
        if not self.promotable:
            host.timers.clear(self.id, Timer.ELECTION)
            return
        if not self._quorum_in_reach():
            if not self.leader:
                self.prompt, self.attempts = True, self.attempts + 1
                self.await_leader()
            return
        self.leave_role()
        self.role = Role.PRE_CANDIDATE
        self.votes = {host.me: True}
        self.report_role()
        if self._won():
            self.elect(force=False)
            return
        self.prompt = True
        self.await_leader()
        self.attempts += 1
        question = PreVote(self.id, self.term + 1, self.log.last, self.log.last_term)
        for node in self.membership.voters:
            if node != host.me:
                host.send(node, question)

    def _quorum_in_reach(self) -> bool:
        """Could enough voters answer at all? A node that is cut off need not ask for each of its groups."""
        host = self.host
        reachable = [node == host.me or host.peer(node).reachable for node in self.membership.voters]
        return sum(reachable) >= self.membership.quorum

    def elect(self, force: bool) -> None:
        """Stand for election in a new term. The vote for ourselves is on disk before anybody hears of it."""
        host = self.host
        self.leave_role()
        self.enter_term(self.term + 1, vote=host.me)
        self.role = Role.CANDIDATE
        self.report_role()
        timeout = host.settings.election_timeout
        host.timers.set(self.id, Timer.ELECTION, host.now + host.between(timeout / 2, timeout))
        question = Vote(self.id, self.term, self.log.last, self.log.last_term, force)
        for node in self.membership.voters:
            if node != host.me:
                host.send_durable(self, node, question)
        host.tell_self(self, VoteResponse(self.id, self.term, True))

    def _won(self) -> bool:
        votes = self.votes
        return sum([votes.get(node, False) for node in self.membership.voters]) >= self.membership.quorum

    def _lost(self) -> bool:
        votes = self.votes
        against = sum([not votes.get(node, True) for node in self.membership.voters])
        return against > len(self.membership.voters) - self.membership.quorum

    def on_pre_vote_response(self, node: int, message: PreVoteResponse) -> None:
        """Count; ``message.term`` is the one asked for when granted."""
        if self.role is not Role.PRE_CANDIDATE:
            return
        if message.granted and message.term != self.term + 1:
            return
        self.votes[node] = message.granted
        if self._won():
            self.elect(force=False)

    def on_vote_response(self, node: int, message: VoteResponse) -> None:
        """Count a vote in this term."""
        if self.role is not Role.CANDIDATE or message.term != self.term:
            return
        self.votes[node] = message.granted
        if self._won():
            self.lead()
        elif self._lost():
            self.follow(self.term, 0)

    def on_pre_vote(self, node: int, message: PreVote) -> None:
        """Say whether ``node`` could have our vote. Nothing changes."""
        host = self.host
        if self.role is Role.LEADER:
            if node in self.progress and message.term > self.term:
                self.progress[node].probe()
                host.touch(self)
            return
        if self.damaged or not host.disk_healthy or (self.leader_alive and node != self.leader):
            return
        granted = (
            message.term > self.term and self._up_to_date(message) and self._makes_way_for(node, message)
        )
        term = message.term if granted else self.term
        host.send_durable(self, node, PreVoteResponse(self.id, term, granted))

    def _makes_way_for(self, node: int, message: PreVote) -> bool:
        """Of two rival pre-candidates the one with the longer log or the higher id goes first."""
        if self.role is not Role.PRE_CANDIDATE or self.attempts > _PATIENT_ROUNDS:
            return True
        host = self.host
        mine = (self.log.last_term, self.log.last, host.me)
        if (message.last_term, message.last_index, node) < mine:
            return False
        if self.yielded < _PATIENT_ROUNDS:
            self.yielded += 1
            timeout = host.settings.election_timeout
            host.timers.set(self.id, Timer.ELECTION, host.now + host.between(timeout / 2, timeout))
        return True

    def on_vote(self, node: int, message: Vote) -> None:
        """Give or refuse our one vote of this term; it is on disk before it is given."""
        if self.damaged:
            return
        granted = self.vote in (0, node) and self._up_to_date(message)
        if granted:
            if not self.vote:
                self.note_vote(node)
            if self.role is Role.PRE_CANDIDATE:
                self.follow(self.term, 0)
            elif not self.leader:
                self.await_leader()
        self.host.send_durable(self, node, VoteResponse(self.id, self.term, granted))

    def _up_to_date(self, message: PreVote | Vote) -> bool:
        """Is the candidate's log at least as complete as ours?"""
        return (message.last_term, message.last_index) >= (self.log.last_term, self.log.last)
