"""Faults in processes of nodes on the console's own machine: for drills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from brokers.adapters.base import Fault, Node, Refused

PAUSE_AT_MOST: Final = 30
"""Seconds after which a paused node goes on by itself, whatever became of who paused it."""

_SIGNALS: Final = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP, "resume": signal.SIGCONT}


def signal_node(home: Path, node: Node, fault: Fault) -> None:
    """Kill, pause or resume the process of ``node``, whose data lies under ``home``.

    Raises ``Refused`` when it does not run, or when the process of that number here is not this node's.
    """
    pid = node.pid
    if pid is None:
        raise Refused(f"{node.name} does not run")
    if not is_ours(home, node.name, pid):
        raise Refused(
            f"{node.name} (process {pid}) does not run on this machine; only the console beside it could {fault} it"
        )
    try:
        if fault == "pause":
            _resume_later(pid)
        os.kill(pid, _SIGNALS[fault])
    except (ProcessLookupError, PermissionError) as error:
        raise Refused(f"process {pid} of {node.name} cannot be signalled: {error.strerror}") from error


def is_ours(home: Path, name: str, pid: int) -> bool:
    """Whether process ``pid`` of this machine is the node ``name`` of the cluster under ``home``."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return (
        b"brokers.engine.node" in words
        and _after(words, b"--name") == name.encode()
        and Path(os.fsdecode(_after(words, b"--home"))).resolve() == home.resolve()
    )


def _after(words: list[bytes], option: bytes) -> bytes:
    return words[words.index(option) + 1] if option in words[:-1] else b""


def _resume_later(pid: int) -> None:
    """Should this process be killed while the node is paused, the node must not stay so."""
    code = f"import os,signal,time;time.sleep({PAUSE_AT_MOST});os.kill({pid},signal.SIGCONT)"
    subprocess.Popen(  # noqa: S603  a number and this very interpreter
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
