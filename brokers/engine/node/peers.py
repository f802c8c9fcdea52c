"""The links between nodes: one TCP connection a pair, authenticated both ways, frames in order.

The node with the higher id dials. A frame is u32 length of what follows, u8 channel, payload. What is sent
to a node that is out of reach is dropped: consensus and sessions say again what matters.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable
from struct import Struct
from typing import Any, Final, cast

from brokers.engine.config import NodeConfig
from brokers.engine.control import auth
from brokers.engine.control.protocol import ControlError

RAFT, SESSION, JSON, METADATA, REPLY, BARRIER = 0, 1, 2, 3, 4, 5
"""Channels of a link: consensus, queue sessions, everything rare, metadata commands for the leader, direct
replies, whether metadata is applied."""

MAX_FRAME: Final = 512 * 1024 * 1024
MAX_UNREAD: Final = 128 * 1024 * 1024
"""Bytes that may wait for a peer; more would be this node's memory spent on a peer that does not read."""
REDIAL: Final = 0.1
"""Seconds between attempts to reach a node."""
CONNECT_TIMEOUT: Final = 2.0
ALIVE: Final = 255
"""Channel of frames that only say that their sender lives."""
ALIVE_TICKS: Final = 25
"""Such a frame is sent every so many ticks of the node (half a second)."""
SILENT_TICKS: Final = 100
"""A link that was not heard of for so many ticks (two seconds) is closed. A route may be lost, or a process
stopped, without a word; in ticks, because a node that was stopped itself has to read before it judges."""

_head = Struct(">IB")
_log = logging.getLogger(__name__)


