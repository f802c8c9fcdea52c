"""Three RabbitMQ nodes from Debian's package, on ports and in folders of their own, to measure beside."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
CONTROL = Path("/usr/lib/rabbitmq/bin/rabbitmqctl")
TIMEOUT = 90.0


def is_installed() -> bool:
    """Whether Debian's rabbitmq-server is here."""
    return SERVER.exists() and CONTROL.exists()


class RabbitCluster:
    """A cluster of RabbitMQ nodes under ``home``; a context manager that ends what it started."""

    def __init__(self, home: Path, ports: list[int]) -> None:
        self._home = home
        self.ports = ports
        self._processes: list[subprocess.Popen[bytes]] = []

    def _environment(self, number: int) -> dict[str, str]:
        folder = self._home / f"rabbit{number}"
        folder.mkdir(parents=True, exist_ok=True)
        port = self.ports[number]
        return {
            **os.environ,
            "HOME": str(self._home),
            "RABBITMQ_NODENAME": f"bench{number}_{self.ports[0]}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(port + 20_000),
            "RABBITMQ_MNESIA_BASE": str(folder),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "env"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def __enter__(self) -> Self:
        try:
            for number in range(len(self.ports)):
                log = (self._home / f"rabbit{number}.log").open("wb")
                self._processes.append(
                    subprocess.Popen(
                        [str(SERVER)],
                        env=self._environment(number),
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
                self._wait(number)
                if number:
                    first = f"bench0_{self.ports[0]}@localhost"
                    for command in (["stop_app"], ["join_cluster", first], ["start_app"]):
                        self._control(number, command)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _wait(self, number: int) -> None:
        deadline = time.monotonic() + TIMEOUT
        while True:
            result = subprocess.run(
                [str(CONTROL), "await_startup"],
                env=self._environment(number),
                capture_output=True,
                check=False,
            )
            if result.returncode == 0:
                return
            if time.monotonic() > deadline or self._processes[number].poll() is not None:
                raise RuntimeError(f"RabbitMQ node {number} did not start: {result.stderr.decode()[-500:]}")
            time.sleep(0.5)

    def _control(self, number: int, command: list[str]) -> None:
        subprocess.run(
            [str(CONTROL), *command], env=self._environment(number), capture_output=True, check=True
        )

    def _end(self) -> None:
        for number, process in enumerate(self._processes):
            if process.poll() is None:
                subprocess.run(
                    [str(CONTROL), "stop"],
                    env=self._environment(number),
                    capture_output=True,
                    check=False,
                    timeout=60,
                )
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait(20)
