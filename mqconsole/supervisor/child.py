"""One program kept running: started again with back-off when it dies, stopped with grace when asked."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Final

from mqconsole.supervisor.logs import LogFile
from mqconsole.supervisor.program import Program, end_with_parent

BACKOFF_FIRST: Final = 0.25
"""Seconds before the first restart; doubled for each further one."""
BACKOFF_MOST: Final = 15.0
SETTLED: Final = 30.0
"""Seconds a program must have run for its next restart to be a first one again."""

_CHUNK: Final = 65_536


class Child:
    """A ``Program`` and the process that runs it at the moment.

    ``say`` gets one line for each event worth a person's while.
    """

    def __init__(self, program: Program, log: LogFile, say: Callable[[str], None]) -> None:
        self.program = program
        self.log = log
        self.deaths = 0
        """How often it has ended without having been asked to."""
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, or None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start it and keep it running until ``stop``. Raises OSError when it cannot be started at all."""
        process = self._spawn()
        self._keeping = asyncio.create_task(self._keep(process))

    async def run_once(self) -> int:
        """Start it, wait for its end and give its exit code (negative: the signal that ended it)."""
        process = self._spawn()
        try:
            return await self._output_and_end(process)
        except asyncio.CancelledError:
            self._kill_group(process)
            process.wait()
            raise

    async def stop(self, force: asyncio.Event) -> None:
        """SIGTERM, after the program's grace (or at once when ``force`` is set) SIGKILL; waits for the end.

        Whatever else is left of its process group is killed, too.
        """
        self._stopping.set()
        if self._keeping is None:
            return
        if self.pid is not None and self._process is not None:
            self._process.terminate()
        forced = asyncio.create_task(force.wait())
        done, _ = await asyncio.wait(
            [self._keeping, forced], timeout=self.program.grace, return_when=asyncio.FIRST_COMPLETED
        )
        forced.cancel()
        if self._keeping not in done:
            if forced not in done:
                self._say(f"{self.program.name} did not stop within {self.program.grace:g} s and is killed")
            self.kill()
        await self._keeping

    def kill(self) -> None:
        """SIGKILL to it and all of its process group, now."""
        self._stopping.set()
        if self._process is not None:
            self._kill_group(self._process)

    async def _keep(self, process: subprocess.Popen[bytes]) -> None:
        loop = asyncio.get_running_loop()
        pause = BACKOFF_FIRST
        while True:
            started = loop.time()
            code = await self._output_and_end(process)
            if self._stopping.is_set():
                return
            self.deaths += 1
            lived = loop.time() - started
            end = f"{describe_end(code)} after {lived:.1f} s"
            if lived >= SETTLED:
                pause = BACKOFF_FIRST
            while True:
                self._say(f"{self.program.name} {end}; starting it again in {pause:g} s")
                try:
                    async with asyncio.timeout(pause):
                        await self._stopping.wait()
                    return
                except TimeoutError:
                    pause = min(2 * pause, BACKOFF_MOST)
                try:
                    process = self._spawn()
                    if self._stopping.is_set():
                        process.terminate()
                    break
                except OSError as error:
                    # Out of memory or processes: that may pass, so it is tried for as long as we run.
                    end = f"could not be started ({error})"
            self._say(f"{self.program.name} runs again (pid {process.pid})")

    def _spawn(self) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which stops in order.
        self._process = subprocess.Popen(
            self.program.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.program.cwd,
            env=self.program.environment(),
            start_new_session=True,
            preexec_fn=end_with_parent(),
        )
        self.log.line(f"--- started as pid {self._process.pid}")
        return self._process

    async def _output_and_end(self, process: subprocess.Popen[bytes]) -> int:
        pump = asyncio.create_task(self._pump(process))
        try:
            await _ended(process)
            # Children of its own may hold the pipe; without them the output ends. Until it is reaped (wait),
            # its number cannot become another group's.
            self._kill_group(process)
            code = process.wait()
            await pump
        finally:
            pump.cancel()
        self.log.line(f"--- {describe_end(code)}")
        return code

    async def _pump(self, process: subprocess.Popen[bytes]) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        try:
            while data := await reader.read(_CHUNK):
                self.log.feed(data)
        finally:
            transport.close()
        self.log.end_line()

    def _kill_group(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)


async def _ended(process: subprocess.Popen[bytes]) -> None:
    """Wait until the process has ended; it is not reaped."""
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(process.pid)
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def describe_end(code: int) -> str:
    """An exit code as words: "exited with 1", "was ended by SIGKILL"."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