class PeerLink(asyncio.Protocol):
    """One connection to a peer, from the handshake on."""

    def __init__(self, peers: Peers, expected: int | None) -> None:
        self._peers = peers
        self._expected = expected
        """The node that was dialled; None when the peer dialled us."""
        self._handshake: auth.ClientHandshake | auth.ServerHandshake | None = None
        self._answered = False
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0
        self._out: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None
        self.node: int | None = None
        """The peer's id, once it is authenticated."""
        self.closed = False
        self.silent = 0
        """Ticks since something was heard."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=8 * 1024 * 1024)
        self._timer = asyncio.get_running_loop().call_later(auth.HANDSHAKE_TIMEOUT, self._too_slow)
        hello = self._peers.hello()
        if self._expected is None:
            server = auth.ServerHandshake(self._peers.secret, auth.PEER, hello)
            self._handshake = server
            transport.write(server.challenge())
        else:
            self._handshake = auth.ClientHandshake(self._peers.secret, auth.PEER, hello)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self.node is not None:
            self._peers.lost(self)

    def data_received(self, data: bytes) -> None:
        self.silent = 0
        if self._handshake is not None:
            data = self._continue_handshake(data)
        if not data or self.closed:
            return
        if self._chunks:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._chunks)
            self._chunks = []
        self._frames(data)

    def _frames(self, data: bytes) -> None:
        at = 0
        size = len(data)
        receive = self._peers.on_frame
        node = self.node
        assert node is not None  # noqa: S101  # frames come after the handshake
        need = _head.size
        while size - at >= _head.size:
            length, channel = _head.unpack_from(data, at)
            if not 0 < length <= MAX_FRAME:
                self.fail(f"a frame of {length} bytes")
                return
            need = length + 4
            if size - at < need:
                break
            try:
                if channel != ALIVE:
                    receive(node, channel, data[at + _head.size : at + need])
            except ValueError as error:
                self.fail(str(error))
                return
            at += need
            need = _head.size
        if at < size:
            self._chunks = [data[at:] if at else data]
            self._have = size - at
            self._need = need

    def _continue_handshake(self, data: bytes) -> bytes:
        data = b"".join((*self._chunks, data))
        self._chunks = []
        handshake = self._handshake
        transport = self.transport
        assert transport is not None  # noqa: S101  # connection_made came first
        while handshake is not None and not self.closed:
            line, newline, rest = data.partition(b"\n")
            if not newline:
                if len(data) > auth.MAX_HANDSHAKE_LINE:
                    self.fail("a handshake line without an end")
                else:
                    self._chunks = [data]
                    self._have = self._need = len(data)
                return b""
            data = rest
            try:
                if isinstance(handshake, auth.ServerHandshake):
                    transport.write(handshake.receive(line))
                    self._authenticated(handshake.client_hello)
                    handshake = None
                elif not self._answered:
                    transport.write(handshake.answer(line))
                    self._answered = True
                else:
                    handshake.finish(line)
                    self._authenticated(handshake.server_hello)
                    handshake = None
            except ControlError as error:
                if isinstance(handshake, auth.ServerHandshake):
                    transport.write(handshake.refusal(error))
                self.fail(str(error))
        return data

    def _authenticated(self, hello: dict[str, Any]) -> None:
        self._handshake = None
        if self._timer is not None:
            self._timer.cancel()
        problem = self._peers.check(hello, self._expected)
        if problem:
            self.fail(problem)
            return
        self.node = int(hello["id"])
        self._peers.joined(self, int(hello["boot"]))

    def _too_slow(self) -> None:
        self.fail(f"no handshake within {auth.HANDSHAKE_TIMEOUT:g} s")

    def fail(self, why: str) -> None:
        """Close because of ``why``."""
        where = self.transport.get_extra_info("peername") if self.transport else "?"
        _log.warning("peer link %s of %s closed: %s", where, self.node or self._expected, why)
        self.close()

    def close(self) -> None:
        """Close; the peer is told by the end of the stream."""
        self.closed = True
        if self.transport is not None:
            self.transport.close()

    def send(self, channel: int, parts: Iterable[bytes]) -> None:
        """Queue a frame; ``flush`` sends it."""
        parts = list(parts)
        self._out.append(_head.pack(1 + sum(map(len, parts)), channel))
        self._out += parts

    def flush(self) -> None:
        """Write what was queued in this turn."""
        if not self._out or self.transport is None:
            return
        out, self._out = self._out, []
        if self.transport.get_write_buffer_size() > MAX_UNREAD:
            self.fail(f"it has {MAX_UNREAD} bytes unread; it is stuck, or much too slow")
            self.transport.abort()
        else:
            self.transport.write(b"".join(out))


def _same(link: PeerLink) -> PeerLink:
    return link


class Peers:
    """All links of a node. The callbacks are given by the node and run in its loop."""

    def __init__(
        self,
        me: NodeConfig,
        boot: int,
        cluster: str,
        secret: bytes,
        *,
        on_up: Callable[[int, int], None],
        on_down: Callable[[int], None],
        on_frame: Callable[[int, int, bytes], None],
    ) -> None:
        self._me = me
        self._boot = boot
        self._cluster = cluster
        self.secret = secret
        self._on_up = on_up
        self._on_down = on_down
        self.on_frame = on_frame
        self.links: dict[int, PeerLink] = {}
        self._dirty: set[PeerLink] = set()
        self._server: asyncio.Server | None = None
        self._dialers: dict[int, asyncio.Task[None]] = {}
        self._closing = False
        self._ticks = 0

    def hello(self) -> dict[str, Any]:
        """What this node says of itself."""
        return {"id": self._me.id, "name": self._me.name, "boot": self._boot, "cluster": self._cluster}

    def check(self, hello: dict[str, Any], expected: int | None) -> str:
        """Why a peer that knows the secret is still not let in; empty when it is."""
        if hello.get("cluster") != self._cluster:
            return f"it belongs to cluster {hello.get('cluster')!r}, this is {self._cluster!r}"
        number = hello.get("id")
        if not isinstance(number, int) or not isinstance(hello.get("boot"), int):
            return f"it gave no id and boot: {hello!r:.200}"
        if number == self._me.id or (expected is not None and number != expected):
            return f"it is node {number}, expected was {expected}"
        return ""

    async def start(self, others: Iterable[NodeConfig]) -> None:
        """Listen, and dial every node with a lower id until the end."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: PeerLink(self, None), self._me.host, self._me.peer)
        for other in others:
            if other.id < self._me.id:
                self._dialers[other.id] = loop.create_task(self._dial(other))

    async def _dial(self, other: NodeConfig) -> None:
        loop = asyncio.get_running_loop()
        link: PeerLink | None = None
        while not self._closing:
            if link is None or link.closed:
                link = PeerLink(self, other.id)
                try:
                    async with asyncio.timeout(CONNECT_TIMEOUT):
                        await loop.create_connection(functools.partial(_same, link), other.host, other.peer)
                except (OSError, TimeoutError) as error:
                    _log.debug("node %s at %s:%s: %s", other.name, other.host, other.peer, error)
                    link = None
            await asyncio.sleep(REDIAL)

    def joined(self, link: PeerLink, boot: int) -> None:
        """A link has authenticated its peer."""
        assert link.node is not None  # noqa: S101  # set before
        former = self.links.pop(link.node, None)
        if former is not None:
            former.close()
            self._on_down(link.node)
        self.links[link.node] = link
        _log.info("linked with node %s", link.node)
        self._on_up(link.node, boot)

    def lost(self, link: PeerLink) -> None:
        """A link ended."""
        self._dirty.discard(link)
        if link.node is not None and self.links.get(link.node) is link:
            del self.links[link.node]
            if not self._closing:
                _log.warning("lost the link with node %s", link.node)
            self._on_down(link.node)

    def send(self, node: int, channel: int, parts: Iterable[bytes]) -> bool:
        """Queue a frame for ``node``; False (and nothing done) when it is out of reach."""
        link = self.links.get(node)
        if link is None or link.closed:
            return False
        link.send(channel, parts)
        self._dirty.add(link)
        return True

    def tick(self) -> None:
        """Say that this node lives, and close links that have been silent for too long."""
        self._ticks += 1
        for link in list(self.links.values()):
            link.silent += 1
            if link.silent > SILENT_TICKS and link.transport is not None:
                link.fail("it has been silent for too long")
                link.transport.abort()
            elif not self._ticks % ALIVE_TICKS:
                link.send(ALIVE, ())
                self._dirty.add(link)

    def flush(self) -> None:
        """Write everything queued in this turn."""
        if self._dirty:
            dirty, self._dirty = self._dirty, set()
            for link in dirty:
                link.flush()

    async def close(self) -> None:
        """Flush, then end all links."""
        self._closing = True
        self.flush()
        for task in self._dialers.values():
            task.cancel()
        await asyncio.gather(*self._dialers.values(), return_exceptions=True)
        if self._server is not None:
            self._server.close()
        for link in list(self.links.values()):
            link.close()
