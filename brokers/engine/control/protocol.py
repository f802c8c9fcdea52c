"""The wire of the control API: one JSON object a line, UTF-8, ended by a newline.

After the handshake (``auth``) the client sends requests and the server answers each under its ``id``, in any
order::

    {"v": 1, "id": 7, "method": "queue", "params": {"vhost": "/", "name": "orders"}}
    {"v": 1, "id": 7, "result": {...}}
    {"v": 1, "id": 7, "error": {"code": "not-found", "text": "..."}}

The method ``watch`` is answered by many lines, until either side closes the connection::

    {"v": 1, "id": 8, "change": {...}}
    {"v": 1, "id": 8, "alive": true}          (nothing changed for a while)
    {"v": 1, "id": 8, "end": true}            (the node goes away in an orderly way)
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

VERSION: Final = 1
MAX_LINE: Final = 64 * 1024 * 1024
"""Bytes of the longest line, newline included; a snapshot of 100,000 queues takes about half of it."""
WATCH: Final = "watch"

_CHUNK: Final = 256 * 1024

AUTH: Final = "auth"
VERSION_MISMATCH: Final = "version"
BAD_REQUEST: Final = "bad-request"
BAD_PARAMS: Final = "bad-params"
UNKNOWN_METHOD: Final = "unknown-method"
NOT_FOUND: Final = "not-found"
CONFLICT: Final = "conflict"
NO_QUORUM: Final = "no-quorum"
TIMEOUT: Final = "timeout"
BUSY: Final = "busy"
UNAVAILABLE: Final = "unavailable"
OUTCOME_UNKNOWN: Final = "outcome-unknown"
INTERNAL: Final = "internal"


class ControlError(Exception):
    """A call that failed: a ``code`` for programs (the constants of this module) and a text for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{text} [{code}]")
        self.code = code
        self.text = text

    def as_dict(self) -> dict[str, str]:
        """As it goes over the wire."""
        return {"code": self.code, "text": self.text}

    @classmethod
    def from_wire(cls, data: object) -> ControlError:
        """The error another process sent; one that is malformed is said to be so, with what it was."""
        if isinstance(data, dict):
            code, text = data.get("code"), data.get("text")
            if isinstance(code, str) and isinstance(text, str):
                return cls(code, text)
        return cls(INTERNAL, f"the node sent an error that is not understood: {data!r:.200}")


def encode(message: dict[str, Any]) -> bytes:
    """The line of ``message``. Raises ControlError when it is longer than MAX_LINE or no JSON."""
    try:
        line = json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise ControlError(INTERNAL, f"a control message cannot be written as JSON: {error}") from error
    if len(line) > MAX_LINE:
        raise ControlError(
            INTERNAL, f"a control message of {len(line)} bytes is over the limit of {MAX_LINE} bytes"
        )
    return line


def decode(line: bytes) -> dict[str, Any]:
    """The object on ``line``. Raises ControlError with code ``bad-request`` when there is none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ControlError(BAD_REQUEST, f"a control line is not JSON ({error}): {line[:80]!r}") from error
    if not isinstance(message, dict):
        raise ControlError(BAD_REQUEST, f"a control line must hold an object, not {line[:80]!r}")
    return message


def check_version(message: dict[str, Any]) -> None:
    """Raises ControlError with code ``version`` when the other side speaks another version."""
    version = message.get("v")
    if version != VERSION:
        raise ControlError(
            VERSION_MISMATCH,
            f"this side speaks version {VERSION} of the control protocol, the other one version {version!r}; "
            f"run the same release on both",
        )


class LineBuffer:
    """Cuts a byte stream into lines of at most ``max_line`` bytes (which may be raised as trust grows)."""

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self.max_line = max_line
        self._data = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Take what was read from the other side."""
        self._data += data

    def next_line(self) -> bytes | None:
        """The next whole line without its newline, or None until more is fed.

        Raises ControlError with code ``bad-request`` for a line over the limit.
        """
        end = self._data.find(b"\n", self._searched)
        if (end if end >= 0 else len(self._data)) >= self.max_line:
            raise ControlError(BAD_REQUEST, f"a control line is longer than {self.max_line} bytes")
        if end < 0:
            self._searched = len(self._data)
            return None
        line = bytes(self._data[:end])
        del self._data[: end + 1]
        self._searched = 0
        return line


class LineStream:
    """Lines over a pair of asyncio streams."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_line: int = MAX_LINE
    ) -> None:
        self.buffer = LineBuffer(max_line)
        self._reader = reader
        self._writer = writer

    async def read_line(self) -> bytes:
        """The next line. Raises EOFError when the other side has closed, ControlError for one too long."""
        while (line := self.buffer.next_line()) is None:
            data = await self._reader.read(_CHUNK)
            if not data:
                raise EOFError("the other side closed the connection")
            self.buffer.feed(data)
        return line

    async def read(self) -> dict[str, Any]:
        """The next message. Raises as ``read_line`` and ``decode`` do."""
        return decode(await self.read_line())

    async def write_line(self, line: bytes) -> None:
        """Send ``line`` (with its newline) and wait while the other side is slow to read.

        Raises OSError when the link is gone.
        """
        if self._writer.is_closing():
            raise ConnectionResetError(f"the connection of {self.peer} is closed")  # uvloop: RuntimeError
        self._writer.write(line)
        await self._writer.drain()

    async def write(self, message: dict[str, Any]) -> None:
        """Send ``message``. Raises ControlError when it cannot be encoded, OSError when the link is gone."""
        await self.write_line(encode(message))

    @property
    def peer(self) -> str:
        """The other side's address, for logs."""
        name = self._writer.get_extra_info("peername")
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "an unnamed peer"

    def abort(self) -> None:
        """Drop the connection at once, without waiting for unsent bytes."""
        self._writer.transport.abort()

    async def close(self, grace: float = 1.0) -> None:
        """Close the connection; bytes the other side has not taken in ``grace`` seconds are dropped."""
        self._writer.close()
        try:
            async with asyncio.timeout(grace):
                await self._writer.wait_closed()
        except TimeoutError:
            self.abort()
        except OSError:
            # The other side reset the connection while it was being closed; closed is what was wanted.
            return
