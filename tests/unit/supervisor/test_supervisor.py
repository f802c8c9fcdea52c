"""The supervisor over small real programs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mqconsole.supervisor import child as child_module
from mqconsole.supervisor.program import Program
from mqconsole.supervisor.supervisor import StartFailed, Stopped, Supervisor

SLEEPER = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\n"
    "while True: signal.pause()"
)
PARENT = (
    "import subprocess, sys, signal\n"
    f"child = subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], stdout=subprocess.PIPE)\n"
    "child.stdout.readline(); print('child', child.pid, flush=True); signal.pause()"
)


def script(name: str, code: str, grace: float = 10.0) -> Program:
    return Program(name, (sys.executable, "-c", code), grace=grace)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def run(tmp_path: Path, scenario: Callable[[Supervisor], Awaitable[None]]) -> list[str]:
    """Run ``scenario`` under a supervisor and give what it said."""
    said: list[str] = []

    async def bounded() -> None:
        supervisor = Supervisor(tmp_path, said.append)
        try:
            async with asyncio.timeout(40):
                await scenario(supervisor)
        finally:
            supervisor.force_asked.set()
            await supervisor.stop()
            supervisor.close()

    asyncio.run(bounded())
    return said


def test_a_program_that_dies_is_started_again(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        child = await supervisor.start(script("node1", SLEEPER))
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: child.pid not in (None, first))
        assert child.deaths == 1

    said = run(tmp_path, scenario)
    assert said[0].startswith("node1 was ended by SIGKILL after ")
    assert said[0].endswith("starting it again in 0.25 s")
    assert said[1].startswith("node1 runs again (pid ")


def test_restarts_come_ever_slower_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "BACKOFF_FIRST", 0.01)
    monkeypatch.setattr(child_module, "BACKOFF_MOST", 0.04)

    async def scenario(supervisor: Supervisor) -> None:
        child = await supervisor.start(script("node1", "raise SystemExit(3)"))
        await until(lambda: child.deaths >= 5)

    pauses = [line.rsplit(" in ", 1)[1] for line in run(tmp_path, scenario) if "again in" in line]
    assert pauses[:5] == ["0.01 s", "0.02 s", "0.04 s", "0.04 s", "0.04 s"]


def test_a_program_that_lived_long_is_restarted_quickly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "BACKOFF_FIRST", 0.01)
    monkeypatch.setattr(child_module, "SETTLED", 0.0)

    async def scenario(supervisor: Supervisor) -> None:
        child = await supervisor.start(script("node1", "raise SystemExit(3)"))
        await until(lambda: child.deaths >= 3)

    pauses = [line.rsplit(" in ", 1)[1] for line in run(tmp_path, scenario) if "again in" in line]
    assert pauses[:3] == ["0.01 s"] * 3


def test_stop_ends_a_program_kindly_and_for_good(tmp_path: Path) -> None:
    goodbye = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye'))); " + SLEEPER
    )

    async def scenario(supervisor: Supervisor) -> None:
        child = await supervisor.start(script("node1", goodbye))
        await until(lambda: "up" in child.log.tail)
        pid = child.pid
        await supervisor.stop("node1")
        assert pid is not None
        assert not alive(pid)
        assert child.pid is None
        assert list(child.log.tail)[-2:] == ["bye", "--- exited with 0"]

    assert run(tmp_path, scenario) == []


def test_stop_while_waiting_to_restart_is_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "BACKOFF_FIRST", 600.0)

    async def scenario(supervisor: Supervisor) -> None:
        child = await supervisor.start(script("node1", "raise SystemExit(3)"))
        await until(lambda: child.deaths)
        await supervisor.stop()
        assert child.pid is None

    run(tmp_path, scenario)


def test_what_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        child = await supervisor.start(script("node1", STUBBORN, grace=0.1))
        await until(lambda: "up" in child.log.tail)
        await supervisor.stop()
        assert child.log.tail[-1] == "--- was ended by SIGKILL"

    assert run(tmp_path, scenario) == ["node1 did not stop within 0.1 s and is killed"]


def test_force_kills_at_once(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        child = await supervisor.start(script("node1", STUBBORN, grace=600))
        await until(lambda: "up" in child.log.tail)
        stopping = asyncio.create_task(supervisor.stop())
        await asyncio.sleep(0)
        assert child.pid is not None
        supervisor.force_asked.set()
        await stopping
        assert child.log.tail[-1] == "--- was ended by SIGKILL"

    run(tmp_path, scenario)


@pytest.mark.parametrize("how", ["stop", "death"])
def test_children_of_a_program_go_with_it(tmp_path: Path, how: str) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        child = await supervisor.start(script("worker", PARENT))
        await until(lambda: any(line.startswith("child ") for line in child.log.tail))
        grandchild = next(int(line.split()[1]) for line in child.log.tail if line.startswith("child "))
        assert alive(grandchild)
        if how == "stop":
            await supervisor.stop()
        else:
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
        await until(lambda: not alive(grandchild))

    run(tmp_path, scenario)


def test_programs_are_told_to_stop_at_the_same_time(tmp_path: Path) -> None:
    """Each waits for the other's goodbye: one after the other could not end."""
    files = [tmp_path / "one", tmp_path / "two"]
    code = (
        "import pathlib, signal, sys, time\n"
        "mine, other = map(pathlib.Path, {paths})\n"
        "def leave(*_):\n"
        "    mine.touch()\n"
        "    while not other.exists(): time.sleep(0.005)\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, leave); print('up', flush=True)\n"
        "while True: signal.pause()"
    )

    async def scenario(supervisor: Supervisor) -> None:
        for name, paths in (("node1", files), ("node2", files[::-1])):
            await supervisor.start(script(name, code.format(paths=[str(path) for path in paths])))
        await until(lambda: all("up" in child.log.tail for child in supervisor.children))
        await supervisor.stop()

    assert run(tmp_path, scenario) == []


