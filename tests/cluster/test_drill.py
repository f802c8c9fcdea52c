"""Drills on real nodes: the leader is handed over, killed or paused for real, and the probes tell the truth."""

from __future__ import annotations

import threading
from typing import Any

import pika
import pytest

from brokers.adapters.base import Refused
from brokers.adapters.embedded import EmbeddedCluster
from brokers.operations.drill import Drill
from brokers.operations.probes import Probes
from tests.cluster.harness import Cluster

QUEUE = "orders"


@pytest.fixture
def with_queue(cluster: Cluster) -> Cluster:
    parameters = pika.ConnectionParameters("127.0.0.1", cluster.node("node1").amqp)
    with pika.BlockingConnection(parameters) as connection:
        connection.channel().queue_declare(QUEUE, durable=True)
    return cluster


def drill(cluster: Cluster, fault: str) -> dict[str, Any]:
    steps: list[str] = []
    params = {"vhost": "/", "name": QUEUE, "fault": fault, "node": cluster.leader(QUEUE)}
    adapter = EmbeddedCluster(cluster.config.home)
    result = Drill().run(adapter, params, lambda percent, step: steps.append(step))
    assert len(steps) >= 5
    assert [queue.name for queue in adapter.snapshot().queues] == [QUEUE]
    return result


def is_sound(result: dict[str, Any]) -> None:
    assert result["confirmed"] > 100
    assert (result["lost"], result["unflagged"]) == (0, 0)
    assert result["catch_up_s"] is not None
    assert 0 < result["unavailable_ms"] < 30_000


def test_transfer_and_pause(with_queue: Cluster) -> None:
    leader = with_queue.leader(QUEUE)
    result = drill(with_queue, "transfer")
    is_sound(result)
    assert result["node"] == leader != result["leader"]

    result = drill(with_queue, "pause")
    is_sound(result)
    assert with_queue.running() == with_queue.names


def test_kill(with_queue: Cluster) -> None:
    leader = with_queue.leader(QUEUE)
    over = threading.Event()

    def restart() -> None:
        # As the supervisor does where it runs. A node ends with the thread that started it.
        with_queue.wait_for(lambda: leader not in with_queue.running(), f"{leader} is killed")
        with_queue.start_node(leader)
        over.wait()

    restarting = threading.Thread(target=restart)
    restarting.start()
    try:
        result = drill(with_queue, "kill")
    finally:
        over.set()
    restarting.join()
    is_sound(result)


def test_only_processes_of_this_cluster_are_signalled(with_queue: Cluster, tmp_path: Any) -> None:
    from brokers.adapters.processes import is_ours, signal_node

    adapter = EmbeddedCluster(with_queue.config.home)
    node = adapter.snapshot().nodes[0]
    assert node.pid is not None
    assert is_ours(with_queue.config.home, node.name, node.pid)
    assert not is_ours(with_queue.config.home, "node2", node.pid)
    with pytest.raises(Refused, match="does not run on this machine"):
        signal_node(tmp_path, node, "kill")
    assert with_queue.running() == with_queue.names


def test_probes_notice_what_is_lost(with_queue: Cluster) -> None:
    probes = Probes([f"127.0.0.1:{with_queue.node('node1').amqp}"], "probed")
    probes.declare(60)
    probes.start()
    with_queue.wait_for(lambda: probes.confirms() > 20, "probes are confirmed")
    probes.finish(10)
    probes._confirmed.add(1_000_000)
    assert probes.findings(0.0).lost == 1
    probes.delete()
