"""A real cluster, a real web server on it, and a real browser on that."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from mqconsole.supervisor.program import PROJECT_ROOT, end_with_parent
from tests.cluster.harness import Cluster

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
PASSWORD: Final = "a password for tests alone"
START: Final = 60.0
"""Seconds the web server has to come up."""
TIMEOUT: Final = 20_000
"""Milliseconds a page has to show something: far more than it takes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say loudly that there is no browser, instead of failing one by one."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="no Chromium: apt-get install chromium"))


class Console:
    """Daphne in a process of its own, on a cluster of the harness."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self.url = f"http://localhost:{self.port}"
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MQ_")},
            "DJANGO_SETTINGS_MODULE": "mqconsole.settings",
            "MQ_HOME": str(cluster.config.home),
            "MQ_AMQP_PORT": str(cluster.config.nodes[0].amqp),
            "MQ_ADMIN_PASSWORD": PASSWORD,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """The environment that the server runs in, for other programs of the same console."""
        return self._env

    @property
    def log(self) -> Path:
        """What the server printed."""
        return self.cluster.config.home / "logs" / "web.log"

    def manage(self, *args: str) -> None:
        """Run ``manage.py``."""
        subprocess.run(
            [sys.executable, "manage.py", *args], cwd=PROJECT_ROOT, env=self._env, check=True, timeout=START
        )

    def prepare(self) -> None:
        """A database, the admin, and a person of each role."""
        self.manage("migrate", "--no-input", "--verbosity", "0")
        self.manage("ensure_admin")
        code = (
            "from django.contrib.auth.models import Group\n"
            "from mqconsole.people.models import User\n"
            "for role in ('viewer', 'operator'):\n"
            f"    user = User.objects.create_user(role, password={PASSWORD!r})\n"
            "    user.groups.add(Group.objects.get(name=role))"
        )
        self.manage("shell", "--verbosity", "0", "--command", code)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    *("-m", "daphne", "-v", "0", "-b", "127.0.0.1", "-p", str(self.port)),
                    "mqconsole.asgi:application",
                ],
                cwd=PROJECT_ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )
        deadline = time.monotonic() + START
        while not self._answers():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "the web server did not come up"
            time.sleep(0.05)

    @property
    def running(self) -> bool:
        """Whether the server's process is there."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, as if the machine had lost it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/healthz", headers={"Host": "localhost"})
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


@pytest.fixture(scope="session")
def _stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with Cluster(tmp_path_factory.mktemp("browser") / "home") as cluster:
        console = Console(cluster)
        try:
            cluster.start()
            console.prepare()
            yield console
        finally:
            console.kill()


@pytest.fixture
def console(_stack: Console) -> Iterator[Console]:
    """A console on three nodes that all run; made once, put right again before each test."""
    cluster = _stack.cluster
    for name in cluster.names:
        if name not in cluster.running():
            cluster.start_node(name)
    cluster.wait_until_complete()
    if not _stack.running:
        _stack.start()
    yield _stack
    # Shown with a test that failed.
    print(_stack.log.read_text()[-4000:])
    print(cluster.log_tails(20))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A tab of a fresh profile. A script error, or anything the content policy refused, fails the test."""
    context = chromium.new_context()
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if _is_serious(message.text) else None)
    yield page
    context.close()
    assert errors == []


def _is_serious(text: str) -> bool:
    return "Content Security Policy" in text or "oobErrorNoTarget" in text


def sign_in(page: Page, console: Console, name: str) -> None:
    """Fill in the form, as a person does."""
    page.goto(f"{console.url}/login/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{console.url}/clusters/local/")
