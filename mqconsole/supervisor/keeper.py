"""``python -m mqconsole.supervisor.keeper``: keeps a cluster's nodes running, in the background.

Started by ``manage.py cluster start``, which hands over the lock of MQ_HOME as an open file. Needs no Django
settings and no database. Exits 0 after a clean stop, 1 when no quorum came up (said in its log).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from brokers.engine.config import ClusterConfig
from mqconsole.supervisor.home import HomeLock
from mqconsole.supervisor.nodes import log_dir, start_nodes
from mqconsole.supervisor.supervisor import StartFailed, Stopped, Supervisor


async def keep(config: ClusterConfig) -> int:
    """Start the nodes, keep them running until a signal, stop them; gives the exit code."""
    supervisor = Supervisor(log_dir(config.home), lambda text: print(text, flush=True))
    supervisor.handle_signals()
    code = 0
    try:
        await supervisor.until_stopped(start_nodes(supervisor, config))
        supervisor.say("the cluster serves")
        await supervisor.stop_asked.wait()
    except Stopped:
        supervisor.say("stopped before the cluster served")
    except StartFailed as failure:
        supervisor.say(str(failure))
        code = 1
    finally:
        await supervisor.stop()
        supervisor.close()
    return code


def main() -> int:
    """Parse the command line, claim the lock, keep."""
    parser = argparse.ArgumentParser(prog="keeper", description="Keeps a cluster's nodes running.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--lock", type=int, required=True, help="descriptor of the home's lock, held")
    options = parser.parse_args()
    os.set_inheritable(options.lock, False)
    HomeLock(options.lock).claim("cluster")
    return asyncio.run(keep(ClusterConfig.load(options.home)))


if __name__ == "__main__":
    sys.exit(main())
