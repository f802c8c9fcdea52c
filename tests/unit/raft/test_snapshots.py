from __future__ import annotations

import pytest

from brokers.engine.core.raft.messages import SnapshotChunk
from brokers.engine.core.raft.records import Entry, GroupImage, HardState, Snapshot
from brokers.engine.core.raft.types import Membership, Settings
from tests.unit.raft.cluster import Cluster, Member


def compact(member: Member, index: int, keep_from: int, state: bytes = b"state") -> Snapshot:
    snapshot = member.multi.make_snapshot(1, index, state, keep_from)
    member.disk.append(0, [snapshot])
    member.multi.compact(snapshot)
    return snapshot


def test_lagging_follower_gets_the_snapshot_in_chunks() -> None:
    cluster = Cluster(settings=Settings(chunk_bytes=100, chunk_window=2))
    cluster.elect(1)
    cluster.run(0.2)
    cluster.isolate(3)
    cluster[3].multi.link_down(1, cluster.now)
    for number in range(40):
        cluster[1].multi.propose(1, b"%d" % number * 10)
    cluster.settle()
    cluster.run(0.2)
    snapshot = compact(cluster[1], 30, 20, b"s" * 350)
    cluster[1].ready.clear()
    cluster.cut = set()
    cluster.run(1.5)
    chunks = [m for r in cluster[1].ready for _, m in r.messages if isinstance(m, SnapshotChunk)]
    assert len(chunks) > 5
    assert all(len(chunk.state) + sum(len(e.payload) for e in chunk.entries) <= 100 for chunk in chunks)
    installed = [s for ready in cluster[3].ready for s in ready.installed]
    assert installed == [snapshot]
    entries = cluster[3].disk.durable[1].entries
    assert sorted(entries)[0] == 20
    assert entries[25] == cluster[1].disk.durable[1].entries[25]
    assert cluster[3].multi.status(1).applied == cluster[1].multi.status(1).applied


def test_follower_whose_log_reaches_the_kept_entries_needs_no_snapshot() -> None:
    cluster = Cluster()
    cluster.elect(1)
    for number in range(20):
        cluster[1].multi.propose(1, b"%d" % number)
    cluster.settle()
    cluster.run(0.2)
    cluster.isolate(3)
    for number in range(20):
        cluster[1].multi.propose(1, b"%d" % number)
    cluster.settle()
    cluster.run(0.2)
    compact(cluster[1], 35, 10)
    cluster.cut = set()
    cluster.run(2.0)
    assert not any(ready.installed for ready in cluster[3].ready)
    assert cluster[3].multi.status(1).applied == 41


def test_snapshots_are_of_applied_states_only() -> None:
    cluster = Cluster()
    cluster.elect(1)
    with pytest.raises(ValueError, match="not between"):
        cluster[1].multi.make_snapshot(1, 5, b"", 1)
    with pytest.raises(ValueError, match="keep_from 9"):
        cluster[1].multi.make_snapshot(1, 1, b"", 9)
    with pytest.raises(ValueError, match="make_snapshot"):
        cluster[1].multi.compact(Snapshot(1, 1, 1, Membership((1,)).encode(), b"", 1))


def test_restart_goes_on_from_the_snapshot() -> None:
    cluster = Cluster()
    cluster.elect(1)
    for number in range(9):
        cluster[1].multi.propose(1, b"%d" % number)
    cluster.settle()
    snapshot = compact(cluster[1], 7, 5)
    cluster[1].sync(cluster.now)
    disk = cluster[1].disk
    disk.crash(0)
    member = Member(1, disk, 5000)
    assert member.multi.add_group(disk.images()[0], Membership((1, 2, 3))) == snapshot
    status = member.multi.status(1)
    assert (status.first, status.last, status.commit, status.term) == (5, 10, 7, 1)
    assert status.membership == Membership((1, 2, 3))


def test_end_mark_of_a_conflicting_log_ends_it() -> None:
    member = Member(1)
    image = GroupImage(1, HardState(1, 5, 0), None, 1, 9, [(1, 1), (6, 0), (7, 4)], None, ())
    member.multi.add_group(image, Membership((1, 2)))
    assert member.multi.status(1).last == 5


def test_damaged_member_abstains_until_it_is_whole() -> None:
    cluster = Cluster()
    cluster.elect(1)
    for number in range(9):
        cluster[1].multi.propose(1, b"%d" % number)
    cluster.settle()
    cluster.run(0.2)
    cluster[3].disk.durable[1].damaged = 4
    cluster.isolate(3)
    member = cluster.restart(3)
    assert member.multi.status(1).damaged
    assert member.multi.status(1).last == 3
    cluster.run(3.0)
    assert member.multi.status(1).term == 1
    cluster.cut = set()
    cluster[1].multi.link_up(3, member.boot, cluster.now)
    cluster.run(1.0)
    assert not member.multi.status(1).damaged
    assert [group for ready in member.ready for group in ready.repaired] == [1]
    assert member.disk.durable[1].entries[10] == Entry(1, 10, 1, 2, b"8")


def test_damage_below_the_snapshot_means_starting_over() -> None:
    member = Member(1)
    snapshot = Snapshot(1, 7, 2, Membership((1, 2, 3)).encode(2), b"state", 5)
    image = GroupImage(1, HardState(1, 2, 0), snapshot, 5, 9, [(5, 2)], 6, ())
    assert member.multi.add_group(image, Membership((1, 2, 3))) is None
    assert member.multi.status(1).last == 0
    assert member.multi.status(1).damaged
