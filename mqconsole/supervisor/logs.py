"""Log files that stay small: one a program, each line with its time (UTC) and its program's name."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 10_000_000
KEEP: Final = 2
"""Former files kept beside the current one: ``name.log.1`` is the younger."""
TAIL: Final = 30
"""Lines kept in memory, to be shown when a program fails."""

_MAX_LINE: Final = 65_536


class LogFile:
    """Takes a program's output as it comes and writes it line by line."""

    def __init__(self, path: Path, name: str, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._name = name
        self._max_bytes = max_bytes
        self._partial = b""
        self._lost = 0
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open()

    def feed(self, data: bytes) -> None:
        """Take some output; whole lines are written, the rest waits (up to 64 KiB) for its end."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > _MAX_LINE:
            lines.append(self._partial)
            self._partial = b""
        self._write(lines)

    def end_line(self) -> None:
        """Write what waits for the end of its line: there is no more to come."""
        if self._partial:
            self._write([self._partial])
            self._partial = b""

    def line(self, text: str) -> None:
        """Write one line of the supervisor's own."""
        self._write([text.encode(errors="replace")])

    def close(self) -> None:
        """Write what is left and close the file."""
        self.end_line()
        os.close(self._descriptor)

    def _write(self, lines: list[bytes]) -> None:
        if not lines:
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        prefix = f"{stamp} {self._name} | ".encode()
        data = b"".join(prefix + line + b"\n" for line in lines)
        self.tail.extend(line.decode(errors="replace") for line in lines)
        try:
            if self._lost:
                data = prefix + f"--- {self._lost} lines could not be written\n".encode() + data
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            self._size += os.write(self._descriptor, data)
            self._lost = 0
        except OSError:
            # A full disk: the programs matter more than their logs, which tell later how much is missing.
            self._lost += len(lines)

    def _open(self) -> None:
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _rotate(self) -> None:
        for number in range(KEEP - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        former = self._descriptor
        self._open()
        os.close(former)
