"""A cluster of one node for a short time: where a backup is proven by restoring it."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from brokers.adapters.base import Cluster, ClusterError, ClusterUnavailable
from brokers.adapters.embedded import EmbeddedCluster
from brokers.engine.config import ClusterConfig
from mqconsole.supervisor.nodes import node_program
from mqconsole.supervisor.program import end_with_parent

START: Final = 60.0
"""Seconds the node has to serve."""
STOP: Final = 10.0
STALE: Final = 2 * 24 * 3600.0
"""Seconds after which a folder is what a process that was killed left behind."""
_PORTS: Final = range(10_000, 32_000)
_OFFSETS: Final = (0, 10_000, 20_000)


@contextmanager
def scratch_cluster(parent: Path) -> Iterator[Cluster]:
    """A running cluster on free loopback ports, its data under ``parent``; gone without a trace afterwards.

    Raises ClusterUnavailable when it does not come up.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob("scratch-*"):
        if time.time() - left.stat().st_mtime > STALE:
            shutil.rmtree(left, ignore_errors=True)
    home = Path(tempfile.mkdtemp(prefix="scratch-", dir=parent))
    process: subprocess.Popen[bytes] | None = None
    try:
        config = ClusterConfig.ensure(home, 1, _free_base())
        program = node_program(config, config.nodes[0].name)
        log = home / "node.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  the project's own program
                program.argv,
                cwd=program.cwd,
                env=program.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )
        cluster = EmbeddedCluster(home)
        _wait(cluster, process, log)
        yield cluster
    finally:
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(home, ignore_errors=True)


def _wait(cluster: Cluster, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START
    trouble = "it has not answered"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if all(node.state == "running" for node in cluster.snapshot().nodes):
                return
        except ClusterError as error:
            trouble = str(error)
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-2000:]
    raise ClusterUnavailable(f"the scratch cluster did not come up: {trouble}\n{tail}")


def _free_base() -> int:
    for _ in range(200):
        base = random.choice(_PORTS)  # noqa: S311  a port, not a secret
        if all(_is_free(base + offset) for offset in _OFFSETS):
            return base
    raise ClusterUnavailable("no three free ports were found for a scratch cluster")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
