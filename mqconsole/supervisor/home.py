"""One stack per MQ_HOME: its lock, the ports it needs, and what a killed supervisor may have left behind."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from brokers.engine.config import ClusterConfig

_TRIES: Final = 20
_PAUSE: Final = 0.05


class HomeError(Exception):
    """MQ_HOME or a port cannot be used now; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who runs a stack: its process and the command that started it (``run`` or ``cluster``)."""

    pid: int
    command: str


class HomeLock:
    """The right to run what lives in a home; the kernel takes it back when the last holder's process ends."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def acquire(cls, home: Path, command: str) -> Self:
        """Take the lock of ``home``. Raises HomeError when another has it, or home is not writable."""
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(_lock_path(home), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise HomeError(
                f"{home} cannot be used: {error.strerror}; set MQ_HOME to another folder"
            ) from error
        for _ in range(_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if cls.holder(home) is not None:
                    os.close(descriptor)
                    raise HomeError(_in_use(home)) from None
                # Somebody merely looked who holds it, or its holder has just left.
                time.sleep(_PAUSE)
        else:
            os.close(descriptor)
            raise HomeError(f"{home} was in use a moment ago; try again")
        lock = cls(descriptor)
        lock.claim(command)
        return lock

    def claim(self, command: str) -> None:
        """Write down that this process now holds the lock (it may have been handed over by another)."""
        text = json.dumps({"pid": os.getpid(), "command": command}) + "\n"
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text.encode(), 0)

    def release(self) -> None:
        """Give this process's hold back."""
        os.close(self.descriptor)

    @staticmethod
    def holder(home: Path) -> Holder | None:
        """Who holds the lock of ``home``, or None."""
        try:
            descriptor = os.open(_lock_path(home), os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_holder(descriptor)
        finally:
            os.close(descriptor)
        return None


def _lock_path(home: Path) -> Path:
    return home / "lock"


def _read_holder(descriptor: int) -> Holder:
    try:
        data = json.loads(os.pread(descriptor, 4096, 0))
        return Holder(int(data["pid"]), str(data["command"]))
    except (ValueError, KeyError, TypeError):
        # Held, but not yet claimed: its holder is between the two steps.
        return Holder(0, "unknown")


def _in_use(home: Path) -> str:
    holder = HomeLock.holder(home) or Holder(0, "unknown")
    how = {
        "cluster": f"stop it with: python manage.py cluster stop --data {home}",
        "run": f"stop it with Ctrl-C where it runs, or: kill {holder.pid}",
    }.get(holder.command, "wait for it")
    return (
        f"{home} is in use by process {holder.pid} (manage.py {holder.command}); {how}. "
        f"A second one beside it needs its own MQ_HOME, MQ_AMQP_PORT and MQ_HTTP_PORT"
    )


@dataclass(frozen=True, slots=True)
class Port:
    """A port that must be free: what for, and which setting moves it."""

    host: str
    number: int
    purpose: str
    setting: str


def cluster_ports(config: ClusterConfig) -> list[Port]:
    """The ports that the nodes of a cluster will listen on."""
    setting = "MQ_AMQP_PORT (--amqp-port)"
    return [
        Port(node.host, number, f"the {purpose} port of {node.name}", setting)
        for node in config.nodes
        for number, purpose in ((node.amqp, "AMQP"), (node.peer, "peer"), (node.control, "control"))
    ]


def check_ports(ports: Iterable[Port]) -> None:
    """Raises HomeError that names the ports that are taken and the settings that move them."""
    taken = []
    for port in ports:
        with socket.socket() as probe:
            # As the listeners do it: connections of a former run that linger are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((port.host, port.number))
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
                why = "in use by another program" if error.errno == errno.EADDRINUSE else "not permitted"
                taken.append(f"{port.host}:{port.number} ({port.purpose}) is {why}; set {port.setting}")
    if taken:
        raise HomeError("\n".join(taken))


def running_nodes(config: ClusterConfig) -> dict[str, int]:
    """Names and processes of this cluster's nodes, by their pid files and what /proc says of those."""
    found = {}
    for node in config.nodes:
        try:
            pid = int(config.pid_path(node.name).read_text(encoding="ascii"))
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            # No file, half a file, or no such process: not running.
            continue
        if {b"brokers.engine.node", os.fsencode(config.home), os.fsencode(node.name)} <= set(arguments):
            found[node.name] = pid
    return found


async def end_leftovers(config: ClusterConfig, grace: float = 15.0) -> None:
    """End nodes whose supervisor was killed: SIGTERM (the kernel sent one already), after ``grace`` SIGKILL.

    Raises HomeError when one outlives even that (it hangs in the kernel).
    """
    loop = asyncio.get_running_loop()
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        left = running_nodes(config)
        for pid in left.values():
            os.kill(pid, number)
        deadline = loop.time() + seconds
        while left and loop.time() < deadline:
            await asyncio.sleep(0.05)
            left = running_nodes(config)
        if not left:
            return
    raise HomeError(f"nodes of a former run do not end: {left}; end them before you start anew")
