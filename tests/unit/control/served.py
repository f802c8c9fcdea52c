"""A control server over a scripted API, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from brokers.engine.control.client import Endpoint
from brokers.engine.control.protocol import NOT_FOUND, UNKNOWN_METHOD, ControlError
from brokers.engine.control.server import ControlServer

SECRET = bytes(range(32))


class ScriptedApi:
    """Answers a few methods; what it was asked stands in ``calls``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.changes: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.watchers_closed = 0

    async def call(self, method: str, params: dict[str, Any]) -> object:
        self.calls.append((method, params))
        match method:
            case "ping":
                return {"node": self.name, "echo": params}
            case "queue":
                raise ControlError(NOT_FOUND, f"no queue {params.get('name')!r}")
            case "transfer_leadership" | "snapshot":
                self.entered.set()
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
                return {"node": self.name}
            case "broken":
                raise ZeroDivisionError("boom")
            case "unwritable":
                return object()
        raise ControlError(UNKNOWN_METHOD, f"there is no method {method!r}")

    async def watch(self) -> AsyncIterator[dict[str, Any]]:
        try:
            yield {"full": True, "answered_by": self.name}
            while (change := await self.changes.get()) is not None:
                yield change
        finally:
            self.watchers_closed += 1


class Served:
    """A server that listens, and where."""

    def __init__(self, name: str, **options: Any) -> None:
        self.api = ScriptedApi(name)
        self.server = ControlServer(self.api, SECRET, hello={"node": name}, **options)
        self.endpoint = Endpoint(name, "127.0.0.1", 0)

    async def __aenter__(self) -> Served:
        host, port = await self.server.start("127.0.0.1", self.endpoint.port)
        self.endpoint = Endpoint(self.api.name, host, port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.close()
