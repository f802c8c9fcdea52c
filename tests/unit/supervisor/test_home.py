from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from brokers.engine.config import ClusterConfig
from mqconsole.supervisor.home import (
    Holder,
    HomeError,
    HomeLock,
    Port,
    check_ports,
    cluster_ports,
    running_nodes,
)


def test_a_home_has_one_holder_at_a_time(tmp_path: Path) -> None:
    home = tmp_path / "var"
    assert HomeLock.holder(home) is None
    lock = HomeLock.acquire(home, "run")
    assert HomeLock.holder(home) == Holder(os.getpid(), "run")
    with pytest.raises(
        HomeError, match=rf"in use by process {os.getpid()} \(manage.py run\); stop it with Ctrl-C"
    ):
        HomeLock.acquire(home, "cluster")
    lock.release()
    assert HomeLock.holder(home) is None
    HomeLock.acquire(home, "cluster").release()


def test_a_lock_can_be_handed_to_another_process(tmp_path: Path) -> None:
    lock = HomeLock.acquire(tmp_path, "cluster")
    heir = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock.descriptor]
    )
    lock.release()
    assert HomeLock.holder(tmp_path) is not None
    heir.communicate(b"\n")
    assert HomeLock.holder(tmp_path) is None


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HomeError, match="set MQ_HOME to another folder"):
        HomeLock.acquire(tmp_path / "file", "run")


def test_a_taken_port_is_named_with_what_moves_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        with pytest.raises(
            HomeError, match=rf"127.0.0.1:{number} \(the console\) is in use.*set MQ_HTTP_PORT"
        ):
            check_ports([Port("127.0.0.1", number, "the console", "MQ_HTTP_PORT")])
    check_ports([Port("127.0.0.1", number, "the console", "MQ_HTTP_PORT")])


def test_every_port_of_every_node_is_checked(tmp_path: Path) -> None:
    ports = cluster_ports(ClusterConfig.ensure(tmp_path, nodes=2, amqp_port=7000))
    assert [port.number for port in ports] == [7000, 27000, 17000, 7001, 27001, 17001]


def test_nodes_are_known_by_their_pid_file_and_command_line(tmp_path: Path) -> None:
    config = ClusterConfig.ensure(tmp_path, nodes=2)
    for name in ("node1", "node2"):
        config.data_dir(name).mkdir()
    command = [
        sys.executable,
        "-c",
        "print(flush=True); input()",
        "brokers.engine.node",
        "--home",
        str(tmp_path),
        "--name",
        "node1",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as node:
        # Just after the fork the system does not know the command line yet.
        assert node.stdout is not None
        node.stdout.readline()
        config.pid_path("node1").write_text(str(node.pid))
        # A pid that now belongs to somebody else.
        config.pid_path("node2").write_text(str(os.getpid()))
        assert running_nodes(config) == {"node1": node.pid}
        node.communicate(b"\n")
    assert running_nodes(config) == {}
