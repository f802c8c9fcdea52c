"""``manage.py cluster start|stop|status``: the broker alone, in the background."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from brokers.engine.config import ClusterConfig, ConfigError
from brokers.engine.control.client import SyncControlClient
from brokers.engine.control.protocol import ControlError
from mqconsole.supervisor.background import start_in_background, stop_in_background
from mqconsole.supervisor.home import HomeError
from mqconsole.supervisor.supervisor import StartFailed

NOT_RUNNING = 3
"""The exit code of ``status`` when no node answers (as the LSB has it for services)."""


class Command(BaseCommand):
    """Starts, stops and shows the broker alone, without the console and without a database."""

    help = __doc__
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Options that are the same for all three actions, so that they can be given in any order."""
        parser.add_argument("action", choices=["start", "stop", "status"])
        parser.add_argument("--nodes", type=int, help="number of nodes (MQ_NODES; 3 for a new cluster)")
        parser.add_argument("--data", type=Path, metavar="DIR", help="where the data lives (MQ_HOME)")
        parser.add_argument(
            "--amqp-port", type=int, metavar="P", help="node i listens on P + i (MQ_AMQP_PORT; 5672)"
        )
        parser.add_argument("--json", action="store_true", help="status for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        home = (options["data"] or settings.MQ_HOME).expanduser().absolute()
        try:
            match options["action"]:
                case "start":
                    self._start(
                        home,
                        _chosen(options["nodes"], "MQ_NODES", settings.MQ_NODES),
                        _chosen(options["amqp_port"], "MQ_AMQP_PORT", settings.MQ_AMQP_PORT),
                    )
                case "stop":
                    stopped = stop_in_background(home)
                    self.stdout.write("stopped" if stopped else f"no cluster runs in {home}")
                case "status":
                    self._status(home, options["json"])
        except (ConfigError, HomeError, StartFailed) as error:
            raise CommandError(str(error)) from error

    def _start(self, home: Path, nodes: int | None, amqp_port: int | None) -> None:
        config = start_in_background(home, nodes, amqp_port)
        listeners = ", ".join(f"{node.name} on {node.host}:{node.amqp}" for node in config.nodes)
        self.stdout.write(f"the cluster serves: {listeners}")

    def _status(self, home: Path, as_json: bool) -> None:
        why = None
        try:
            config = ClusterConfig.load(home)
            try:
                state = _from_snapshot(SyncControlClient.from_config(config).call("snapshot"))
            except ControlError as error:
                why, state = error.text, _all_down(config)
        except ConfigError as error:
            why, state = str(error), {"nodes": [], "queues": []}
        self.stdout.write(json.dumps(state) if as_json else "\n".join(_as_text(state)))
        if why is not None:
            raise CommandError(why, returncode=NOT_RUNNING)


def _chosen(option: int | None, variable: str, setting: int) -> int | None:
    """The option, else what the environment says, else None: leave it as it is."""
    if option is not None:
        return option
    return setting if os.environ.get(variable) else None


def _from_snapshot(snapshot: dict[str, Any]) -> dict[str, Any]:
    return {
        "nodes": [
            {"name": row["name"], "pid": row["pid"], "amqp": row["amqp"], "state": row["state"]}
            for row in snapshot["nodes"]
        ],
        "queues": [
            {
                "vhost": row["vhost"],
                "name": row["name"],
                "leader": row["leader"],
                "replicas": [
                    {"node": replica["node"], "role": replica["role"], "lag": replica["lag"]}
                    for replica in row["replicas"]
                ],
                "messages": row["messages"],
            }
            for row in snapshot["queues"]
        ],
    }


def _all_down(config: ClusterConfig) -> dict[str, Any]:
    nodes = [
        {"name": node.name, "pid": None, "amqp": f"{node.host}:{node.amqp}", "state": "down"}
        for node in config.nodes
    ]
    return {"nodes": nodes, "queues": []}


def _as_text(state: dict[str, Any]) -> list[str]:
    lines = []
    for node in state["nodes"]:
        pid = f"pid {node['pid']}" if node["pid"] else ""
        lines.append(f"{node['name']:<10} {node['state']:<9} {node['amqp']:<21} {pid}")
    for queue in state["queues"]:
        replicas = ", ".join(
            f"{replica['node']} {replica['role']}" + (f" (lag {replica['lag']})" if replica["lag"] else "")
            for replica in queue["replicas"]
        )
        lines.append(
            f"queue {queue['name']!r} in {queue['vhost']!r}: {queue['messages']} messages, "
            f"leader {queue['leader'] or 'none'}; {replicas}"
        )
    return [line.rstrip() for line in lines]
