"""Leaders move, die and freeze under traffic from all nodes: nothing confirmed is lost, clients go on."""

from __future__ import annotations

import struct
from functools import partial

import pytest

from tests.bench.rawclient import RawClient
from tests.cluster.harness import Cluster
from tests.cluster.traffic import Traffic

QUEUE = "orders"


@pytest.fixture
def traffic(cluster: Cluster) -> Traffic:
    """A publisher and a consumer on every node."""
    RawClient(cluster.node("node1").amqp).declare(QUEUE)
    traffic = Traffic(QUEUE)
    ports = [cluster.node(name).amqp for name in cluster.names]
    for i in range(len(ports)):
        traffic.consume(ports[i:] + ports[:i])
    for i in range(len(ports)):
        traffic.publish(ports[i:] + ports[:i])
    wait_for_traffic(cluster, traffic)
    return traffic


def wait_for_traffic(cluster: Cluster, traffic: Traffic, more: int = 1000) -> None:
    target = traffic.confirmed() + more
    cluster.wait_for(lambda: traffic.confirmed() >= target, f"{more} more messages are confirmed")


def test_quiet_cluster_delivers_everything_once(cluster: Cluster, traffic: Traffic) -> None:
    wait_for_traffic(cluster, traffic, 5000)
    counts = traffic.finish().check()
    assert counts["duplicates"] == 0
    assert counts["reconnects"] == 0


def test_hand_over_moves_the_leader_and_clients_go_on(cluster: Cluster, traffic: Traffic) -> None:
    for _ in range(5):
        leader = cluster.leader(QUEUE)
        moved = cluster.control.call("transfer_leadership", {"vhost": "/", "name": QUEUE, "target": None})
        assert moved["from"] == leader
        assert moved["to"] != leader
        assert moved["unavailable_ms"] > 0
        assert cluster.wait_for_leader(QUEUE, leader) == moved["to"]
        wait_for_traffic(cluster, traffic)
    counts = traffic.finish().check()
    assert counts["reconnects"] == 0
    row = cluster.queue(QUEUE)
    assert row["last_failover"]["reason"] == "transfer"
    assert row["last_failover"]["to"] == row["leader"]


def test_killed_leader_is_replaced_and_catches_up(cluster: Cluster, traffic: Traffic) -> None:
    for _ in range(3):
        leader = cluster.leader(QUEUE)
        cluster.kill(leader)
        cluster.wait_for_leader(QUEUE, leader)
        wait_for_traffic(cluster, traffic)
        cluster.start_node(leader)
        cluster.wait_until_running(leader)
    wait_for_traffic(cluster, traffic)
    counts = traffic.finish().check()
    cluster.wait_until_caught_up(QUEUE)
    row = cluster.queue(QUEUE)
    assert row["messages"] == 0
    assert row["last_failover"]["reason"] == "crash"
    # Each kill cuts off one publisher only: the others' connections are on surviving nodes.
    assert counts["reconnects"] <= 3 * 3


def test_frozen_leader_is_deposed_and_harms_nobody_when_it_thaws(cluster: Cluster, traffic: Traffic) -> None:
    for _ in range(2):
        leader = cluster.leader(QUEUE)
        cluster.pause(leader)
        cluster.wait_for(partial(_led_by_another, cluster, leader), "another node leads")
        wait_for_traffic(cluster, traffic)
        cluster.resume(leader)
        cluster.wait_until_running(leader)
        wait_for_traffic(cluster, traffic)
    traffic.finish().check()


def _led_by_another(cluster: Cluster, former: str) -> bool:
    witness = next(name for name in cluster.names if name != former)
    return cluster.queue(QUEUE, node=witness)["leader"] not in (former, None)


def test_minority_confirms_nothing(cluster: Cluster, traffic: Traffic) -> None:
    leader = cluster.leader(QUEUE)
    for name in cluster.followers(QUEUE):
        cluster.kill(name)
    cluster.wait_for(
        lambda: cluster.queue(QUEUE, node=leader)["state"] == "no-quorum", "the last node knows it is alone"
    )
    before = traffic.confirmed()
    client = RawClient(cluster.node(leader).amqp)
    client.confirm()
    client.socket.sendall(client.publish_frames(QUEUE, struct.pack(">IQ", 99, 0)))
    client.socket.settimeout(2)
    with pytest.raises(TimeoutError):
        client.frames()
    client.socket.close()
    assert traffic.confirmed() == before
    for name in cluster.names:
        if name != leader:
            cluster.start_node(name)
    cluster.wait_until_complete()
    wait_for_traffic(cluster, traffic)
    history = traffic.finish()
    history.attempted.add((99, 0))
    history.check()


def test_everything_is_there_after_all_nodes_were_killed(cluster: Cluster) -> None:
    client = RawClient(cluster.node("node1").amqp)
    client.declare(QUEUE)
    traffic = Traffic(QUEUE)
    traffic.publish([cluster.node("node2").amqp])
    wait_for_traffic(cluster, traffic, 3000)
    for name in cluster.names:
        cluster.kill(name)
    for name in cluster.names:
        cluster.start_node(name)
    cluster.wait_until_complete()
    traffic.consume([cluster.node("node3").amqp])
    counts = traffic.finish().check()
    assert counts["delivered"] >= 3000
