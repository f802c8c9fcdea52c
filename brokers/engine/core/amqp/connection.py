"""A connection: bytes in, bytes out, and the state between the protocol header and the last ``close-ok``.

The driver (whoever owns the socket) calls ``receive``, ``tick`` and ``lost`` and writes what
``take_output`` returns; it closes the socket once ``ended`` is true and the output is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from brokers.engine.core.amqp import constants as c
from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.channel import Channel
from brokers.engine.core.amqp.control import control_frame
from brokers.engine.core.amqp.errors import AmqpError, channel_error, not_allowed
from brokers.engine.core.amqp.frames import HEARTBEAT, frame_not_expected, method_frame, unknown_frame
from brokers.engine.core.amqp.inbox import Inbox
from brokers.engine.core.amqp.sasl import EXTERNAL, MECHANISMS
from brokers.engine.core.amqp.scanner import scan
from brokers.engine.core.amqp.settings import ConnectionSettings
from brokers.engine.core.amqp.states import ConnectionState

if TYPE_CHECKING:
    from brokers.engine.core.amqp.port import Broker, Target
    from brokers.engine.core.amqp.table import Table

__all__ = ["Connection", "ConnectionSettings", "ConnectionState", "Counts"]

_NO_LIMIT = 2**32


@dataclass(slots=True)
class Counts:
    """Messages since the connection began."""

    publish: int = 0
    deliver: int = 0
    ack: int = 0


class Connection:
    """One client. ``now`` is monotonic seconds throughout."""

    def __init__(
        self,
        broker: Broker,
        settings: ConnectionSettings,
        *,
        peer: str,
        loopback: bool,
        tls: bool,
        now: float,
    ) -> None:
        self.broker = broker
        self.settings = settings
        self.peer = peer
        self.loopback = loopback
        self.tls = tls
        self.wake: Callable[[], None] = _nobody
        """Called when there is output, an end, or no more reason to pause, outside ``receive``."""
        self.state = ConnectionState.HEADER
        self.reason = ""
        """Why the connection ended, for the log."""
        self.user = ""
        self.vhost = ""
        self.mechanism = ""
        self.certified = ""
        """The user that the client's TLS certificate names, empty without one; set by the driver."""
        self.client_properties: Table = {}
        self.channels: dict[int, Channel] = {}
        self.routes: dict[bytes, Target] = {}
        self.counts = Counts()
        self.tune(settings.channel_max, c.FRAME_MIN_SIZE, 0)
        self.checked_header = b""
        """The last content header that was found sound."""
        self.out: list[bytes] = []
        self.stalled = False
        """The broker is asked something that all further input has to wait for."""
        self.assembling = 0
        """Octets of bodies half received."""
        self._waiting = 0
        self._inbox = Inbox()
        self._deaf = False
        self._quiet = False
        self._receiving = False
        self._released = False
        self._now = self._heard = self._sent = now
        self._deadline = now + settings.handshake_timeout

    def __repr__(self) -> str:
        return f"Connection({self.peer!r}, user={self.user!r}, {self.state.value})"

    def tune(self, channel_max: int, frame_max: int, heartbeat: int) -> None:
        """Set the limits in force; 0 is no limit, or no heartbeat."""
        self.channel_max = channel_max
        self.frame_max = frame_max
        self.heartbeat = heartbeat
        self.payload_limit = frame_max or _NO_LIMIT
        """The largest payload accepted; as RabbitMQ's, more lenient by a frame's overhead than it must be."""
        self.body_limit = min(self.payload_limit, self.settings.max_message_size)
        """The largest body taken in one piece."""

    # The driver's side.

    @property
    def ended(self) -> bool:
        """Write the output, then close the socket."""
        return self.state is ConnectionState.CLOSED

    @property
    def paused(self) -> bool:
        """Too much waits for the broker: do not read from the socket for now."""
        return self.stalled or self._waiting > self.settings.max_waiting

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the socket. Never raises for what a client sent."""
        self._now = self._heard = now
        if self._deaf or self.ended:
            return
        self._quiet = self._receiving = True
        try:
            self._inbox.add(data)
            if self._inbox.enough and not self.stalled:
                self._process()
        finally:
            self._receiving = False
            self._quiet = bool(self.out)

    def take_output(self) -> list[bytes]:
        """What to write to the socket; it is handed over once."""
        out = self.out
        if out:
            self.out = []
            self._sent = self._now
        self._quiet = self._receiving
        return out

    def tick(self, now: float) -> None:
        """Let time pass: heartbeats, a silent client, timeouts. Call it at least twice a heartbeat."""
        self._now = now
        if self.state is ConnectionState.RUNNING:
            if self.heartbeat:
                self._beat(now)
        elif not self.ended and now >= self._deadline:
            self.end(self.reason or f"timeout in state {self.state.value}")

    def _beat(self, now: float) -> None:
        if self.paused:
            self._heard = now  # what the client says is in the socket, unread
        if now - self._heard >= 2 * self.heartbeat:
            self.end(f"missed heartbeats from client, timeout: {self.heartbeat}s")
        elif now - self._sent >= self.heartbeat / 2:
            self._sent = now
            self.write(HEARTBEAT)

    def lost(self) -> None:
        """The socket is gone."""
        self.end(self.reason or "client unexpectedly closed TCP connection")

    def close(self, code: int, text: str) -> None:
        """Close from the server's side, e.g. ``close(320, "CONNECTION_FORCED - ...")`` at a shutdown."""
        self.fail(AmqpError(code, text, "connection"))

    def on_blocked(self, reason: str) -> None:
        """Tell the client that its publishes are held up, if it wants to know."""
        if self.state is ConnectionState.RUNNING and self.capable("connection.blocked"):
            self.send(m.ConnectionBlocked(reason))

    def on_unblocked(self) -> None:
        """Tell the client that its publishes are welcome again."""
        if self.state is ConnectionState.RUNNING and self.capable("connection.blocked"):
            self.send(m.ConnectionUnblocked())

    def capable(self, capability: str) -> bool:
        """Whether the client's properties claim a capability."""
        capabilities = self.client_properties.get("capabilities")
        return isinstance(capabilities, dict) and capabilities.get(capability) is True

    # Output.

    def send(self, method: m.Method) -> None:
        """Send a method on channel 0."""
        self.write(method_frame(0, method))

    def write(self, data: bytes) -> None:
        self.out.append(data)
        self.written()

    def written(self) -> None:
        """Output was added: the driver has to know, unless it will look anyway."""
        if not self._quiet:
            self._quiet = True
            self.wake()

    def _notify(self) -> None:
        if not self._receiving:
            self.wake()

    # Input.

    def _process(self) -> None:
        buf = self._inbox.take()
        if self.state is ConnectionState.HEADER:
            buf = self._protocol_header(buf)
        if not buf:
            return
        try:
            taken, need = scan(self, buf)
        except AmqpError as exc:
            self.fail(exc)
            self._deaf = True
            self._deadline = self._now + self.settings.silent_close_delay
            return
        if taken < len(buf) and not self.ended:
            self._inbox.keep(buf[taken:], need)

    def _protocol_header(self, buf: bytes) -> bytes:
        """Check the first octets; returns what follows them, if they are complete."""
        size = len(c.PROTOCOL_HEADER)
        if not c.PROTOCOL_HEADER.startswith(buf[:size]):
            self.write(c.PROTOCOL_HEADER)
            self.end(f"bad protocol header {buf[:size]!r}")
            return b""
        if len(buf) < size:
            self._inbox.keep(buf, size)
            return b""
        self.state = ConnectionState.STARTING
        properties = dict(self.broker.server_properties())
        self.send(m.ConnectionStart(0, 9, properties, self._mechanisms(), b"en_US"))
        return buf[size:]

    def _mechanisms(self) -> bytes:
        return " ".join((*MECHANISMS, EXTERNAL) if self.certified else MECHANISMS).encode()

    def frame(self, kind: int, number: int, payload: bytes) -> None:
        """Take one frame. What is wrong with it closes the channel or the connection."""
        channel = self.channels.get(number)
        try:
            if number == 0:
                control_frame(self, kind, payload)
            elif self.state is ConnectionState.RUNNING:
                if kind not in (c.FRAME_METHOD, c.FRAME_HEADER, c.FRAME_BODY):
                    raise (frame_not_expected if kind == c.FRAME_HEARTBEAT else unknown_frame)(kind, payload)
                if channel is None:
                    self._open_channel(number, kind, payload)
                else:
                    channel.frame(kind, payload)
            elif self.state is not ConnectionState.CLOSING:
                raise frame_not_expected(kind, payload)
        except AmqpError as exc:
            self.failed(exc, channel)

    def _open_channel(self, number: int, kind: int, payload: bytes) -> None:
        if kind != c.FRAME_METHOD or not isinstance(m.decode_method(payload), m.ChannelOpen):
            raise channel_error("expected 'channel.open'")
        if self.channel_max and len(self.channels) >= self.channel_max:
            raise not_allowed(
                f"number of channels opened ({len(self.channels)}) has reached the negotiated "
                f"channel_max ({self.channel_max})"
            ).during(m.ChannelOpen.class_id, m.ChannelOpen.method_id)
        self.channels[number] = Channel(self, number)
        self.write(method_frame(number, m.ChannelOpenOk()))

    def forget(self, channel: Channel) -> None:
        """A channel is closed on both sides."""
        if self.channels.get(channel.number) is channel:
            del self.channels[channel.number]

    def add_waiting(self, octets: int) -> None:
        """Count frames that wait behind an unanswered method (or no longer do)."""
        paused = self.paused
        self._waiting += octets
        if paused and not self.paused:
            self._notify()

    def stall(self) -> Callable[[], bool]:
        """Take no more input until the returned function was called; it says whether to go on at all.

        If so, ``proceed`` has to follow once what was waited for is done.
        """
        self.stalled = True

        def resume() -> bool:
            self.stalled = False
            if self.state is ConnectionState.CLOSING:
                self.proceed()  # a close-ok may have been waiting
            return self.state not in (ConnectionState.CLOSING, ConnectionState.CLOSED)

        return resume

    def proceed(self) -> None:
        """Go on with what arrived meanwhile, unless ``receive`` is about to do that itself."""
        if not self._receiving:
            if self._inbox and not self._deaf:
                self._process()
            self._notify()

    # Errors and the end.

    def failed(self, exc: AmqpError, channel: Channel | None) -> None:
        """Close what ``exc`` says: ``channel`` or the connection."""
        if exc.scope == "channel" and channel is not None:
            channel.fail(exc)
        else:
            self.fail(exc)

    def refuse(self, exc: AmqpError) -> None:
        """The login failed. Clients that do not expect a method here just see the socket close, later."""
        if self.capable("authentication_failure_close"):
            self.fail(exc)
            return
        self._closing(exc, self.settings.silent_close_delay)
        self._deaf = True

    def fail(self, exc: AmqpError) -> None:
        """Send ``connection.close`` and wait for ``close-ok``, ignoring all else."""
        if self.ended or self.state is ConnectionState.CLOSING:
            return
        if self.state is ConnectionState.HEADER:
            self.end(str(exc))
            return
        self._closing(exc, self.settings.close_timeout)
        self.send(m.ConnectionClose(exc.code, exc.reply_text(), exc.class_id, exc.method_id))

    def _closing(self, exc: AmqpError, timeout: float) -> None:
        self._release()
        self.state = ConnectionState.CLOSING
        self.reason = str(exc)
        self._deadline = self._now + timeout

    def closed_by_client(self, method: m.ConnectionClose) -> None:
        """The client is done."""
        self.reason = self.reason or f"closed by client: {method.reply_code} {method.reply_text}"
        self._release()
        self.state = ConnectionState.CLOSING
        self._deadline = self._now + self.settings.close_timeout

        def departed() -> None:
            if not self.ended:
                self.send(m.ConnectionCloseOk())
                self.end(self.reason)

        self.broker.departed(self, departed)

    def end(self, reason: str) -> None:
        """Nothing comes and nothing goes any more, but for the output there is."""
        if self.ended:
            return
        self.reason = reason
        self._release()
        self.state = ConnectionState.CLOSED
        self._inbox.clear()
        self._notify()

    def _release(self) -> None:
        if self._released:
            return
        self._released = True
        for channel in list(self.channels.values()):
            channel.close()
        self.channels.clear()
        self.routes.clear()
        self.broker.closed(self)


def _nobody() -> None:
    """Nobody to wake: the driver has not set ``wake`` yet."""
