"""Planted bugs: each breaks one rule of the consensus that the simulation must miss at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from brokers.engine.core.raft.candidate import Candidate
from brokers.engine.core.raft.follower import Follower
from brokers.engine.core.raft.group import _HANDLERS, Group
from brokers.engine.core.raft.host import Host, InstallDone
from brokers.engine.core.raft.leader import Leader
from brokers.engine.core.raft.liveness import Liveness
from brokers.engine.core.raft.messages import AppendEntries, AppendResponse, Vote
from brokers.engine.core.raft.peers import Peer
from brokers.engine.core.raft.records import Entry
from brokers.engine.core.raft.state import State
from brokers.engine.core.raft.types import Membership

Plant = Callable[[pytest.MonkeyPatch], None]

PLANTS: dict[str, tuple[Plant, tuple[str, ...] | None]] = {}
"""The bugs by name, each with the faults that bring it out (None: any)."""


def plant(*faults: str) -> Callable[[Plant], Plant]:
    """Register a bug under its name."""

    def register(bug: Plant) -> Plant:
        PLANTS[bug.__name__] = (bug, faults or None)
        return bug

    return register


@plant()
def votes_before_it_is_on_disk(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Host, "send_durable", lambda host, group, node, message: host.send(node, message))


@plant()
def acknowledges_before_it_is_on_disk(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Host, "acknowledge", lambda host, group, node, message: host.send(node, message))


@plant("stampede", "crash")
def votes_twice_in_a_term(patch: pytest.MonkeyPatch) -> None:
    original = Candidate.on_vote

    def on_vote(self: Candidate, node: int, message: Vote) -> None:
        self.vote = 0
        original(self, node, message)

    patch.setitem(_HANDLERS, Vote, on_vote)


@plant("stampede")
def forgets_its_vote_at_restart(patch: pytest.MonkeyPatch) -> None:
    original = Group.restore.__func__  # type: ignore[attr-defined]  # the function under the classmethod

    def restore(cls: type[Group], image: Any, *rest: Any) -> Any:
        group, snapshot = original(cls, image, *rest)
        group.vote = 0
        return group, snapshot

    patch.setattr(Group, "restore", classmethod(restore))


@plant()
def votes_for_shorter_logs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Candidate, "_up_to_date", lambda self, message: True)


@plant("partition", "crash")
def commits_entries_of_earlier_terms_by_counting(patch: pytest.MonkeyPatch) -> None:
    original = Leader.count

    def count(self: Leader) -> None:
        self.term_start = 0
        original(self)

    patch.setattr(Leader, "count", count)


@plant("slow_disk")
def leader_counts_itself_before_its_disk(patch: pytest.MonkeyPatch) -> None:
    original = Leader.count

    def count(self: Leader) -> None:
        self.own_match = self.log.last
        original(self)

    patch.setattr(Leader, "count", count)


@plant("partition")
def skips_the_check_of_the_previous_term(patch: pytest.MonkeyPatch) -> None:
    original = Follower.on_append

    def on_append(self: Follower, node: int, message: AppendEntries) -> None:
        if message.prev_index <= self.log.last:
            message = message._replace(prev_term=self.log.term(message.prev_index) or 0)
        original(self, node, message)

    patch.setitem(_HANDLERS, AppendEntries, on_append)


@plant()
def truncates_on_a_short_append(patch: pytest.MonkeyPatch) -> None:
    original = Follower._take

    def take(self: Follower, entries: Sequence[Entry]) -> None:
        index = entries[0].index
        if self.commit < index <= self.log.last:
            self.log.truncate(index)
            self.truncate_configs(index)
        original(self, entries)

    patch.setattr(Follower, "_take", take)


@plant()
def commits_what_was_not_compared(patch: pytest.MonkeyPatch) -> None:
    def learn_commit(self: Follower, commit: int) -> None:
        commit = min(commit, self.log.last)
        if commit > self.commit:
            self.commit = commit
            self.host.touch(self)

    patch.setattr(Follower, "learn_commit", learn_commit)


@plant()
def a_minority_suffices(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Membership, "quorum", property(lambda self: (len(self.voters) + 1) // 2))


@plant()
def a_damaged_member_votes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(State, "damaged", property(lambda self: False, lambda self, value: None), raising=False)


@plant()
def a_snapshot_counts_before_it_is_on_disk(patch: pytest.MonkeyPatch) -> None:
    def tell_self(host: Host, group: Any, message: Any) -> None:
        if isinstance(message, InstallDone):
            group.on_installed(message)
        else:
            host._own.setdefault(group.token, []).append(message)

    patch.setattr(Host, "tell_self", tell_self)


@plant("members", "partition", "compact")
def keeps_its_own_membership_when_a_snapshot_comes(patch: pytest.MonkeyPatch) -> None:
    original = Follower._install

    def install(self: Follower, *rest: Any) -> None:
        configs = list(self.configs)
        original(self, *rest)
        self.configs = configs
        self.adopt_membership()

    patch.setattr(Follower, "_install", install)


@plant("partition", "compact")
def the_end_of_a_conflicting_log_is_not_marked(patch: pytest.MonkeyPatch) -> None:
    def cut_off(self: Follower, mark: int) -> None:
        self.log.truncate(mark)
        self.truncate_configs(mark)

    patch.setattr(Follower, "_cut_off", cut_off)


@plant("members", "partition")
def membership_survives_the_truncation_of_its_entry(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(State, "truncate_configs", lambda self, index: None)


@plant()
def never_retries_a_lost_append(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Liveness, "_retry", lambda self: None)


@plant()
def does_not_notice_a_silent_leader(patch: pytest.MonkeyPatch) -> None:
    def watch(self: Liveness, peer: Peer) -> None:
        return None

    patch.setattr(Liveness, "_watch", watch)


@plant()
def takes_a_rejection_for_success(patch: pytest.MonkeyPatch) -> None:
    original = Leader.on_append_response

    def on_append_response(self: Leader, node: int, message: AppendResponse) -> None:
        original(self, node, message._replace(success=True))

    patch.setitem(_HANDLERS, AppendResponse, on_append_response)
