"""The node's side of the control API: authenticates, runs calls side by side, streams changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

from brokers.engine.control import auth
from brokers.engine.control.protocol import (
    BAD_REQUEST,
    BUSY,
    INTERNAL,
    VERSION,
    WATCH,
    ControlError,
    LineStream,
    check_version,
    encode,
)

MAX_CONNECTIONS: Final = 256
MAX_CALLS: Final = 64
"""Calls of one connection under way at once; the next is read when one is done."""
KEEPALIVE: Final = 2.0
"""Seconds without a change after which a watcher is told that the node still lives."""

_FAREWELL: Final = 1.0
"""Seconds that a client who does not read may hold up the end of its connection."""

_log = logging.getLogger(__name__)


class ControlApi(Protocol):
    """What a node offers through its control port."""

    async def call(self, method: str, params: dict[str, Any]) -> object:
        """Carry out ``method``; the result must be JSON. Raises ControlError(code, text) when it cannot."""

    def watch(self) -> AsyncIterator[dict[str, Any]]:
        """The full state (``"full": true``), then what changed.

        Asked for the next item only when the client has taken the last one, so an implementation coalesces
        what happens meanwhile instead of queueing it. Closed (``aclose``) when the client leaves.
        """


class ControlServer:
    """Serves a ``ControlApi`` to whoever proves to know ``secret``.

    ``hello`` is told to clients in the handshake (by convention ``{"node": name, "cluster": id}``).
    """

    def __init__(
        self,
        api: ControlApi,
        secret: bytes,
        *,
        hello: dict[str, Any] | None = None,
        keepalive: float = KEEPALIVE,
        handshake_timeout: float = auth.HANDSHAKE_TIMEOUT,
    ) -> None:
        self._api = api
        self._secret = secret
        self._hello = hello or {}
        self._keepalive = keepalive
        self._handshake_timeout = handshake_timeout
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; gives the address (port 0 picks a free one). Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self.serve, host, port)
        name = self._server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def close(self) -> None:
        """Stop listening and end all sessions, telling watchers that this is the end."""
        if self._server is not None:
            self._server.close()
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's session, from its first byte to its last."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("ControlServer.serve runs as a task of its own")
        self._sessions.add(task)
        stream = LineStream(reader, writer)
        try:
            await self._session(stream)
        except ControlError as error:
            _log.warning("control: closing the connection of %s: %s", stream.peer, error)
        except (EOFError, OSError):
            # The client left; what it had under way is cancelled and nobody waits for an answer.
            pass
        except asyncio.CancelledError:
            # Only close() cancels a session, and it awaits this task's end.
            pass
        finally:
            self._sessions.discard(task)
            await stream.close(_FAREWELL)

    async def _session(self, stream: LineStream) -> None:
        if len(self._sessions) > MAX_CONNECTIONS:
            error = ControlError(BUSY, f"the node has {MAX_CONNECTIONS} control connections, its limit")
            await stream.write_line(auth.ServerHandshake.refusal(error))
            raise error
        await auth.serve_handshake(stream, self._secret, auth.CONTROL, self._hello, self._handshake_timeout)
        slots = asyncio.Semaphore(MAX_CALLS)
        calls: set[asyncio.Task[None]] = set()
        try:
            while True:
                await slots.acquire()
                try:
                    message = await stream.read()
                    check_version(message)
                    number = _request_id(message)
                except ControlError as error:
                    await stream.write({"v": VERSION, "id": None, "error": error.as_dict()})
                    raise
                task = asyncio.create_task(self._answer(stream, number, message))
                calls.add(task)
                task.add_done_callback(calls.discard)
                task.add_done_callback(lambda _: slots.release())
        finally:
            for task in tuple(calls):
                task.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    async def _answer(self, stream: LineStream, number: int, message: dict[str, Any]) -> None:
        try:
            method, params = message.get("method"), message.get("params", {})
            if not isinstance(method, str) or not isinstance(params, dict):
                raise ControlError(
                    BAD_REQUEST,
                    f"a request needs a text 'method' and an object 'params', not {message!r:.200}",
                )
            if method == WATCH:
                await self._stream_changes(stream, number)
                line = encode({"v": VERSION, "id": number, "end": True})
            else:
                line = encode({"v": VERSION, "id": number, "result": await self._api.call(method, params)})
        except ControlError as error:
            line = encode({"v": VERSION, "id": number, "error": error.as_dict()})
        except OSError:
            # The client is gone; the session's reader sees the same and ends the session.
            return
        except Exception as error:
            _log.exception("control: %r failed", message.get("method"))
            what = f"{type(error).__name__}: {error}"
            text = f"{message.get('method')!r:.80} failed in the node, see its log: {what}"
            line = encode({"v": VERSION, "id": number, "error": ControlError(INTERNAL, text).as_dict()})
        with contextlib.suppress(OSError):
            await stream.write_line(line)

    async def _stream_changes(self, stream: LineStream, number: int) -> None:
        changes = self._api.watch()
        following: asyncio.Task[dict[str, Any] | None] | None = None
        try:
            while True:
                following = asyncio.ensure_future(_next(changes))
                while not (await asyncio.wait([following], timeout=self._keepalive))[0]:
                    await stream.write({"v": VERSION, "id": number, "alive": True})
                change = following.result()
                if change is None:
                    return
                await stream.write({"v": VERSION, "id": number, "change": change})
        except asyncio.CancelledError:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await stream.write({"v": VERSION, "id": number, "end": True})
            raise
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            closing = getattr(changes, "aclose", None)
            if closing is not None:
                await closing()


async def _next(changes: AsyncIterator[dict[str, Any]]) -> dict[str, Any] | None:
    return await anext(changes, None)


def _request_id(message: dict[str, Any]) -> int:
    number = message.get("id")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ControlError(BAD_REQUEST, f"a request needs a whole number as 'id', not {number!r:.80}")
    return number
