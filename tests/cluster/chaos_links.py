"""The network between the nodes of a chaos run: one TCP proxy a pair, in the dialled node's place.

A pair can be cut (connections end, new ones are refused), muted (bytes wait, nobody is told: what a lost
route does) in one direction or both, and delayed.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Self

CHUNK = 1 << 16
_POLL = 0.01


class Way:
    """One direction of a pair. ``delay`` in seconds."""

    def __init__(self) -> None:
        self.muted = False
        self.delay = 0.0


class Pair:
    """The connections between two nodes, of which ``dialler`` opens them."""

    def __init__(self, dialler: str, dialled: str, port: int, target: int) -> None:
        self.nodes = {dialler, dialled}
        self.port = port
        self.target = target
        self.ways = {dialler: Way(), dialled: Way()}
        """By the node that speaks."""
        self.cut = False
        self.carried = 0
        """Bytes that went through."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialler, self._dialled = dialler, dialled

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the dialler's."""
        if self.cut:
            writer.close()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, back}
        pumps = [
            asyncio.create_task(self._pump(self.ways[self._dialler], reader, back)),
            asyncio.create_task(self._pump(self.ways[self._dialled], there, writer)),
        ]
        self._tasks.update(pumps)
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            self._tasks.difference_update(pumps)
            self._writers -= {writer, back}
            for end in (writer, back):
                end.transport.abort()

    async def _pump(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if way.delay:
                    await asyncio.sleep(way.delay)
                while way.muted:
                    await asyncio.sleep(_POLL)
                writer.write(data)
                self.carried += len(data)
                await writer.drain()

    def sever(self) -> None:
        """End what is open."""
        for writer in list(self._writers):
            writer.transport.abort()


class Network:
    """All pairs, run by a thread of their own."""

    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers: list[asyncio.Server] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def join(self, dialler: str, dialled: str, target: int) -> int:
        """A proxy for ``dialler``'s connections to ``dialled``, which listens on ``target``; its port."""
        pair = Pair(dialler, dialled, 0, target)

        async def listen() -> None:
            server = await asyncio.start_server(pair.serve, "127.0.0.1", 0)
            self._servers.append(server)
            pair.port = server.sockets[0].getsockname()[1]

        self._do(listen())
        self.pairs.append(pair)
        return pair.port

    def of(self, *nodes: str) -> list[Pair]:
        """The pairs that all of ``nodes`` belong to."""
        return [pair for pair in self.pairs if set(nodes) <= pair.nodes]

    def sever(self, pair: Pair) -> None:
        """End the pair's connections."""
        self._loop.call_soon_threadsafe(pair.sever)

    def heal(self) -> None:
        """All pairs as they should be."""
        for pair in self.pairs:
            pair.cut = False
            for way in pair.ways.values():
                way.muted, way.delay = False, 0.0
