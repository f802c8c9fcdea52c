"""A client that costs next to nothing, so that a benchmark measures the broker: blocking sockets, prepared
frames, acks and confirms counted in the raw bytes."""

from __future__ import annotations

import socket
import struct

_HEAD = struct.Struct(">BHI")
END = b"\xce"
BODY_FRAME = 131_000
"""Bytes of body in one frame."""


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """One frame."""
    return _HEAD.pack(kind, channel, len(payload)) + payload + END


def method(class_id: int, method_id: int, arguments: bytes = b"", channel: int = 1) -> bytes:
    """One method frame."""
    return frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments)


def short(text: str) -> bytes:
    """A short string."""
    raw = text.encode()
    return bytes((len(raw),)) + raw


def long(raw: bytes) -> bytes:
    """A long string or table."""
    return struct.pack(">I", len(raw)) + raw


class RawClient:
    """A connection with channel 1 open."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._ahead: list[tuple[int, bytes]] = []
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self.expect(10, 10)
        plain = b"\x00guest\x00guest"
        self.socket.sendall(method(10, 11, long(b"") + short("PLAIN") + long(plain) + short("en_US"), 0))
        self.expect(10, 30)
        self.socket.sendall(method(10, 31, struct.pack(">HIH", 2047, 131072, 0), 0))
        self.socket.sendall(method(10, 40, short("/") + short("") + b"\x00", 0))
        self.expect(10, 41)
        self.call(20, 10, short(""), 20, 11)

    def call(self, class_id: int, method_id: int, arguments: bytes, reply_class: int, reply: int) -> bytes:
        """Send a method and wait for its answer."""
        self.socket.sendall(method(class_id, method_id, arguments))
        return self.expect(reply_class, reply)

    def declare(self, queue: str, arguments: bytes = b"") -> None:
        """Declare a durable queue."""
        self.call(50, 10, b"\x00\x00" + short(queue) + b"\x02" + long(arguments), 50, 11)

    def confirm(self) -> None:
        """confirm.select"""
        self.call(85, 10, b"\x00", 85, 11)

    def consume(self, queue: str, prefetch: int) -> None:
        """basic.qos and basic.consume."""
        self.call(60, 10, struct.pack(">IHB", 0, prefetch, 0), 60, 11)
        self.socket.sendall(method(60, 20, b"\x00\x00" + short(queue) + short("c") + b"\x00" + long(b"")))
        self.expect(60, 21)

    def publish_frames(self, queue: str, body: bytes, persistent: bool = True) -> bytes:
        """The frames of one basic.publish to the default exchange."""
        properties = b"\x10\x00\x02" if persistent else b"\x00\x00"
        header = struct.pack(">HHQ", 60, 0, len(body)) + properties
        publish = b"\x00\x00" + short("") + short(queue) + b"\x00"
        pieces = [frame(3, 1, body[at : at + BODY_FRAME]) for at in range(0, len(body), BODY_FRAME)]
        return b"".join((method(60, 40, publish), frame(2, 1, header), *pieces))

    def frames(self) -> list[tuple[int, bytes]]:
        """Frames that came in one read: (kind, payload)."""
        if self._ahead:
            ahead, self._ahead = self._ahead, []
            return ahead
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the broker closed the connection")
        buffer = self._buffer + data
        found = []
        at = 0
        while len(buffer) - at >= 8:
            kind, _, size = _HEAD.unpack_from(buffer, at)
            if len(buffer) - at < size + 8:
                break
            found.append((kind, buffer[at + 7 : at + 7 + size]))
            at += size + 8
        self._buffer = buffer[at:]
        return found

    def expect(self, class_id: int, method_id: int) -> bytes:
        """Wait for a method; its arguments. Raises ``RuntimeError`` when another comes."""
        while True:
            frames = self.frames()
            for at, (kind, payload) in enumerate(frames, 1):
                if kind == 8:
                    continue
                got = struct.unpack_from(">HH", payload)
                if kind != 1 or got != (class_id, method_id):
                    raise RuntimeError(f"expected {class_id}.{method_id}, got {got}: {payload[4:]!r}")
                self._ahead = frames[at:]
                return payload[4:]
