from __future__ import annotations

import pytest

from brokers.engine.core.raft.messages import AppendEntries, AppendResponse, TimeoutNow
from brokers.engine.core.raft.multi import empty_image
from brokers.engine.core.raft.records import KIND_DATA, KIND_NOOP, Entry
from brokers.engine.core.raft.types import Membership, Refused, Role, Settings
from tests.unit.raft.cluster import Cluster, Member


def test_proposals_reach_all_in_order() -> None:
    cluster = Cluster()
    cluster.elect(1)
    for number in range(50):
        assert cluster[1].multi.propose(1, b"%d" % number) == (number + 2, 1)
        if number % 7 == 0:
            cluster.settle()
    cluster.settle()
    cluster.run(0.2)
    wanted = [b"%d" % number for number in range(50)]
    assert [member.payloads() for member in cluster.members.values()] == [wanted] * 3


def test_only_the_leader_takes_proposals() -> None:
    cluster = Cluster()
    cluster.elect(1)
    assert cluster[2].multi.propose(1, b"x") is None
    assert cluster[1].multi.propose(2, b"x") is None


def test_appends_leave_before_the_leaders_disk_but_it_counts_only_what_is_durable() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster[1].hold_disk = True
    cluster.isolate(3)
    cluster[1].multi.propose(1, b"x")
    cluster.settle()
    assert cluster[2].multi.status(1).last == 2
    assert cluster[1].multi.status(1).commit == 1
    cluster[1].sync(cluster.now)
    assert cluster[1].multi.status(1).commit == 2


def test_followers_alone_may_be_the_majority() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster[1].hold_disk = True
    cluster[1].multi.propose(1, b"x")
    cluster.settle()
    assert cluster[1].payloads() == [b"x"]


def test_append_is_acknowledged_when_durable_and_only_the_last_of_a_turn() -> None:
    cluster = Cluster()
    cluster.elect(1)
    follower = cluster[2]
    follower.hold_disk = True
    for index in (2, 3, 4):
        entry = Entry(1, index, 1, KIND_DATA, b"x")
        follower.multi.receive(1, AppendEntries(1, 1, index - 1, 1, 1, 0, [entry]), cluster.now)
    follower.turn(cluster.now)
    assert not follower.out
    follower.sync(cluster.now)
    follower.turn(cluster.now)
    assert follower.out == [(1, AppendResponse(1, 1, True, 4, 0, 0, 1, follower.boot))]


def test_late_or_short_append_truncates_nothing() -> None:
    cluster = Cluster()
    cluster.elect(1)
    for number in range(5):
        cluster[1].multi.propose(1, b"%d" % number)
    cluster.settle()
    late = AppendEntries(1, 1, 1, 1, 1, 0, [Entry(1, 2, 1, KIND_DATA, b"0")])
    cluster[2].multi.receive(1, late, cluster.now)
    cluster[2].multi.receive(1, late._replace(entries=[]), cluster.now)
    assert cluster[2].multi.status(1).last == 6


def test_conflicting_tail_is_replaced() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.run(0.2)
    cluster.isolate(1)
    for number in range(5):
        cluster[1].multi.propose(1, b"lost %d" % number)
    cluster.run(2.0)
    leader = next(node for node in (2, 3) if cluster[node].multi.is_leader(1))
    cluster[leader].multi.propose(1, b"kept")
    cluster.cut = set()
    cluster.run(1.0)
    assert cluster[1].payloads() == cluster[2].payloads() == cluster[3].payloads() == [b"kept"]


