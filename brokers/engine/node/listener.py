"""The AMQP port: one ``AmqpSocket`` a client drives one ``Connection``."""

from __future__ import annotations

import asyncio
import logging
import resource
import secrets
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, cast

from brokers.engine.core.amqp.connection import Connection
from brokers.engine.core.amqp.settings import ConnectionSettings
from brokers.engine.node.pressure import setting

if TYPE_CHECKING:
    from brokers.engine.node.node import Node

TICK = 0.5
"""Seconds between looks at heartbeats and time-outs."""
WRITE_HIGH = 1 << 20
"""Bytes waiting for a client's socket above which its consumers get no more credit."""
WRITE_LIMIT = 64 << 20
"""Bytes waiting for a client's socket above which it is not read either."""
LINGER = 3.0
"""Seconds that a client has to take the last words and close its side (RabbitMQ has 30)."""

MAX_CONNECTIONS = 20_000

_log = logging.getLogger(__name__)


class AmqpSocket(asyncio.Protocol):
    """The socket of one client."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._held = False
        self.connection: Connection | None = None
        self.congested = False
        self.told_blocked = False
        """The client knows that publishers have to wait."""
        self._parting: asyncio.TimerHandle | None = None
        self.id = ""
        self.since = node.wall_clock()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=WRITE_HIGH)
        if len(self._node.sockets) >= self._node.max_connections:
            _log.error("connection refused: this node has %d, as many as it may", len(self._node.sockets))
            transport.abort()
            return
        peer = transport.get_extra_info("peername") or ("?", 0)
        mine = transport.get_extra_info("sockname") or ("?", 0)
        self.connection = connection = Connection(
            self._node.broker,
            self._node.connection_settings,
            peer=f"{peer[0]}:{peer[1]} -> {mine[0]}:{mine[1]}",
            loopback=ip_address(peer[0].partition("%")[0]).is_loopback,
            tls=transport.get_extra_info("ssl_object") is not None,
            now=self._node.now(),
        )
        if connection.tls and self._node.tls is not None:
            connection.certified = self._node.tls.user_of(transport.get_extra_info("peercert"))
        connection.wake = self._wake
        self.id = self._node.socket_opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.connection is None:
            return  # one too many
        self.connection.lost()
        self._node.socket_closed(self)
        if self._parting is not None:
            self._parting.cancel()
        # No circles: a node that meets many short connections must not wait for the garbage collector.
        self.connection.wake = _nobody
        self._transport = None
        _log.info("connection %s of %s ended: %s", self.id, self.connection.peer, self.connection.reason)

    def data_received(self, data: bytes) -> None:
        connection = self.connection
        if connection is None:
            return
        try:
            connection.receive(data, self._node.now())
        except Exception:
            # A defect of ours met this client's input: the others must not suffer for it.
            _log.exception("connection %s of %s closed", self.id, connection.peer)
            connection.close(541, "INTERNAL_ERROR - see the node's log")
        self._wake()

    def _wake(self) -> None:
        self._node.socket_dirty(self)

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        self._node.socket_drained(self)
        self._wake()

    def flush(self) -> None:
        """Write the connection's output; follow its wish to be read or not."""
        connection, transport = self.connection, self._transport
        assert connection is not None  # noqa: S101  # made with the connection
        if transport is None:
            return
        output = connection.take_output()
        if output:
            transport.write(b"".join(output))
        if connection.ended:
            self._part(transport)
            return
        self._read(self._wanted())

    def _part(self, transport: asyncio.Transport) -> None:
        """Close this side and let the client close the other, throwing away what it still sends.

        To close a socket with octets unread resets the connection, and the client may never see the
        ``close-ok`` (or why it was closed) that is on its way.
        """
        if self._parting is not None or transport.is_closing():
            return
        if not transport.can_write_eof():
            transport.close()
            return
        self._read(True)
        transport.write_eof()
        self._parting = asyncio.get_running_loop().call_later(LINGER, transport.abort)

    def _wanted(self) -> bool:
        """Whether the client may go on talking. One that does not read what it is told may not for ever."""
        connection, transport = self.connection, self._transport
        assert connection is not None  # noqa: S101  # made with the connection
        assert transport is not None  # noqa: S101
        unread = self.congested and transport.get_write_buffer_size() > WRITE_LIMIT
        return not (connection.paused or self._held or unread)

    def hold(self, held: bool) -> None:
        """Stop reading (the node has more publishes than it can commit), or go on."""
        self._held = held
        if self.connection is not None and not self.connection.ended:
            self._read(self._wanted())

    def _read(self, wanted: bool) -> None:
        if wanted is self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = not wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()


def _nobody() -> None:
    """Whom a connection wakes whose socket is gone."""


def listening_hosts(host: str, port: int) -> list[str]:
    """``host``, and with it IPv6's loopback when ``host`` is IPv4's: clients that are told "localhost" may
    try either. Without it where the machine has no IPv6, or another program has the port there."""
    if host != "127.0.0.1":
        return [host]
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("::1", port))
    except OSError as error:
        _log.info("no listener on ::1, port %d: %s", port, error)
        return [host]
    return [host, "::1"]


def max_connections() -> int:
    """How many clients a node takes: ``MQ_MAX_CONNECTIONS``, by default what its file descriptors allow, with
    some left for the log and its peers, and ``MAX_CONNECTIONS`` at most."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    default = MAX_CONNECTIONS if descriptors < 0 else max(1, min(MAX_CONNECTIONS, descriptors * 4 // 5))
    return setting("MQ_MAX_CONNECTIONS", default, "connections")


def connection_settings() -> ConnectionSettings:
    """The limits of AMQP connections, with unguessable names for what the server names."""
    return ConnectionSettings(token=lambda: secrets.token_urlsafe(16))
