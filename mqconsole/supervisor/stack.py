"""``manage.py run``: the whole stack of one machine, from nothing to a page in the browser, and back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from brokers.engine.config import ClusterConfig, NodeConfig
from mqconsole.supervisor.home import (
    HomeLock,
    Port,
    check_ports,
    cluster_ports,
    end_leftovers,
)
from mqconsole.supervisor.nodes import log_dir, start_nodes
from mqconsole.supervisor.program import Program, python
from mqconsole.supervisor.supervisor import StartFailed, Stopped, Supervisor, last_lines

WEB_TIMEOUT: Final = 60.0
ADMIN: Final = "admin"


@dataclass(frozen=True, slots=True)
class Options:
    """What the environment asks for; None leaves a cluster that exists as it is."""

    home: Path
    nodes: int | None
    amqp_port: int | None
    http_host: str
    http_port: int


def run_stack(options: Options, say: Callable[[str], None]) -> None:
    """Run until a signal asks to stop.

    Raises ConfigError, HomeError or StartFailed when the stack cannot come up; what ran is stopped first.
    """
    lock = HomeLock.acquire(options.home, "run")
    try:
        config = ClusterConfig.ensure(options.home, options.nodes, options.amqp_port)
        asyncio.run(_run(options, config, say))
    finally:
        lock.release()


async def _run(options: Options, config: ClusterConfig, say: Callable[[str], None]) -> None:
    supervisor = Supervisor(log_dir(config.home), say)
    supervisor.handle_signals()
    stack = _Stack(options, config, supervisor)
    try:
        await supervisor.until_stopped(stack.start())
        await supervisor.stop_asked.wait()
    except Stopped:
        supervisor.say("stopped before everything ran")
    finally:
        # What takes work in first, the nodes last and together: each would hand its leaderships to another.
        for names in (("web",), ("worker", "beat"), ()):
            await supervisor.stop(*names)
        supervisor.say("stopped")
        supervisor.close()


class _Stack:
    def __init__(self, options: Options, config: ClusterConfig, supervisor: Supervisor) -> None:
        self._options = options
        self._config = config
        self._supervisor = supervisor
        self._env = {
            "DJANGO_SETTINGS_MODULE": "mqconsole.settings",
            "MQ_HOME": str(config.home),
            "MQ_NODES": str(len(config.nodes)),
            "MQ_AMQP_PORT": str(config.nodes[0].amqp),
            "MQ_HTTP_PORT": str(options.http_port),
        }

    async def start(self) -> None:
        say = self._supervisor.say
        await end_leftovers(self._config)
        web = Port(self._options.http_host, self._options.http_port, "the console", "MQ_HTTP_PORT")
        check_ports([*cluster_ports(self._config), web])
        say(f"starting {len(self._config.nodes)} nodes; data and logs are in {self._config.home}")
        await start_nodes(self._supervisor, self._config)
        say("the cluster serves; preparing the console")
        await self._supervisor.run_once(self._manage("migrate", "--no-input", "--verbosity", "0"))
        created = "created" in await self._supervisor.run_once(self._manage("ensure_admin"))
        await self._start_console()
        self._supervisor.tell(self._banner(created))

    def _manage(self, command: str, *args: str) -> Program:
        return Program(command, python("manage.py", command, *args), self._env)

    async def _start_console(self) -> None:
        host, port = self._options.http_host, self._options.http_port
        celery = python("-m", "celery", "--app", "mqconsole.celery:app")
        schedule = self._config.home / "celerybeat-schedule"
        web = await self._supervisor.start(
            Program(
                "web",
                python("-m", "daphne", "-b", host, "-p", str(port), "-v", "0", "mqconsole.asgi:application"),
                self._env,
            )
        )
        await self._supervisor.start(
            Program(
                "worker",
                (*celery, "worker", "--loglevel", "INFO", "--concurrency", "2", "--hostname", "worker@%h"),
                self._env,
                grace=20.0,
            )
        )
        await self._supervisor.start(
            Program(
                "beat",
                (*celery, "beat", "--loglevel", "INFO", "--pidfile", "", "--schedule", str(schedule)),
                self._env,
            )
        )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WEB_TIMEOUT
        while not await _answers_http(host, port):
            if web.deaths:
                raise StartFailed(f"the web server does not stay up:{last_lines(web)}")
            if loop.time() > deadline:
                raise StartFailed(f"the web server did not answer within {WEB_TIMEOUT:g} s:{last_lines(web)}")
            await asyncio.sleep(0.1)

    def _banner(self, created: bool) -> str:
        first, *others = self._config.nodes
        also = f" (any node serves; the others listen on {_listed(others)})" if others else ""
        return (
            "\n"
            f"  Console    http://{_shown(self._options.http_host)}:{self._options.http_port}/\n"
            f"  User       {ADMIN}\n"
            f"  Password   {self._password(created)}\n"
            f"  AMQP       amqp://guest:guest@{_shown(first.host)}:{first.amqp}/{also}\n"
            "  Stop       Ctrl-C\n"
        )

    def _password(self, created: bool) -> str:
        kept = self._config.home / "admin-password"
        if os.environ.get("MQ_ADMIN_PASSWORD"):
            return "what MQ_ADMIN_PASSWORD was when the user was created"
        if created:
            return f"{kept.read_text(encoding='utf-8').strip()}  (generated; kept in {kept})"
        return f"the one in {kept}, unless it has been changed since"


def _listed(nodes: list[NodeConfig]) -> str:
    return ", ".join(str(node.amqp) for node in nodes)


def _shown(host: str) -> str:
    return "localhost" if host in ("127.0.0.1", "0.0.0.0", "::1", "::") else host  # noqa: S104  only compared


async def _answers_http(host: str, port: int) -> bool:
    """Whether an HTTP server answers anything at all (which is up to its health page)."""
    try:
        async with asyncio.timeout(10.0):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return (await reader.readline()).startswith(b"HTTP/1.")
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError):
        # It does not listen yet; the caller asks again.
        return False
