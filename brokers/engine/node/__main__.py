"""``python -m brokers.engine.node --home MQ_HOME --name node1``: run one node until SIGTERM.

Exits 0 after a clean stop, 1 when the node could not go on, 2 when it could not start.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import uvloop

from brokers.engine.config import ClusterConfig, ConfigError, NodeConfig
from brokers.engine.control.server import ControlServer
from brokers.engine.node.api import NodeApi
from brokers.engine.node.node import Node
from brokers.engine.storage.errors import StorageError

_log = logging.getLogger("brokers.engine.node")


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m brokers.engine.node", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="MQ_HOME, where all data lives")
    parser.add_argument("--name", required=True, help="which node of cluster.json to be")
    parser.add_argument("--log-level", default="INFO")
    options = parser.parse_args()
    logging.basicConfig(
        level=options.log_level,
        format=f"%(asctime)s {options.name} %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        config = ClusterConfig.load(options.home)
        me = config.node(options.name)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    # Messages are freed by reference counts; the collector would only walk the topology over and over.
    gc.set_threshold(100_000, 50, 100)
    # The log's writer takes the interpreter back after every sync: it must not wait the usual 5 ms for it.
    sys.setswitchinterval(0.0005)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(config, me))


async def serve(config: ClusterConfig, me: NodeConfig) -> int:
    """Run one node; its exit status."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        node = Node(config, me, loop)
    except (StorageError, OSError, ConfigError) as error:
        print(f"{me.name} cannot start: {error}", file=sys.stderr)
        return 2
    api = NodeApi(node, stopping.set)
    control = ControlServer(api, config.secret(), hello={"node": me.name, "cluster": config.cluster_id})
    pid_file = config.pid_path(me.name)
    view: asyncio.Task[None] | None = None
    try:
        await control.start(me.host, me.control)
        pid_file.write_text(f"{os.getpid()}\n", encoding="ascii")
        view = loop.create_task(api.view.run())
        starting: asyncio.Future[Any] = loop.create_task(node.start())
        stop: asyncio.Future[Any] = loop.create_task(stopping.wait())
        failed: asyncio.Future[Any] = node.failed
        watching: asyncio.Future[Any] = view
        await asyncio.wait([starting, stop, failed], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            gc.freeze()
            await asyncio.wait([stop, failed, watching], return_when=asyncio.FIRST_COMPLETED)
            if view.done():
                view.result()
        else:
            starting.cancel()
        stop.cancel()
        if node.failed.done():
            return 1
        await node.stop()
        return 0
    except OSError as error:
        print(f"{me.name} cannot start: {error}", file=sys.stderr)
        return 2
    finally:
        if view is not None:
            view.cancel()
        await control.close()
        pid_file.unlink(missing_ok=True)
        _log.info("%s stopped", me.name)


if __name__ == "__main__":
    sys.exit(main())
