"""The nodes of a cluster as programs, and when a cluster counts as serving."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

from brokers.engine.config import ClusterConfig
from brokers.engine.control.client import ControlClient
from brokers.engine.control.protocol import ControlError
from mqconsole.supervisor.program import Program, python
from mqconsole.supervisor.supervisor import StartFailed, Supervisor, last_lines

QUORUM_TIMEOUT: Final = 60.0
"""Seconds a cluster has to elect a leader of its metadata; a long log takes some to be read."""
STRAGGLERS: Final = 5.0
"""Seconds the other nodes have after that, before the start is reported without them."""
STARTING_DEATHS: Final = 3
"""Deaths of one node before the cluster serves that make the start a failure."""
NODE_GRACE: Final = 15.0

_PAUSE: Final = 0.1
_CONSOLE_SECRETS: Final = ("MQ_ADMIN_PASSWORD", "MQ_SECRET_KEY", "MQ_BACKUP_KEY", "DATABASE_URL", "REDIS_URL")


def node_program(config: ClusterConfig, name: str) -> Program:
    """The program that is the node called ``name``; it gets none of the console's secrets."""
    return Program(
        name=name,
        argv=python("-m", "brokers.engine.node", "--home", str(config.home), "--name", name),
        env=dict.fromkeys(_CONSOLE_SECRETS),
        grace=NODE_GRACE,
    )


def log_dir(home: Path) -> Path:
    """Where the logs of everything that runs from ``home`` lie."""
    return home / "logs"


def has_quorum(snapshot: dict[str, Any]) -> bool:
    """Whether the topology's group has a leader and a majority of the nodes runs."""
    nodes = snapshot["nodes"]
    running = sum(node["state"] == "running" for node in nodes)
    return snapshot["metadata"]["leader"] is not None and 2 * running > len(nodes)


def is_complete(snapshot: dict[str, Any]) -> bool:
    """Whether there is a quorum and no node is missing."""
    return has_quorum(snapshot) and all(node["state"] == "running" for node in snapshot["nodes"])


async def start_nodes(supervisor: Supervisor, config: ClusterConfig) -> None:
    """Start all nodes and wait until a quorum serves (and a little longer for the others).

    Raises StartFailed with last lines of logs when nodes die, or no quorum serves in QUORUM_TIMEOUT seconds.
    """
    children = [await supervisor.start(node_program(config, node.name)) for node in config.nodes]
    loop = asyncio.get_running_loop()
    deadline = loop.time() + QUORUM_TIMEOUT
    patience = None
    answer = "no node answered"
    async with ControlClient.from_config(config) as control:
        while patience is None or loop.time() < patience:
            try:
                snapshot = await control.call("snapshot", timeout=2.0)
            except ControlError as error:
                answer = error.text
            else:
                if is_complete(snapshot):
                    return
                if patience is None and has_quorum(snapshot):
                    patience = loop.time() + STRAGGLERS
                states = ", ".join(f"{node['name']} {node['state']}" for node in snapshot["nodes"])
                answer = (
                    f"{states}; the leader of the topology is {snapshot['metadata']['leader'] or 'unknown'}"
                )
            if patience is None:
                for child in children:
                    if child.deaths >= STARTING_DEATHS:
                        raise StartFailed(f"{child.program.name} does not stay up:{last_lines(child)}")
                if loop.time() > deadline:
                    shown = "".join(f"\n  {child.program.name}:{last_lines(child, 5)}" for child in children)
                    raise StartFailed(f"no quorum within {QUORUM_TIMEOUT:g} s ({answer}).{shown}")
            await asyncio.sleep(_PAUSE)
    supervisor.say(f"a quorum serves, but not all nodes: {answer}")
