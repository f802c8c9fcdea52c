"""One thread a cluster follows the cluster's changes and keeps the process's ``State`` of it current."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from brokers.adapters.base import Change, Cluster
from brokers.live.history import STEP
from brokers.live.state import PATIENCE, Delta, State

logger = logging.getLogger(__name__)

Listener = Callable[[Delta], None]
"""Called in the watcher's thread after each change: note what is new and return at once."""

FIRST_LOOK: Final = 3.0
"""Seconds that a page waits for the first state after a start of the process."""


class Watcher:
    """Follows one cluster for as long as the process lives."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.state = State()
        self._cluster = cluster
        self._name = name
        self._listeners: tuple[Listener, ...] = ()
        self._thread = threading.Thread(target=self._run, name=f"watch {name}", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` for each change from now on."""
        self._listeners += (listener,)

    def _run(self) -> None:
        asyncio.run(self._follow_for_ever())

    async def _follow_for_ever(self) -> None:
        ticking = asyncio.create_task(self._tick())
        try:
            while True:
                try:
                    await self._follow()
                    why = "the stream of changes ended"
                except Exception as error:
                    # A thread that dies silently would leave every page frozen: say it and begin again.
                    logger.exception("watching %s failed; it is tried again", self._name)
                    why = f"the console could not read what the cluster said: {error}"
                self._tell(self.state.apply(Change(lost=why)))
                await asyncio.sleep(PATIENCE)
        finally:
            ticking.cancel()

    async def _follow(self) -> None:
        async with aclosing(self._cluster.watch()) as changes:
            async for change in changes:
                self._tell(self.state.apply(change))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(STEP)
            self._tell(self.state.sample())

    def _tell(self, delta: Delta) -> None:
        for listener in self._listeners:
            listener(delta)


_watchers: dict[int, Watcher] = {}
_lock = threading.Lock()


def watcher_of(pk: int, name: str, connect: Callable[[], Cluster]) -> Watcher:
    """This process's watcher of the cluster with primary key ``pk``; the first call starts it."""
    watcher = _watchers.get(pk)
    if watcher is None:
        with _lock:
            watcher = _watchers.get(pk)
            if watcher is None:
                watcher = _watchers[pk] = Watcher(connect(), name)
                watcher.start()
    return watcher


def state_of(pk: int, name: str, connect: Callable[[], Cluster]) -> State:
    """The current state of a cluster; waits a moment for the first one after the process has started."""
    state = watcher_of(pk, name, connect).state
    state.known.wait(FIRST_LOOK)
    return state