def test_a_task_that_ends_well_gives_its_output_and_one_that_fails_is_shown(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        assert await supervisor.run_once(script("migrate", "print('done')")) == "done"
        with pytest.raises(StartFailed, match=r"(?s)migrate exited with 7\..*no such table.*migrate\.log"):
            await supervisor.run_once(script("migrate", "print('no such table'); raise SystemExit(7)"))
        with pytest.raises(StartFailed, match="nothing could not be started"):
            await supervisor.start(Program("nothing", (str(tmp_path / "missing"),)))

    run(tmp_path, scenario)


def test_a_stop_interrupts_a_task_under_way(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        started = tmp_path / "pid"
        code = f"import os, pathlib; pathlib.Path({str(started)!r}).write_text(str(os.getpid())); {SLEEPER}"
        work = asyncio.create_task(supervisor.until_stopped(supervisor.run_once(script("migrate", code))))
        await until(lambda: started.exists() and started.read_text())
        supervisor.stop_asked.set()
        with pytest.raises(Stopped):
            await work
        assert not alive(int(started.read_text()))

    run(tmp_path, scenario)


def test_children_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, pathlib, sys\n"
        "from mqconsole.supervisor.program import Program\n"
        "from mqconsole.supervisor.supervisor import Supervisor\n"
        "async def main():\n"
        f"    supervisor = Supervisor(pathlib.Path({str(tmp_path)!r}), print)\n"
        f"    child = await supervisor.start(Program('node1', (sys.executable, '-c', {SLEEPER!r})))\n"
        "    print(child.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        assert alive(pid)
        supervisor.kill()
        supervisor.wait()
    asyncio.run(until(lambda: not alive(pid)))


def test_the_first_signal_asks_and_the_second_forces(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        supervisor.handle_signals()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(supervisor.stop_asked.wait(), 5)
        assert not supervisor.force_asked.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(supervisor.force_asked.wait(), 5)

    said = run(tmp_path, scenario)
    assert said[0] == "SIGTERM: stopping (once more to force it)"


def test_what_is_told_may_be_secret_and_is_not_logged(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        supervisor.tell("password hunter2")
        supervisor.say("public")

    assert run(tmp_path, scenario) == ["password hunter2", "public"]
    text = (tmp_path / "supervisor.log").read_text()
    assert "public" in text
    assert "hunter2" not in text


def test_a_program_gets_the_environment_less_what_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQ_SECRET_KEY", "s3cret")
    environment = Program("x", ("true",), {"MQ_SECRET_KEY": None, "MQ_NODES": "3"}).environment()
    assert "MQ_SECRET_KEY" not in environment
    assert environment["MQ_NODES"] == "3"
