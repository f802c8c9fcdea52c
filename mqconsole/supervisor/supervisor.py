"""A set of children, started in order, stopped in the order asked, with a second signal that ends it all."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from mqconsole.supervisor.child import Child, describe_end
from mqconsole.supervisor.logs import LogFile
from mqconsole.supervisor.program import Program


class StartFailed(Exception):
    """Something did not come up; the text says what, and shows its last lines."""


class Stopped(Exception):
    """A signal asked to stop while something else was under way."""


class Supervisor:
    """Keeps programs running and logs what they print under ``logs``.

    ``say`` gets lines for a person; they are kept in supervisor.log as well.
    """

    def __init__(self, logs: Path, say: Callable[[str], None]) -> None:
        self.children: list[Child] = []
        self.stop_asked = asyncio.Event()
        self.force_asked = asyncio.Event()
        self._logs = logs
        self._say = say
        self._log = LogFile(logs / "supervisor.log", "supervisor")

    def say(self, text: str) -> None:
        """Tell a person, and the log."""
        self._log.line(text)
        self._say(text)

    def tell(self, text: str) -> None:
        """Tell a person alone: what may hold a secret stays out of the log."""
        self._say(text)

    def handle_signals(self) -> None:
        """From now on the first SIGINT, SIGTERM or SIGHUP asks to stop, the second forces it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, number)

    async def start(self, program: Program) -> Child:
        """Start ``program`` and keep it running. Raises StartFailed when there is no such program."""
        child = self._child(program)
        try:
            await child.start()
        except OSError as error:
            raise StartFailed(f"{program.name} could not be started: {error}") from error
        self.children.append(child)
        self._log.line(f"{program.name} started (pid {child.pid})")
        return child

    async def run_once(self, program: Program) -> str:
        """Run ``program`` to its end and give what it printed (its last lines).

        Raises StartFailed with those lines unless it exits with 0.
        """
        child = self._child(program)
        try:
            code = await child.run_once()
        except OSError as error:
            raise StartFailed(f"{program.name} could not be started: {error}") from error
        finally:
            child.log.close()
        if code != 0:
            raise StartFailed(f"{program.name} {describe_end(code)}.{last_lines(child)}")
        return "\n".join(line for line in child.log.tail if not line.startswith("--- "))

    async def until_stopped(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of ``work``; raises Stopped when a signal asks to stop before it is done."""
        task = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self.stop_asked.wait())
        try:
            await asyncio.wait([task, asked], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Stopped
            return task.result()
        finally:
            for one in (task, asked):
                one.cancel()
            await asyncio.gather(task, asked, return_exceptions=True)

    async def stop(self, *names: str) -> None:
        """Stop the children called ``names`` (without names: all) at the same time; waits for their end."""
        chosen = [child for child in self.children if not names or child.program.name in names]
        self.children = [child for child in self.children if child not in chosen]
        await asyncio.gather(*(child.stop(self.force_asked) for child in chosen))
        for child in chosen:
            self._log.line(f"{child.program.name} stopped")
            child.log.close()

    def close(self) -> None:
        """Close the supervisor's own log; nothing may run any more."""
        self._log.close()

    def _child(self, program: Program) -> Child:
        return Child(program, LogFile(self._logs / f"{program.name}.log", program.name), self.say)

    def _on_signal(self, number: int) -> None:
        if not self.stop_asked.is_set():
            self.say(f"{signal.Signals(number).name}: stopping (once more to force it)")
            self.stop_asked.set()
        elif not self.force_asked.is_set():
            self.say(f"{signal.Signals(number).name} again: killing what still runs")
            self.force_asked.set()


def last_lines(child: Child, count: int = 15) -> str:
    """The end of a child's log, as a paragraph of an error message."""
    lines = [line for line in child.log.tail if not line.startswith("--- ")][-count:]
    shown = "".join(f"\n    {line}" for line in lines) if lines else " It printed nothing."
    return f"{shown}\n  (more in {child.log.path})"