def test_entry_of_an_earlier_term_is_committed_only_under_one_of_its_own() -> None:
    """Raft, figure 8: a majority holds "old" of term 1, but that alone decides nothing in term 2."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.isolate(1)
    cluster[1].multi.propose(1, b"old")
    cluster.settle()
    member = cluster.restart(1)
    cluster.cut = set()
    for other in (2, 3):
        cluster[other].multi.link_down(1, cluster.now)
    member.multi.campaign(1, cluster.now)
    while not member.multi.is_leader(1):
        cluster.step()
    cluster.isolate(1)
    cluster.settle()
    status = member.multi.status(1)
    assert (status.term, status.last, status.commit) == (2, 3, 0)
    boot = cluster[2].boot
    member.multi.receive(2, AppendResponse(1, 2, True, 2, 0, 0, 1, boot), cluster.now)
    assert member.multi.status(1).commit == 0
    member.multi.receive(2, AppendResponse(1, 2, True, 3, 0, 0, 1, boot), cluster.now)
    assert member.multi.status(1).commit == 3


def test_noop_is_reported_as_committed() -> None:
    cluster = Cluster()
    cluster.elect(1)
    low = cluster[1].committed[0].low
    assert cluster[1].disk.read(1, low, low, 1)[0].kind == KIND_NOOP


def test_commit_reaches_idle_followers_with_a_heartbeat() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster[1].multi.propose(1, b"x")
    cluster.settle()
    cluster.run(0.12)
    assert cluster[2].payloads() == cluster[3].payloads() == [b"x"]


def test_lost_append_is_sent_again() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.run(0.2)
    cluster.cut = {(1, 2), (1, 3)}
    cluster[1].multi.propose(1, b"x")
    cluster.settle()
    cluster.cut = set()
    cluster.run(1.0)
    assert [member.payloads() for member in cluster.members.values()] == [[b"x"]] * 3


def test_what_is_on_its_way_is_bounded() -> None:
    settings = Settings(max_append_bytes=100, max_inflight_bytes=1000)
    cluster = Cluster(settings=settings)
    cluster.elect(1)
    cluster.cut = {(2, 1), (3, 1)}
    cluster[1].ready.clear()
    for _ in range(100):
        cluster[1].multi.propose(1, b"x" * 50)
        cluster.settle()
    sent = [
        m for r in cluster[1].ready for peer, m in r.messages if peer == 2 and isinstance(m, AppendEntries)
    ]
    assert 1000 <= sum(len(entry.payload) for message in sent for entry in message.entries) <= 1100
    cluster.cut = set()
    cluster.run(2.0)
    assert len(cluster[2].payloads()) == 100


def test_transfer_brings_the_target_up_to_date_first() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.run(0.1)
    cluster.cut = {(2, 1)}
    cluster[1].multi.propose(1, b"x")
    cluster[1].multi.transfer(1, 2)
    assert cluster[1].multi.propose(1, b"y") is None
    cluster[1].turn(cluster.now)
    assert not any(isinstance(message, TimeoutNow) for _, message in cluster[1].out)
    cluster.settle()
    cluster.cut = set()
    cluster.run(0.3)
    cluster[1].multi.propose(1, b"z")
    cluster.run(1.5)
    assert cluster[2].multi.is_leader(1) or cluster[1].multi.is_leader(1)


def test_transfer_hands_over_at_once() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.run(0.1)
    cluster[1].multi.transfer(1, 3)
    cluster.settle()
    assert cluster[3].multi.is_leader(1)
    assert [member.multi.leader_of(1) for member in cluster.members.values()] == [3, 3, 3]


def test_transfer_to_a_dead_node_is_given_up() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.run(0.1)
    cluster.isolate(2)
    cluster[1].multi.propose(1, b"x")
    cluster[1].multi.transfer(1, 2)
    cluster.run(0.6)
    assert cluster[1].multi.propose(1, b"y") is not None


def test_transfer_is_refused_with_a_reason() -> None:
    cluster = Cluster()
    cluster.elect(1)
    with pytest.raises(Refused, match="no voter"):
        cluster[1].multi.transfer(1, 9)
    with pytest.raises(Refused, match="its leader is node 1"):
        cluster[2].multi.transfer(1, 3)


def test_membership_changes_one_voter_at_a_time() -> None:
    cluster = Cluster(nodes=3)
    cluster.elect(1)
    with pytest.raises(Refused, match="one voter at a time"):
        cluster[1].multi.change_membership(1, Membership((1,)))
    cluster.isolate(1)
    cluster[1].multi.change_membership(1, Membership((1, 2)))
    with pytest.raises(Refused, match="still changing"):
        cluster[1].multi.change_membership(1, Membership((1, 2, 3)))


def test_membership_does_not_change_before_the_leader_has_committed() -> None:
    cluster = Cluster()
    cluster[1].hold_disk = False
    cluster.cut = set()
    member = cluster[1]
    for other in cluster.members.values():
        other.multi.tick(0.0)
    member.multi.campaign(1, 0.0)
    while not member.multi.is_leader(1):
        cluster.step()
    with pytest.raises(Refused, match="not committed in term"):
        member.multi.change_membership(1, Membership((1, 2)))


def test_learner_joins_catches_up_and_is_promoted() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster[1].multi.propose(1, b"x")
    cluster.settle()
    cluster.members[4] = Member(4)
    cluster[4].multi.add_group(empty_image(1), Membership((), (4,)))
    cluster[1].multi.change_membership(1, Membership((1, 2, 3), (4,)))
    cluster.run(0.3)
    assert cluster[4].payloads()[0] == b"x"
    assert cluster[4].multi.status(1).role is Role.LEARNER
    cluster[1].multi.change_membership(1, Membership((1, 2, 3, 4)))
    cluster.run(0.3)
    assert cluster[4].multi.status(1).role is Role.FOLLOWER


def test_leader_that_removes_itself_hands_over() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.run(0.1)
    cluster[1].multi.change_membership(1, Membership((2, 3)))
    cluster.settle()
    assert not cluster[1].multi.is_leader(1)
    assert cluster[2].multi.is_leader(1) or cluster[3].multi.is_leader(1)
