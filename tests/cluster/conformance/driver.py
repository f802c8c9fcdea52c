"""Client libraries under remote control.

A driver is a program around a client library (``pika_driver.py``, ``node/driver.js``, ``java/Driver.java``). It
reads a command a line and answers with a line; what comes by itself (deliveries, returns, closings) is a line
too. A line is form-encoded ``key=value`` pairs, so that no language needs a JSON parser:

- command: ``id``, ``do`` (the verb), ``c`` (connection) or ``ch`` (channel), arguments; flags are 0 or 1; entries
  of tables are ``a.<name>`` with ``i:`` (number), ``b:`` (flag), ``s:`` (text) or ``l:`` (texts, comma-separated)
  before the value.
- answer: ``re`` (the command's id) and fields, or ``error``, ``code`` and ``text``.
- event: ``event`` (deliver, return, cancel, closed, disconnected), ``ch`` or ``c``, and fields. Headers are
  ``h.<name>``; what is nested in them has a path of names and positions (``h.x-death.0.reason``).
"""

from __future__ import annotations

import subprocess
import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from mqconsole.supervisor.program import end_with_parent

PATIENCE = 20.0

Fields = dict[str, str]


class Refused(Exception):
    """The broker (or the library) said no."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


class Driver:
    """One client program; used by one test at a time."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=end_with_parent(),
        )
        self._news = threading.Condition()
        self._answers: dict[str, Fields] = {}
        self._events: defaultdict[str, deque[Fields]] = defaultdict(deque)
        self._number = 0
        self._names = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            fields = dict(parse_qsl(line.rstrip("\n"), keep_blank_values=True))
            with self._news:
                if "re" in fields:
                    self._answers[fields["re"]] = fields
                else:
                    self._events[fields.get("ch") or fields["c"]].append(fields)
                self._news.notify_all()

    def call(self, do: str, table: dict[str, Any] | None = None, **fields: object) -> Fields:
        """Have a command carried out. Raises Refused."""
        self._number += 1
        number = str(self._number)
        said = {"id": number, "do": do} | {key: _text(value) for key, value in fields.items()}
        said |= {f"a.{key}": _typed(value) for key, value in (table or {}).items()}
        assert self._process.stdin is not None
        self._process.stdin.write(urlencode(said) + "\n")
        self._process.stdin.flush()
        with self._news:
            assert self._news.wait_for(lambda: number in self._answers, PATIENCE), f"no answer to {said}"
            answer = self._answers.pop(number)
        if "error" in answer:
            raise Refused(int(answer["code"]), answer["text"])
        return answer

    def name(self, prefix: str) -> str:
        """A name that nothing had yet."""
        self._names += 1
        return f"{prefix}{self._names}"

    def event(self, source: str, kind: str, timeout: float = PATIENCE) -> Fields:
        """The next event of a channel or connection, which must be of this kind."""
        events = self._events[source]
        with self._news:
            assert self._news.wait_for(lambda: bool(events), timeout), f"no {kind} came"
            event = events.popleft()
        assert event["event"] == kind, event
        return event

    def quiet(self, source: str, seconds: float = 0.1) -> bool:
        """Whether a channel or connection has nothing to say for a while."""
        events = self._events[source]
        with self._news:
            return not self._news.wait_for(lambda: bool(events), seconds)

    def stop(self) -> None:
        """End the program."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Channel:
    """A channel of a driver's connection."""

    def __init__(self, driver: Driver, connection: str, confirm: bool) -> None:
        self.driver = driver
        self.name = driver.name("ch")
        driver.call("channel", c=connection, ch=self.name, confirm=confirm)

    def __call__(self, do: str, table: dict[str, Any] | None = None, **fields: Any) -> Fields:
        return self.driver.call(do, table, ch=self.name, **fields)

    def publish(
        self,
        key: str,
        body: str = "",
        exchange: str = "",
        table: dict[str, Any] | None = None,
        **fields: object,
    ) -> None:
        self("publish", table, exchange=exchange, key=key, body=body, persistent=True, **fields)

    def confirmed(self) -> bool:
        """Whether all that was published is safe."""
        return self("confirmed")["nacked"] == "0"

    def event(self, kind: str, timeout: float = PATIENCE) -> Fields:
        return self.driver.event(self.name, kind, timeout)

    def bodies(self, count: int) -> list[str]:
        """The bodies of the next deliveries."""
        return [self.event("deliver")["body"] for _ in range(count)]

    def quiet(self, seconds: float = 0.1) -> bool:
        return self.driver.quiet(self.name, seconds)

    def count(self, queue: str) -> int:
        return int(self("queue_declare", name=queue, passive=True)["messages"])


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _typed(value: object) -> str:
    if isinstance(value, list):
        return f"l:{','.join(value)}"
    kind = "b" if isinstance(value, bool) else "i" if isinstance(value, int) else "s"
    return f"{kind}:{_text(value)}"
