"""``manage.py cluster`` and the keeper behind it, with real nodes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from brokers.engine.config import ClusterConfig
from brokers.engine.control.client import SyncControlClient
from mqconsole.supervisor.background import start_in_background, stop_in_background
from mqconsole.supervisor.home import HomeLock
from mqconsole.supervisor.program import PROJECT_ROOT
from tests.cluster.harness import TIMEOUT, free_base


class Command:
    """``manage.py cluster`` for one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_base(5)

    def __call__(self, *args: str, data: bool = True) -> subprocess.CompletedProcess[str]:
        # A database that cannot be opened: these commands must not want one.
        env = {**os.environ, "MQ_HOME": str(self.home), "DATABASE_URL": "sqlite:////nowhere/at/all"}
        command = [sys.executable, "manage.py", "cluster", *args]
        if data:
            command += ["--data", str(self.home)]
        return subprocess.run(
            command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
        )

    def start(self, nodes: int | None = None) -> None:
        """What ``cluster start`` does, in this process: it saves some seconds."""
        start_in_background(self.home, nodes, self.port)

    def status(self) -> dict[str, Any]:
        """What ``cluster status --json`` prints."""
        done = self("status", "--json")
        assert done.returncode in (0, 3), done.stderr
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    def nodes(self) -> dict[str, dict[str, Any]]:
        """The nodes as the cluster sees them, by name."""
        client = SyncControlClient.from_config(ClusterConfig.load(self.home))
        return {row["name"]: row for row in client.call("snapshot")["nodes"]}

    def messages(self, queue: str) -> int:
        """How many messages ``queue`` has."""
        client = SyncControlClient.from_config(ClusterConfig.load(self.home))
        return int(client.call("queue", {"vhost": "/", "name": queue})["messages"])


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    command = Command(tmp_path / "home")
    yield command
    stop_in_background(command.home)
    holder = HomeLock.holder(command.home)
    if holder is not None:
        os.kill(holder.pid, signal.SIGKILL)
        pytest.fail(f"the keeper {holder.pid} outlived 'cluster stop'")


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + TIMEOUT
    while not (seen := condition()):
        assert time.monotonic() < deadline, f"not within {TIMEOUT:g} s: {what}"
        time.sleep(0.05)
    return seen


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def states(status: dict[str, Any]) -> dict[str, str]:
    return {node["name"]: node["state"] for node in status["nodes"]}


def test_a_cluster_from_start_to_stop(command: Command) -> None:
    started = command("start", "--nodes", "3", "--amqp-port", str(command.port))
    assert started.returncode == 0, started.stderr
    assert f"node3 on 127.0.0.1:{command.port + 2}" in started.stdout
    status = command.status()
    assert states(status) == {"node1": "running", "node2": "running", "node3": "running"}
    assert [set(node) for node in status["nodes"]] == [{"name", "pid", "amqp", "state"}] * 3
    assert [node["amqp"] for node in status["nodes"]] == [f"127.0.0.1:{command.port + i}" for i in range(3)]
    pids = [node["pid"] for node in status["nodes"]]
    assert all(map(alive, pids))

    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", command.port)) as connection:
        channel = connection.channel()
        channel.queue_declare("orders", durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", "orders", b"one", pika.BasicProperties(delivery_mode=2))
    wait_for(lambda: command.messages("orders") == 1, "the message is counted")
    (queue,) = command.status()["queues"]
    assert queue["messages"] == 1
    assert set(queue) == {"vhost", "name", "leader", "replicas", "messages"}
    assert (queue["vhost"], queue["name"]) == ("/", "orders")
    assert [set(replica) for replica in queue["replicas"]] == [{"node", "role", "lag"}] * 3
    leaders = [replica["node"] for replica in queue["replicas"] if replica["role"] == "leader"]
    assert leaders == [queue["leader"]]

    done = command("stop")
    assert (done.returncode, done.stdout.strip()) == (0, "stopped")
    assert not any(map(alive, pids))
    down = command("status", "--json")
    assert down.returncode == 3
    assert states(json.loads(down.stdout)) == {"node1": "down", "node2": "down", "node3": "down"}


def test_what_was_there_is_there_after_a_restart(command: Command) -> None:
    command.start()
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", command.port)) as connection:
        channel = connection.channel()
        channel.queue_declare("orders", durable=True)
        channel.confirm_delivery()
        for number in range(10):
            channel.basic_publish("", "orders", b"%d" % number, pika.BasicProperties(delivery_mode=2))
    stop_in_background(command.home)
    # Neither nodes nor port are said again: they are the cluster's.
    start_in_background(command.home, None, None)
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", command.port + 2)) as connection:
        channel = connection.channel()
        got = [channel.basic_get("orders", auto_ack=True)[2] for _ in range(10)]
    assert got == [b"%d" % number for number in range(10)]


def test_a_killed_node_is_started_again(command: Command) -> None:
    command.start()
    pid = command.nodes()["node2"]["pid"]
    os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        node = command.nodes()["node2"]
        return node["state"] == "running" and node["pid"] not in (None, pid)

    wait_for(back, "node2 runs again under another pid")
    assert "node2 was ended by SIGKILL" in (command.home / "logs" / "supervisor.log").read_text()


def test_start_is_no_error_when_it_runs_and_refuses_to_be_another_cluster(command: Command) -> None:
    command.start()
    pids = [node["pid"] for node in command.nodes().values()]
    command.start()
    assert [node["pid"] for node in command.nodes().values()] == pids
    done = command("start", "--nodes", "5")
    assert done.returncode == 1
    assert "a cluster of 3 nodes" in done.stderr
    assert "stop it first" in done.stderr


def test_a_killed_keeper_takes_its_nodes_along_and_the_next_start_works(command: Command) -> None:
    command.start()
    pids = [node["pid"] for node in command.nodes().values()]
    holder = HomeLock.holder(command.home)
    assert holder is not None
    os.kill(holder.pid, signal.SIGKILL)
    wait_for(lambda: HomeLock.holder(command.home) is None, "the keeper is gone")
    command.start()
    assert not any(map(alive, pids))
    assert {node["state"] for node in command.nodes().values()} == {"running"}


def test_a_taken_port_is_named_and_nothing_is_left_running(command: Command) -> None:
    with socket.create_server(("127.0.0.1", command.port + 1)):
        done = command("start", "--amqp-port", str(command.port))
    assert done.returncode == 1
    assert f"127.0.0.1:{command.port + 1} (the AMQP port of node2) is in use" in done.stderr
    assert "MQ_AMQP_PORT" in done.stderr
    assert HomeLock.holder(command.home) is None


def test_nodes_that_do_not_stay_up_are_reported_with_their_last_words(command: Command) -> None:
    command.start(nodes=1)
    stop_in_background(command.home)
    data = command.home / "cluster" / "node1"
    data.rename(data.with_name("aside"))
    data.write_text("a file where a folder must be")
    done = command("start")
    assert done.returncode == 1
    assert "node1 does not stay up" in done.stderr
    assert "node1.log" in done.stderr
    assert HomeLock.holder(command.home) is None


def test_without_a_cluster_status_says_so(command: Command) -> None:
    done = command("status", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout) == {"nodes": [], "queues": []}
    assert "there is no cluster in" in done.stderr
    assert "no cluster runs in" in command("stop").stdout


def test_the_environment_says_what_options_do_not(command: Command) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MQ_NODES", "1")
        patch.setenv("MQ_AMQP_PORT", str(command.port))
        assert command("start", data=False).returncode == 0
    (node,) = command.nodes().values()
    assert node["amqp"] == f"127.0.0.1:{command.port}"
