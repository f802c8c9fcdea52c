"""Real node processes for tests: started on free ports, killed, paused, restarted, always cleaned up."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from brokers.engine.config import ClusterConfig, NodeConfig
from brokers.engine.control.client import SyncControlClient
from brokers.engine.control.protocol import ControlError
from mqconsole.supervisor.nodes import has_quorum, is_complete
from mqconsole.supervisor.program import PROJECT_ROOT, end_with_parent

TIMEOUT: Final = 30.0
"""Seconds a condition has to come true: far more than it takes, so that a slow machine fails no test."""

_PAUSE: Final = 0.02

T = TypeVar("T")


class Cluster:
    """A cluster of node processes under ``home``; use it as a context manager."""

    def __init__(
        self, home: Path, nodes: int = 3, env: dict[str, str] | None = None, base: int | None = None
    ) -> None:
        self.config = ClusterConfig.ensure(home, nodes, base or free_base(nodes))
        self.control = SyncControlClient.from_config(self.config)
        self._env = env or {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def names(self) -> list[str]:
        """The nodes' names, in their order."""
        return [node.name for node in self.config.nodes]

    def node(self, name: str) -> NodeConfig:
        """Where the node called ``name`` listens."""
        return self.config.node(name)

    def pid(self, name: str) -> int:
        """The process of the node called ``name``."""
        return self._processes[name].pid

    def running(self) -> list[str]:
        """The nodes whose process has not ended."""
        return [name for name, process in self._processes.items() if process.poll() is None]

    def home_of(self, name: str) -> Path:
        """The MQ_HOME of the node called ``name``: that of all, unless a test sets them apart."""
        return self.config.home

    def env_of(self, name: str) -> dict[str, str]:
        """What the node called ``name`` has in its environment beside what all have."""
        return {}

    # --- what is done to nodes ------------------------------------------------------------------------

    def start(self) -> Self:
        """Start all nodes and wait until all of them run under a leader."""
        for name in self.names:
            self.start_node(name)
        self.wait_until_complete()
        return self

    def start_node(self, name: str) -> None:
        """Start the process of a node that does not run."""
        process = self._processes.get(name)
        if process is not None and process.poll() is None:
            raise AssertionError(f"{name} runs already as process {process.pid}")
        log = self.log_path(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._processes[name] = subprocess.Popen(
                [
                    sys.executable,
                    *("-m", "brokers.engine.node"),
                    *("--home", str(self.home_of(name))),
                    *("--name", name),
                ],
                cwd=PROJECT_ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self._env, **self.env_of(name)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )

    def kill(self, name: str) -> None:
        """SIGKILL, and wait for the end."""
        self._processes[name].kill()
        self._processes[name].wait(TIMEOUT)

    def terminate(self, name: str) -> int:
        """SIGTERM, wait for the end, and give the exit code."""
        self._processes[name].terminate()
        return self._processes[name].wait(TIMEOUT)

    def pause(self, name: str) -> None:
        """SIGSTOP: the process is there, its sockets are open, and it does nothing."""
        os.kill(self.pid(name), signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT after ``pause``."""
        os.kill(self.pid(name), signal.SIGCONT)

    def restart(self, name: str) -> None:
        """Kill (if it runs) and start a node, and wait until the others see it run."""
        if name in self.running():
            self.kill(name)
        self.start_node(name)
        self.wait_until_running(name)

    def close(self) -> None:
        """Kill every node, paused ones too."""
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
        for process in self._processes.values():
            process.wait(TIMEOUT)

    # --- what is seen of them -------------------------------------------------------------------------

    def snapshot(self, node: str | None = None) -> dict[str, Any]:
        """The cluster as ``node``, or whichever answers, sees it."""
        snapshot: dict[str, Any] = self.control.call("snapshot", node=node)
        return snapshot

    def queue(self, name: str, vhost: str = "/", node: str | None = None) -> dict[str, Any]:
        """One queue's row. Raises ControlError ``not-found``."""
        queue: dict[str, Any] = self.control.call("queue", {"vhost": vhost, "name": name}, node=node)
        return queue

    def leader(self, queue: str, vhost: str = "/") -> str:
        """The name of the node that leads ``queue``; waits while there is none."""

        def leads() -> str | None:
            leader: str | None = self.queue(queue, vhost)["leader"]
            return leader

        return self.wait_for(leads, f"queue {queue!r} has a leader")

    def followers(self, queue: str, vhost: str = "/") -> list[str]:
        """The running nodes that do not lead ``queue``."""
        leader = self.leader(queue, vhost)
        return [name for name in self.running() if name != leader]

    def wait_for_leader(self, queue: str, other_than: str, vhost: str = "/") -> str:
        """The leader of ``queue`` once that is not ``other_than``, as a surviving node sees it."""
        others = [name for name in self.running() if name != other_than]

        def moved() -> str | None:
            leader: str | None = self.queue(queue, vhost, node=others[0])["leader"]
            return leader if leader != other_than else None

        return self.wait_for(moved, f"queue {queue!r} is led by another node than {other_than}")

    def wait_for_quorum(self, node: str | None = None) -> dict[str, Any]:
        """The first snapshot of a cluster that serves."""
        return self.wait_for(lambda: _if(has_quorum, self.snapshot(node)), "a quorum serves")

    def wait_until_complete(self) -> None:
        """Wait until every running node sees every node run, under a leader."""
        for name in self.running():
            self.wait_for(partial(self._sees_all, name), f"{name} sees all nodes run")

    def wait_until_running(self, name: str) -> None:
        """Wait until all running nodes see the one called ``name`` run."""
        for witness in self.running():
            self.wait_for(partial(self._sees, witness, name), f"{witness} sees {name} run")

    def wait_until_caught_up(self, queue: str, vhost: str = "/") -> None:
        """Wait until every replica of ``queue`` runs and has all of its log."""

        def caught_up() -> bool:
            replicas = self.queue(queue, vhost)["replicas"]
            return all(replica["role"] != "down" and replica["lag"] == 0 for replica in replicas)

        self.wait_for(caught_up, f"all replicas of {queue!r} are up to date")

    def wait_for(self, condition: Callable[[], T | None], what: str, timeout: float = TIMEOUT) -> T:
        """The first true value of ``condition``; a ControlError in it counts as not yet.

        Raises AssertionError that says ``what`` did not come true, and what was last seen.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                seen: object = condition()
                if seen:
                    return seen  # type: ignore[return-value]  # a true value is a T
            except ControlError as error:
                seen = error
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout:g} s: {what}; last seen: {seen!r:.2000}")
            time.sleep(_PAUSE)

    def log_path(self, name: str) -> Path:
        """What the node called ``name`` printed."""
        return self.config.home / "logs" / f"{name}.log"

    def log_tails(self, lines: int = 40) -> str:
        """The ends of all nodes' logs, for a failed test's report."""
        parts = []
        for name in self.names:
            path = self.log_path(name)
            text = path.read_text(errors="replace") if path.exists() else ""
            parts.append("\n".join([f"--- {name}", *text.splitlines()[-lines:]]))
        return "\n".join(parts)

    def _sees_all(self, witness: str) -> bool:
        return is_complete(self.snapshot(witness))

    def _sees(self, witness: str, name: str) -> bool:
        return any(
            row["name"] == name and row["state"] == "running" for row in self.snapshot(witness)["nodes"]
        )


def free_base(nodes: int) -> int:
    """A base port whose AMQP, control and peer ports are all free, below those of outgoing connections."""
    for _ in range(200):
        base = random.randrange(10_000, 12_700)
        ports = [base + offset + i for offset in (0, 10_000, 20_000) for i in range(nodes)]
        if all(_is_free(port) for port in ports):
            return base
    raise AssertionError("no free ports were found in 10000..32700")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _if(condition: Callable[[dict[str, Any]], bool], snapshot: dict[str, Any]) -> dict[str, Any] | None:
    return snapshot if condition(snapshot) else None
