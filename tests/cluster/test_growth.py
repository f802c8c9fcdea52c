"""A cluster that is started with more nodes than before takes them in, and can then do without an old one."""

from __future__ import annotations

from collections.abc import Callable

from brokers.engine.config import ClusterConfig
from tests.bench.rawclient import RawClient
from tests.cluster.harness import Cluster


def test_new_nodes_learn_then_vote(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(3).start()
    client = RawClient(cluster.node("node1").amqp)
    client.declare("before")
    client.confirm()
    client.socket.sendall(client.publish_frames("before", b"kept"))
    client.expect(60, 80)
    home, base = cluster.config.home, cluster.node("node1").amqp
    cluster.close()

    grown = make_cluster(5, home=home, base=base).start()
    newcomer = RawClient(grown.node("node5").amqp)
    newcomer.declare("after")
    assert grown.queue("before")["messages"] == 1
    grown.wait_for(lambda: len(_voters(grown)) == 5, "all five nodes vote on the metadata")

    for name in ("node1", "node2"):
        grown.kill(name)
    client = RawClient(grown.node("node4").amqp)
    client.declare("with two of five gone")
    assert ClusterConfig.load(home).founders == (1, 2, 3)


def _voters(cluster: Cluster) -> list[str]:
    return list(cluster.snapshot()["metadata"]["voters"])
