"""Who changed the metadata waits for the peers in reach, not for those that are slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from brokers.engine.node.barrier import Barrier


def _others(me: int) -> list[int]:
    return [node for node in (1, 2, 3) if node != me]


class Net:
    """Nodes 1 to 3; frames are delivered by hand."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.frames: list[tuple[int, int, bytes]] = []
        self.nodes = {me: Barrier(self._sender(me), partial(_others, me), loop) for me in (1, 2, 3)}

    def _sender(self, me: int) -> Callable[[int, Sequence[bytes]], bool]:
        def send(node: int, parts: Sequence[bytes]) -> bool:
            self.frames.append((me, node, b"".join(parts)))
            return True

        return send

    def deliver(self, *to: int) -> None:
        while ready := [frame for frame in self.frames if frame[1] in to]:
            self.frames = [frame for frame in self.frames if frame not in ready]
            for sender, receiver, data in ready:
                self.nodes[receiver].receive(sender, data)


def test_all_have_to_have_applied_it() -> None:
    async def scenario() -> None:
        net = Net(asyncio.get_running_loop())
        done: list[str] = []
        net.nodes[1].applying(7)
        net.nodes[1].wait(lambda: done.append("x"))
        net.nodes[2].applied(7)
        net.deliver(1, 2, 3)
        assert done == []
        net.nodes[3].applied(6)
        net.deliver(1, 2, 3)
        assert done == []
        net.nodes[3].applied(9)
        net.deliver(1, 2, 3)
        assert done == ["x"]

    asyncio.run(scenario())


def test_a_lost_peer_is_not_waited_for() -> None:
    async def scenario() -> None:
        net = Net(asyncio.get_running_loop())
        done: list[str] = []
        net.nodes[1].applied(1)
        net.nodes[1].wait(lambda: done.append("x"))
        net.nodes[2].applied(1)
        net.deliver(1, 2)
        net.nodes[1].peer_down(3)
        assert done == ["x"]

    asyncio.run(scenario())


def test_a_slow_peer_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokers.engine.node.barrier.PATIENCE", 0.01)

    async def scenario() -> None:
        net = Net(asyncio.get_running_loop())
        net.nodes[1].applied(1)
        net.nodes[2].applied(1)
        waited = asyncio.Event()
        net.nodes[1].wait(waited.set)
        net.deliver(1, 2)
        async with asyncio.timeout(10):
            await waited.wait()
        done: list[str] = []
        net.nodes[1].wait(lambda: done.append("second"))
        net.deliver(1, 2)
        assert done == ["second"]
        net.nodes[3].applied(1)
        net.deliver(1, 2, 3)
        net.nodes[1].wait(lambda: done.append("third"))
        net.deliver(1, 2)
        assert done == ["second"]
        net.deliver(1, 2, 3)
        assert done == ["second", "third"]

    asyncio.run(scenario())


def test_nonsense_is_refused() -> None:
    async def scenario() -> None:
        with pytest.raises(ValueError, match="3 bytes"):
            Net(asyncio.get_running_loop()).nodes[1].receive(2, b"abc")

    asyncio.run(scenario())
