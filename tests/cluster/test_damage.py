"""Disks that lie: what is damaged on one node is repaired from its peers, and everything stays readable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from brokers.engine.config import ClusterConfig
from brokers.engine.core.model.topology import QueueInfo
from brokers.engine.core.raft.types import Membership
from brokers.engine.node.node import Node
from tests.bench.rawclient import RawClient
from tests.cluster.harness import Cluster, free_base
from tests.cluster.traffic import Traffic

QUEUE = "orders"
MESSAGES = 4000


def filled(cluster: Cluster) -> Traffic:
    """A queue with confirmed messages that nobody has taken, in segments that are closed."""
    RawClient(cluster.node("node1").amqp).declare(QUEUE)
    traffic = Traffic(QUEUE)
    traffic.publish([cluster.node("node1").amqp])
    cluster.wait_for(lambda: traffic.confirmed() > MESSAGES, "messages are confirmed")
    traffic._stop_publishing.set()
    for thread in traffic._publishers:
        thread.join()
    for name in cluster.names:
        cluster.terminate(name)
    return traffic


def largest_segment(cluster: Cluster, name: str) -> Path:
    """The segment of a node that holds the messages."""
    folder = cluster.config.data_dir(name) / "log"
    return max(folder.glob("*.log"), key=lambda path: len(path.read_bytes().rstrip(b"\0")))


def flip(path: Path) -> None:
    """One bit in the middle of what is written."""
    data = bytearray(path.read_bytes())
    data[len(bytes(data).rstrip(b"\0")) // 2] ^= 1
    path.write_bytes(data)


def same_everywhere(cluster: Cluster) -> bool:
    digests = [
        cluster.control.call("digest", {"vhost": "/", "name": QUEUE}, node=name) for name in cluster.names
    ]
    return len({(digest["applied"], digest["hash"]) for digest in digests}) == 1


def drain(cluster: Cluster, traffic: Traffic) -> None:
    traffic.consume([cluster.node("node1").amqp, cluster.node("node2").amqp, cluster.node("node3").amqp])
    counts = traffic.finish().check()
    assert counts["confirmed"] > MESSAGES


@pytest.mark.parametrize("side", ["follower", "leader"])
def test_a_flipped_bit_is_found_and_repaired(make_cluster: Callable[..., Cluster], side: str) -> None:
    cluster = make_cluster().start()
    traffic = filled(cluster)
    for name in cluster.names:
        cluster.start_node(name)
    cluster.wait_until_complete()
    leader = cluster.leader(QUEUE)
    victim = leader if side == "leader" else next(name for name in cluster.names if name != leader)
    flip(largest_segment(cluster, victim))
    traffic.consume([cluster.node(name).amqp for name in cluster.names if name != victim])
    if side == "follower":
        cluster.kill(victim)
        cluster.start_node(victim)
    counts = traffic.finish().check()
    assert counts["confirmed"] > MESSAGES

    def repaired() -> bool:
        # It ends as soon as it reads what it cannot trust; a supervisor starts it again.
        if victim not in cluster.running():
            cluster.start_node(victim)
        return same_everywhere(cluster)

    cluster.wait_for(repaired, "all replicas have the same state")
    assert "is damaged: checksum failed" in cluster.log_path(victim).read_text()


def test_a_segment_of_which_nothing_is_left(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster().start()
    traffic = filled(cluster)
    path = largest_segment(cluster, "node3")
    path.write_bytes(b"\xa5" * path.stat().st_size)
    for other in path.parent.glob(f"{path.stem}.*"):
        if other != path:
            other.unlink()
    for name in cluster.names:
        cluster.start_node(name)
    cluster.wait_until_complete()
    cluster.wait_until_caught_up(QUEUE)
    cluster.wait_for(lambda: same_everywhere(cluster), "all replicas have the same state")
    drain(cluster, traffic)


@pytest.mark.parametrize("lost", [True, False])
def test_what_was_lost_of_an_unknown_group_keeps_all_from_voting(tmp_path: Path, lost: bool) -> None:
    config = ClusterConfig.ensure(tmp_path, 3, free_base(3))
    folder = config.data_dir("node1") / "log"
    folder.mkdir(parents=True)
    if lost:
        (folder / "00000001.log").write_bytes(b"\xa5" * 10_000)
    loop = asyncio.new_event_loop()
    node = Node(config, config.nodes[0], loop)
    node.found_replica(QueueInfo("/", "q", True, False, None, {}, 1, (1, 2, 3)), Membership.of([1, 2, 3]))
    multi = node.replication.multi
    assert [multi.status(group).damaged for group in (0, 1)] == [lost, lost]
    node.replication.log.close()
    loop.close()
