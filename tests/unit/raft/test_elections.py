from __future__ import annotations

from brokers.engine.core.raft.messages import (
    AppendEntries,
    Claims,
    ClaimsRequest,
    Heartbeat,
    PreVote,
    PreVoteResponse,
    Vote,
    VoteResponse,
)
from brokers.engine.core.raft.multi import empty_image
from brokers.engine.core.raft.records import HardState
from brokers.engine.core.raft.types import Membership, Role
from tests.unit.raft.cluster import Cluster, Member


def test_somebody_leads_and_all_agree() -> None:
    cluster = Cluster()
    cluster.run(2.0)
    leaders = {member.multi.leader_of(1) for member in cluster.members.values()}
    assert len(leaders) == 1
    assert leaders != {None}


def test_vote_is_given_when_it_is_on_disk() -> None:
    cluster = Cluster()
    voter = cluster[2]
    voter.hold_disk = True
    voter.multi.receive(1, Vote(1, 1, 0, 0, False), 0.0)
    voter.turn(0.0)
    assert voter.disk.queue[0][1][-1] == HardState(1, 1, 1)
    assert not voter.out
    voter.sync(0.0)
    voter.turn(0.0)
    assert voter.out == [(1, VoteResponse(1, 1, True))]


def test_vote_is_remembered_across_a_restart() -> None:
    cluster = Cluster()
    cluster[2].multi.receive(1, Vote(1, 1, 0, 0, False), 0.0)
    cluster[2].turn(0.0)
    voter = cluster.restart(2)
    voter.multi.receive(3, Vote(1, 1, 0, 0, False), 0.0)
    voter.turn(0.0)
    assert (3, VoteResponse(1, 1, False)) in voter.out


def test_candidate_asks_when_its_own_vote_is_on_disk() -> None:
    cluster = Cluster()
    cluster[1].hold_disk = True
    cluster[1].multi.tick(0.0)
    cluster[1].multi.campaign(1, 0.0)
    cluster.settle()
    assert cluster[1].multi.status(1).role is Role.CANDIDATE
    assert cluster[2].multi.status(1).term == 0
    cluster[1].hold_disk = False
    cluster[1].sync(0.0)
    cluster.settle()
    assert cluster[1].multi.is_leader(1)


def test_shorter_log_is_not_voted_for() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.isolate(3)
    cluster[1].multi.propose(1, b"x")
    cluster.settle()
    cluster[2].multi.link_down(1, cluster.now)
    cluster[2].multi.receive(3, PreVote(1, 9, 1, 1), cluster.now)
    cluster[2].turn(cluster.now)
    assert (3, PreVoteResponse(1, 1, False)) in cluster[2].out


def test_live_leader_is_not_disturbed() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.cut = {(1, 3)}
    cluster.run(5.0)
    assert cluster[3].multi.leader_of(1) is None
    assert cluster[1].multi.is_leader(1)
    assert cluster[1].multi.status(1).term == cluster[3].multi.status(1).term == 1
    cluster.cut = set()
    cluster.run(1.0)
    assert cluster[3].multi.leader_of(1) == 1


def test_leader_without_a_majority_steps_down() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.run(0.3)
    cluster.isolate(1)
    cluster.run(0.7)
    assert not cluster[1].multi.is_leader(1)
    assert cluster[1].roles[-1].leader == 0


def test_end_of_connection_makes_for_a_prompt_election() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.run(0.2)
    cluster.isolate(1)
    for node in (2, 3):
        cluster[node].multi.link_down(1, cluster.now)
    cluster.run(0.2)
    assert cluster[2].multi.is_leader(1) or cluster[3].multi.is_leader(1)


def test_leader_silent_without_notice_is_replaced_within_two_timeouts_or_so() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.run(0.2)
    cluster.isolate(1)
    cluster.run(0.45)
    assert cluster[2].multi.leader_of(1) == 1
    cluster.run(1.0)
    assert cluster[2].multi.is_leader(1) or cluster[3].multi.is_leader(1)


def test_new_boot_of_the_leaders_node_means_it_leads_no_more() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.run(0.2)
    cluster.restart(1)
    cluster[2].multi.link_up(1, cluster[1].boot, cluster.now)
    assert cluster[2].multi.leader_of(1) is None


def test_stalled_disk_gives_up_leading_and_goes_silent() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.run(0.2)
    cluster[1].multi.disk_healthy(False)
    cluster[1].turn(cluster.now)
    assert not cluster[1].multi.is_leader(1)
    cluster.run(1.5)
    assert cluster[2].multi.is_leader(1) or cluster[3].multi.is_leader(1)
    before = len(cluster[1].ready)
    cluster.run(0.5)
    sent = [message for ready in cluster[1].ready[before:] for _, message in ready.messages]
    assert not any(isinstance(message, Heartbeat) for message in sent)
    cluster[1].multi.disk_healthy(True)
    cluster.run(1.0)
    assert cluster[1].multi.leader_of(1) in (2, 3)


def test_belief_in_a_leader_that_is_none_ends_with_its_heartbeats_digest() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.run(0.2)
    follower = cluster[3]
    for seq in (1000, 1001):
        follower.multi.receive(1, Heartbeat(cluster[1].boot, seq, 0, []), cluster.now)
        follower.turn(cluster.now)
    assert (1, ClaimsRequest(follower.boot)) in follower.out
    follower.multi.receive(1, Claims(cluster[1].boot, []), cluster.now)
    assert follower.multi.leader_of(1) is None


def test_claims_make_known_a_leader_whose_messages_were_lost() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.run(0.2)
    member = cluster.restart(3)
    member.multi.receive(1, Claims(cluster[1].boot, [(1, 1, 1), (77, 4, 2)]), cluster.now)
    assert member.multi.leader_of(1) == 1
    member.multi.add_group(empty_image(77), Membership((1, 3)))
    member.multi.tick(cluster.now)
    assert member.multi.leader_of(77) == 1


def test_lone_voter_leads_at_once() -> None:
    member = Member(1)
    member.multi.add_group(empty_image(1), Membership((1,)))
    member.multi.tick(0.0)
    member.turn(0.0)
    assert member.multi.is_leader(1)
    member.multi.propose(1, b"x")
    member.turn(0.0)
    assert member.payloads() == [b"x"]


def test_learner_never_campaigns() -> None:
    cluster = Cluster(nodes=1)
    member = cluster.members[2] = Member(2)
    member.multi.add_group(empty_image(1), Membership((), (2,)))
    cluster.isolate(1)
    cluster.run(5.0)
    assert member.multi.status(1).term == 0
    assert member.multi.status(1).role is Role.LEARNER


def test_idle_groups_cost_nothing_but_heartbeats() -> None:
    groups = tuple(range(1, 301))
    cluster = Cluster(groups=groups)
    for group in groups:
        cluster.elect(1 + group % 3, group)
    cluster.run(0.5)
    for member in cluster.members.values():
        member.ready.clear()
    cluster.run(1.0)
    for member in cluster.members.values():
        sent = [message for ready in member.ready for _, message in ready.messages]
        assert not any(isinstance(message, AppendEntries) for message in sent)
        assert len(sent) <= 4 * 25
        assert all(not message.commits for message in sent if isinstance(message, Heartbeat))
        assert not any(ready.records for ready in member.ready)
