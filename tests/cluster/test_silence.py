"""A node that is there and says nothing: the others deliver without it, and give up its links."""

from __future__ import annotations

from collections.abc import Callable

from tests.bench.rawclient import RawClient
from tests.cluster.harness import Cluster
from tests.cluster.traffic import Traffic

QUEUE = "orders"


def test_others_deliver_while_the_leader_is_frozen(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster().start()
    RawClient(cluster.node("node1").amqp).declare(QUEUE)
    traffic = Traffic(QUEUE)
    leader = cluster.leader(QUEUE)
    others = [name for name in cluster.names if name != leader]
    for name in others:
        traffic.consume([cluster.node(name).amqp])
        traffic.publish([cluster.node(name).amqp])
    history = traffic.history
    cluster.wait_for(lambda: len(history.deliveries) > 1000, "traffic flows")
    cluster.pause(leader)
    cluster.wait_for_leader(QUEUE, leader)
    before = len(history.deliveries)
    cluster.wait_for(lambda: len(history.deliveries) > before + 5000, "messages are delivered again")
    for witness in others:
        cluster.wait_for(
            lambda witness=witness: _state(cluster, witness, leader) == "down",  # type: ignore[misc]  # bound
            f"{witness} has given up its link with {leader}",
        )
    cluster.resume(leader)
    cluster.wait_until_running(leader)
    traffic.finish().check()


def _state(cluster: Cluster, witness: str, name: str) -> str:
    states: dict[str, str] = {row["name"]: row["state"] for row in cluster.snapshot(witness)["nodes"]}
    return states[name]
