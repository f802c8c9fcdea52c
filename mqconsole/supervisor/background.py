"""Starting and stopping a cluster in the background: the two ends of a keeper's life."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from brokers.engine.config import ClusterConfig
from brokers.engine.control.client import SyncControlClient
from brokers.engine.control.protocol import ControlError
from mqconsole.supervisor.child import describe_end
from mqconsole.supervisor.home import (
    HomeError,
    HomeLock,
    check_ports,
    cluster_ports,
    end_leftovers,
    running_nodes,
)
from mqconsole.supervisor.nodes import (
    NODE_GRACE,
    QUORUM_TIMEOUT,
    STRAGGLERS,
    has_quorum,
    is_complete,
    log_dir,
)
from mqconsole.supervisor.program import PROJECT_ROOT, python
from mqconsole.supervisor.supervisor import StartFailed

_PAUSE: Final = 0.1


def start_in_background(home: Path, nodes: int | None, amqp_port: int | None) -> ClusterConfig:
    """Start a cluster and give its configuration once a quorum serves (and, if they hurry, all nodes).

    One that was started already is left as it is, and waited for in the same way. Raises ConfigError,
    HomeError (in use, a port taken, the running one is not what is asked for) or StartFailed with last lines.
    """
    holder = HomeLock.holder(home)
    if holder is not None and holder.command == "cluster":
        joined = _join_running(home, nodes, amqp_port)
        if joined is not None:
            return joined
    lock = HomeLock.acquire(home, "cluster")
    try:
        config = ClusterConfig.ensure(home, nodes, amqp_port)
        asyncio.run(end_leftovers(config))
        check_ports(cluster_ports(config))
        log = log_dir(config.home) / "keeper.log"
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log.open("wb") as output:
            keeper = subprocess.Popen(
                python(
                    "-m",
                    "mqconsole.supervisor.keeper",
                    "--home",
                    str(config.home),
                    "--lock",
                    str(lock.descriptor),
                ),
                cwd=PROJECT_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[lock.descriptor],
            )
    finally:
        # The keeper has the same open file, and with it the lock.
        lock.release()
    try:
        if not _wait_until_it_serves(config, lambda: keeper.poll() is None):
            said = log.read_text(encoding="utf-8", errors="replace").strip()
            raise StartFailed(said or f"the keeper {describe_end(keeper.wait())} and said nothing")
    except BaseException:
        _end(keeper)
        raise
    return config


def stop_in_background(home: Path) -> bool:
    """Stop the cluster that ``start_in_background`` started and wait for its end; False when none ran.

    Raises HomeError when something else runs in ``home``, or the keeper does not end.
    """
    holder = HomeLock.holder(home)
    if holder is None:
        return _stop_leftovers(home)
    if holder.command != "cluster":
        raise HomeError(
            f"{home} is run by process {holder.pid} (manage.py {holder.command}); stop it with Ctrl-C where "
            f"it runs, or: kill {holder.pid}"
        )
    for seconds in (NODE_GRACE + 5.0, 10.0):
        # The second signal makes the keeper kill what hangs.
        os.kill(holder.pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if HomeLock.holder(home) is None:
                return True
            time.sleep(_PAUSE)
    raise HomeError(f"the keeper (process {holder.pid}) does not end; see {log_dir(home) / 'supervisor.log'}")


def _join_running(home: Path, nodes: int | None, amqp_port: int | None) -> ClusterConfig | None:
    """Wait for the cluster that another command started; None when its keeper is gone."""
    config = ClusterConfig.load(home)
    if nodes not in (None, len(config.nodes)) or amqp_port not in (None, config.nodes[0].amqp):
        raise HomeError(
            f"a cluster of {len(config.nodes)} nodes on port {config.nodes[0].amqp} and up runs in {home} "
            f"already; stop it first to change that"
        )
    return config if _wait_until_it_serves(config, lambda: HomeLock.holder(home) is not None) else None


def _wait_until_it_serves(config: ClusterConfig, kept: Callable[[], bool]) -> bool:
    """Wait until a quorum serves, and a little for the other nodes; False when it is ``kept`` no longer."""
    client = SyncControlClient.from_config(config)
    deadline = time.monotonic() + QUORUM_TIMEOUT + STRAGGLERS
    patience = None
    while patience is None or time.monotonic() < patience:
        try:
            snapshot = client.call("snapshot", timeout=2.0)
        except ControlError as error:
            # Its nodes are starting; the keeper ends by itself when they do not come up.
            answer = error.text
        else:
            if is_complete(snapshot):
                return kept()
            if patience is None and has_quorum(snapshot):
                patience = time.monotonic() + STRAGGLERS
            answer = "the nodes answer but find no quorum"
        if not kept():
            return False
        if patience is None and time.monotonic() > deadline:
            raise StartFailed(f"{answer}; see {log_dir(config.home)}")
        time.sleep(_PAUSE)
    return kept()


def _end(keeper: subprocess.Popen[bytes]) -> None:
    if keeper.poll() is None:
        keeper.terminate()
        try:
            keeper.wait(NODE_GRACE + 5.0)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()


def _stop_leftovers(home: Path) -> bool:
    if not ClusterConfig.path(home).exists():
        return False
    config = ClusterConfig.load(home)
    left = running_nodes(config)
    asyncio.run(end_leftovers(config))
    return bool(left)
