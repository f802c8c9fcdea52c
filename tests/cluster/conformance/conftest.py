"""Every scenario runs once a client library and place: with the client on the node that leads the scenario's
durable queues, on one that does not, and with the lead moving away in the middle (``place.move``).

One cluster, one program a library and one connection a program and node serve the whole folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pika
import pytest

from tests.cluster.conformance.driver import Channel, Driver
from tests.cluster.harness import Cluster
from tests.cluster.java import CLASS_PATH, compile_java, require_java

HERE = Path(__file__).parent
LIBRARIES = ("pika", "amqplib", pytest.param("java", marks=pytest.mark.java))
POSITIONS = ("leader", "follower", "failover")

_names = count(1)


class Place:
    """A client library at a position, for one scenario."""

    def __init__(self, cluster: Cluster, driver: Driver, position: str, connections: dict[str, str]) -> None:
        self.cluster = cluster
        self.driver = driver
        self.position = position
        self._connections = connections
        self._node = "node1"
        self._helper = pika.BlockingConnection(
            pika.ConnectionParameters("127.0.0.1", cluster.node("node1").amqp)
        )

    def name(self, kind: str = "queue") -> str:
        """A name that nothing had yet."""
        return f"{kind}.{next(_names)}"

    def queue(self, **arguments: Any) -> str:
        """A new durable queue; channels opened from now on are placed by its leader."""
        name = self.name()
        self._helper.channel().queue_declare(name, durable=True, arguments=arguments)
        leader = self.cluster.leader(name)
        others = [node for node in self.cluster.names if node != leader]
        self._node = leader if self.position == "leader" else others[0]
        return name

    @property
    def port(self) -> int:
        """Of the node that clients are to use."""
        return self.cluster.node(self._node).amqp

    def channel(self, confirm: bool = False, connection: str | None = None) -> Channel:
        """A channel on a shared connection (or one of the test's own) to the node that fits the position."""
        label = connection or self._connections.get(self._node)
        if label is None:
            label = self._connections[self._node] = self.connection()
        return Channel(self.driver, label, confirm)

    def connection(self, **options: Any) -> str:
        """A connection of the test's own to the same node."""
        label = self.driver.name("c")
        self.driver.call("connect", c=label, port=self.port, **options)
        return label

    def broken(self) -> None:
        """The shared connection ended."""
        self._connections.pop(self._node, None)

    def move(self, queue: str) -> None:
        """The fail-over in the middle, where this run has one."""
        if self.position == "failover":
            before = self.cluster.leader(queue)
            target = next(node for node in self.cluster.names if node not in (before, self._node))
            arguments = {"vhost": "/", "name": queue, "target": target}
            assert self.cluster.control.call("transfer_leadership", arguments)["to"] == target

    def close(self) -> None:
        self._helper.close()


@pytest.fixture(scope="session")
def conformance_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("conformance") / "home") as cluster:
        yield cluster.start()


@pytest.fixture(scope="session")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Driver]]:
    """Started when first asked for."""
    running: dict[str, Driver] = {}
    yield running
    for driver in running.values():
        driver.stop()


@pytest.fixture(scope="session")
def connections() -> dict[str, dict[str, str]]:
    """Shared connections: by library, the labels by node."""
    return {}


def started(library: str, folder: Path) -> Driver:
    if library == "pika":
        return Driver([sys.executable, str(HERE / "pika_driver.py")], HERE)
    if library == "java":
        require_java()
        compile_java(HERE / "java" / "Driver.java", folder)
        return Driver(
            ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{folder}{os.pathsep}{CLASS_PATH}", "Driver"], folder
        )
    require_node()
    for name in ("package.json", "package-lock.json", ".npmrc", "driver.js"):
        shutil.copy(HERE / "node" / name, folder)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert installed.returncode == 0, installed.stderr
    return Driver(["node", "driver.js"], folder)


def require_node() -> None:
    """Skip, and say so loudly, where Node.js is missing; in CI that is a failure."""
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if not missing:
        return
    text = f"not installed: {', '.join(missing)}; apt-get install nodejs npm"
    if os.environ.get("CI"):
        pytest.fail(text)
    warnings.warn(text, stacklevel=2)
    pytest.skip(text)


@pytest.fixture(params=LIBRARIES, scope="session")
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=POSITIONS)
def place(
    request: pytest.FixtureRequest,
    library: str,
    conformance_cluster: Cluster,
    drivers: dict[str, Driver],
    connections: dict[str, dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    if library not in drivers:
        drivers[library] = started(library, tmp_path_factory.mktemp(library))
    shared = connections.setdefault(library, {})
    place = Place(conformance_cluster, drivers[library], request.param, shared)
    yield place
    place.close()
