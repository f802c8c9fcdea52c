"""The other side of the control API: calls and change streams that outlive the loss of a node.

``ControlClient`` is for asyncio (the live hub, tests), ``SyncControlClient`` (``blocking``) for code that
blocks. Both try the nodes one after the other, the one that answered last first.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Self

from brokers.engine.config import ClusterConfig
from brokers.engine.control import auth
from brokers.engine.control.blocking import SyncControlClient
from brokers.engine.control.failover import (
    CALL_TIMEOUT,
    CONNECT_TIMEOUT,
    WATCH_TIMEOUT,
    Endpoint,
    Lost,
    Nodes,
    endpoints_of,
    give_up,
    may_go_on,
    reason_of,
    result_of,
)
from brokers.engine.control.protocol import (
    VERSION,
    WATCH,
    ControlError,
    LineStream,
    check_version,
    encode,
)

__all__ = ["ControlClient", "Endpoint", "SyncControlClient", "endpoints_of"]

_BACKOFF_FIRST: Final = 0.05
_BACKOFF_MOST: Final = 2.0


class _Link:
    """One authenticated connection; calls on it run side by side."""

    def __init__(self, endpoint: Endpoint, stream: LineStream) -> None:
        self.endpoint = endpoint
        self._stream = stream
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader: asyncio.Task[None] | None = None
        self.lost: str | None = None

    @classmethod
    async def connect(cls, endpoint: Endpoint, secret: bytes) -> _Link:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
        except TimeoutError:
            raise Lost(endpoint, f"no connection within {CONNECT_TIMEOUT:g} s", sent=False) from None
        except OSError as error:
            raise Lost(endpoint, reason_of(error), sent=False) from error
        stream = LineStream(reader, writer)
        try:
            await auth.join_handshake(stream, secret, auth.CONTROL, within=CONNECT_TIMEOUT)
        except (ControlError, EOFError, OSError) as error:
            stream.abort()
            raise Lost(endpoint, reason_of(error), sent=False) from error
        except BaseException:
            stream.abort()
            raise
        return cls(endpoint, stream)

    async def call(self, method: str, params: dict[str, Any], within: float) -> Any:
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        number = next(self._numbers)
        line = encode({"v": VERSION, "id": number, "method": method, "params": params})
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            if self.lost is not None:
                raise Lost(self.endpoint, self.lost, sent=False)
            async with asyncio.timeout(within):
                await self._stream.write_line(line)
                return result_of(await answer)
        except TimeoutError:
            # The node may be paused: whoever else waits on this link had better ask another one, too.
            self.lost = f"no answer within {within:g} s"
            self._stream.abort()
            raise Lost(self.endpoint, self.lost, sent=True) from None
        except OSError as error:
            raise Lost(self.endpoint, reason_of(error), sent=True) from error
        finally:
            self._waiting.pop(number, None)
            answer.cancel()

    async def changes(self) -> AsyncGenerator[dict[str, Any], None]:
        """Use this link for one watch and nothing else. Ends when the node goes away; raises Lost."""
        number = next(self._numbers)
        try:
            await self._stream.write({"v": VERSION, "id": number, "method": WATCH, "params": {}})
            while True:
                async with asyncio.timeout(WATCH_TIMEOUT):
                    message = await self._stream.read()
                if "error" in message:
                    raise ControlError.from_wire(message["error"])
                if message.get("end"):
                    return
                if "change" in message:
                    yield message["change"]
        except TimeoutError:
            raise Lost(self.endpoint, f"silent for {WATCH_TIMEOUT:g} s", sent=True) from None
        except (EOFError, OSError) as error:
            raise Lost(self.endpoint, reason_of(error), sent=True) from error

    async def _read(self) -> None:
        why = "the connection was closed"
        try:
            while True:
                message = await self._stream.read()
                check_version(message)
                number = message.get("id")
                if number is None:
                    raise ControlError.from_wire(message.get("error"))
                answer = self._waiting.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(message)
        except (ControlError, EOFError, OSError) as error:
            why = reason_of(error)
        finally:
            self.lost = self.lost or why
            self._stream.abort()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(Lost(self.endpoint, self.lost, sent=True))

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await self._stream.close()


class ControlClient:
    """Calls and changes of a cluster, from whichever node answers. Belongs to one event loop."""

    def __init__(self, endpoints: Sequence[Endpoint], secret: bytes) -> None:
        self._nodes = Nodes(endpoints)
        self._secret = secret
        self._links: dict[Endpoint, asyncio.Task[_Link]] = {}

    @classmethod
    def from_config(cls, config: ClusterConfig) -> Self:
        """A client of the cluster that ``config`` describes. Raises ConfigError without its secret."""
        return cls(endpoints_of(config), config.secret())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def call(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        node: str | None = None,
        timeout: float = CALL_TIMEOUT,  # noqa: ASYNC109  it holds for each node asked, not for the whole call
    ) -> Any:
        """The result of ``method``, from ``node`` or the first that answers within ``timeout`` seconds.

        Raises ControlError: the node's own, ``unavailable`` (nothing was carried out) or ``outcome-unknown``
        (a node was lost after a call that changes things had been sent).
        """
        lost: list[Lost] = []
        for endpoint in self._nodes.candidates(node):
            try:
                link = await self._link(endpoint)
                result = await link.call(method, params or {}, timeout)
            except Lost as loss:
                lost.append(loss)
                if not may_go_on(method, loss):
                    break
            else:
                self._nodes.answered(endpoint)
                return result
        raise give_up(method, lost)

    async def watch(self, node: str | None = None) -> AsyncGenerator[dict[str, Any], None]:
        """A full snapshot (``"full": true``), then changes, for ever.

        When the watched node is lost this yields ``{"disconnected": why}`` once, goes on with the next that
        answers (back-off up to 2 s between rounds), and yields a full snapshot again. Raises ControlError
        only when the node refuses to be watched at all. Close it (``aclosing``) when you stop early.
        """
        pause = _BACKOFF_FIRST
        told = False
        while True:
            lost: list[Lost] = []
            for endpoint in self._nodes.candidates(node):
                try:
                    link = await _Link.connect(endpoint, self._secret)
                    try:
                        async with aclosing(link.changes()) as changes:
                            async for change in changes:
                                pause, told = _BACKOFF_FIRST, False
                                self._nodes.answered(endpoint)
                                yield change
                        raise Lost(endpoint, "the node shut down", sent=True)
                    finally:
                        await link.close()
                except Lost as loss:
                    lost.append(loss)
                    if loss.sent and not told:
                        told = True
                        yield {"disconnected": str(loss)}
            if not told:
                told = True
                yield {"disconnected": "; ".join(str(loss) for loss in lost)}
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter, not a secret
            pause = min(2 * pause, _BACKOFF_MOST)

    async def close(self) -> None:
        """Close all connections; calls under way fail."""
        links, self._links = list(self._links.values()), {}
        for connecting in links:
            connecting.cancel()
        for link in await asyncio.gather(*links, return_exceptions=True):
            if isinstance(link, _Link):
                await link.close()

    async def _link(self, endpoint: Endpoint) -> _Link:
        connecting = self._links.get(endpoint)
        if connecting is None or (connecting.done() and _is_dead(connecting)):
            connecting = asyncio.create_task(_Link.connect(endpoint, self._secret))
            self._links[endpoint] = connecting
        # Shielded: others may wait for the same connection when this caller is cancelled.
        return await asyncio.shield(connecting)


def _is_dead(connecting: asyncio.Task[_Link]) -> bool:
    return (
        connecting.cancelled() or connecting.exception() is not None or connecting.result().lost is not None
    )
