"""``manage.py run``: the whole stack from an empty folder, and again."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pika
import pytest

from brokers.engine.config import ClusterConfig
from mqconsole.supervisor.home import HomeLock, running_nodes
from mqconsole.supervisor.program import PROJECT_ROOT, end_with_parent
from tests.cluster.harness import free_base

START = 180.0
"""Seconds until the stack must be up: six Python programs on a machine that tests keep busy."""


class Run:
    """``manage.py run`` as a person starts it."""

    def __init__(self, home: Path, amqp: int, http: int, **env: str) -> None:
        self.printed = home.with_suffix(".out")
        variables = {"MQ_HOME": home, "MQ_AMQP_PORT": amqp, "MQ_HTTP_PORT": http, **env}
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MQ_")}
        with self.printed.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "run"],
                cwd=PROJECT_ROOT,
                env={**inherited, **{key: str(value) for key, value in variables.items()}},
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_parent(),
            )

    def wait_until_up(self) -> str:
        """What it has printed, once that includes how to use it."""
        deadline = time.monotonic() + START
        while "  Stop " not in (text := self.printed.read_text()):
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{text}"
            assert time.monotonic() < deadline, f"not up within {START:g} s:\n{text}"
            time.sleep(0.1)
        return text

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C; the exit code and all that was printed."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(90), self.printed.read_text()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_run_stop_and_run_again(tmp_path: Path) -> None:
    home, amqp, http = tmp_path / "home", free_base(3), free_port()
    first = Run(home, amqp, http)
    try:
        text = first.wait_until_up()
        assert f"http://localhost:{http}/" in text
        assert f"amqp://guest:guest@localhost:{amqp}/" in text
        found = re.search(r"User +admin\n +Password +(\S{12,})  \(generated", text)
        assert found is not None
        password = found[1]
        with urllib.request.urlopen(f"http://127.0.0.1:{http}/", timeout=30) as page:
            assert page.status == 200
        with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", amqp)) as connection:
            channel = connection.channel()
            channel.queue_declare("hello")
            channel.confirm_delivery()
            channel.basic_publish("", "hello", b"Hello World!")
            channel.queue_declare("kept", durable=True)
            channel.basic_publish("", "kept", b"still here")

        beside = Run(home, amqp, http)
        assert beside.process.wait(60) == 1
        assert f"in use by process {first.process.pid} (manage.py run)" in beside.printed.read_text()

        code, text = first.interrupt()
        assert (code, text.strip().splitlines()[-1]) == (0, "stopped")
        assert running_nodes(ClusterConfig.load(home)) == {}
        assert HomeLock.holder(home) is None
        logs = b"".join(path.read_bytes() for path in (home / "logs").iterdir())
        assert password.encode() not in logs
        for name in ("web", "worker", "beat", "node1", "node2", "node3"):
            assert (home / "logs" / f"{name}.log").read_text().rstrip().endswith("--- exited with 0"), name
    finally:
        first.process.kill()

    again = Run(home, amqp, http)
    try:
        text = again.wait_until_up()
        assert password not in text
        assert f"the one in {home / 'admin-password'}" in text
        with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", amqp + 1)) as connection:
            assert connection.channel().basic_get("kept", auto_ack=True)[2] == b"still here"
        code, _ = again.interrupt()
        assert code == 0
    finally:
        again.process.kill()


def test_taken_ports_are_named_with_their_settings(tmp_path: Path) -> None:
    amqp = free_base(3)
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("127.0.0.1", amqp + 2)):
        http = other.getsockname()[1]
        run = Run(tmp_path / "home", amqp, http)
        assert run.process.wait(60) == 1
    text = run.printed.read_text()
    assert (
        f"127.0.0.1:{amqp + 2} (the AMQP port of node3) is in use by another program; set MQ_AMQP_PORT"
        in text
    )
    assert f"127.0.0.1:{http} (the console) is in use by another program; set MQ_HTTP_PORT" in text


@pytest.mark.parametrize(
    ("variable", "value", "text"), [("MQ_NODES", "99", "1 to 9 nodes"), ("MQ_NODES", "x", "'x'")]
)
def test_impossible_settings_are_named(tmp_path: Path, variable: str, value: str, text: str) -> None:
    run = Run(tmp_path / "home", free_base(3), free_port(), **{variable: value})
    assert run.process.wait(60) == 1
    assert text in run.printed.read_text()
    assert variable in run.printed.read_text()
