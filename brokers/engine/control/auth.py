"""Mutual proof that both ends of a connection know the cluster's secret, without sending it.

A challenge-response with HMAC-SHA256 (RFC 2104) in three lines, the server's first::

    S: {"v": 1, "role": "control", "nonce": hex, "hello": {...}}
    C: {"v": 1, "role": "control", "nonce": hex, "hello": {...}, "proof": hex}
    S: {"v": 1, "proof": hex}    or    {"v": 1, "error": {"code", "text"}}

A proof is HMAC(secret, label || 0 || server nonce || client nonce || SHA-256(server hello) ||
SHA-256(client hello)); the label is the role and the side ("control client"), so a proof made for one role or
side is worthless for another, and the hellos (who I am) cannot be altered on the way. Nonces are 32 random
bytes.

The two classes do no I/O: the control API, its blocking client and the peer links drive them each in its way.
What follows the handshake is neither encrypted nor signed: listeners bind loopback.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
from typing import Any, Final

from brokers.engine.control.protocol import (
    AUTH,
    TIMEOUT,
    ControlError,
    LineStream,
    check_version,
    decode,
    encode,
)

CONTROL: Final = "control"
"""The role of the console, the command line and tests."""
PEER: Final = "peer"
"""The role of a link between two nodes."""

HANDSHAKE_TIMEOUT: Final = 5.0
"""Seconds the whole handshake may take."""
MAX_HANDSHAKE_LINE: Final = 4096
"""Bytes a stranger may make us hold."""
NONCE_BYTES: Final = 32


class ServerHandshake:
    """The accepting side: send ``challenge``, hand the answer to ``receive``, send what that gives."""

    def __init__(self, secret: bytes, role: str, hello: dict[str, Any] | None = None) -> None:
        self._secret = secret
        self._role = role
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._hello = hello or {}
        self.client_hello: dict[str, Any] = {}
        """What the client says of itself; only to be believed once ``receive`` has returned."""

    def challenge(self) -> bytes:
        """The first line."""
        return encode({"v": 1, "role": self._role, "nonce": self._nonce.hex(), "hello": self._hello})

    def receive(self, line: bytes) -> bytes:
        """The last line, which proves this side to the client.

        Raises ControlError (``auth``, ``version``, ``bad-request``) when the client has not proved itself;
        send ``refusal(error)`` and close.
        """
        message = decode(line)
        check_version(message)
        _check_role(message, self._role)
        nonce, proof, hello = _nonce(message), _proof(message), _hello(message)
        transcript = _transcript(self._nonce, nonce, self._hello, hello)
        if not hmac.compare_digest(proof, _mac(self._secret, f"{self._role} client", transcript)):
            raise ControlError(
                AUTH, "the client does not know this cluster's secret (MQ_HOME/cluster/secret)"
            )
        self.client_hello = hello
        return encode({"v": 1, "proof": _mac(self._secret, f"{self._role} server", transcript).hex()})

    @staticmethod
    def refusal(error: ControlError) -> bytes:
        """The last line when the client is turned away."""
        return encode({"v": 1, "error": error.as_dict()})


class ClientHandshake:
    """The connecting side: hand the challenge to ``answer``, send what it gives, then ``finish``."""

    def __init__(self, secret: bytes, role: str, hello: dict[str, Any] | None = None) -> None:
        self._secret = secret
        self._role = role
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._hello = hello or {}
        self._expected = b""
        self.server_hello: dict[str, Any] = {}
        """What the server says of itself; only to be believed once ``finish`` has returned."""

    def answer(self, line: bytes) -> bytes:
        """The line that proves this side. Raises ControlError when the challenge is not one for this role."""
        message = decode(line)
        if "error" in message:
            raise ControlError.from_wire(message["error"])
        check_version(message)
        _check_role(message, self._role)
        nonce, self.server_hello = _nonce(message), _hello(message)
        transcript = _transcript(nonce, self._nonce, self.server_hello, self._hello)
        self._expected = _mac(self._secret, f"{self._role} server", transcript)
        return encode(
            {
                "v": 1,
                "role": self._role,
                "nonce": self._nonce.hex(),
                "hello": self._hello,
                "proof": _mac(self._secret, f"{self._role} client", transcript).hex(),
            }
        )

    def finish(self, line: bytes) -> None:
        """Raises ControlError when the server turned us away or has not proved itself."""
        message = decode(line)
        if "error" in message:
            raise ControlError.from_wire(message["error"])
        check_version(message)
        if not self._expected or not hmac.compare_digest(_proof(message), self._expected):
            raise ControlError(
                AUTH, "the server does not know this cluster's secret; is the port another cluster's?"
            )


async def serve_handshake(
    stream: LineStream,
    secret: bytes,
    role: str,
    hello: dict[str, Any] | None = None,
    within: float = HANDSHAKE_TIMEOUT,
) -> dict[str, Any]:
    """Authenticate who connected; gives its hello.

    Raises ControlError when it failed (the client has been told why), EOFError or OSError when it left.
    """
    handshake = ServerHandshake(secret, role, hello)
    longest, stream.buffer.max_line = stream.buffer.max_line, MAX_HANDSHAKE_LINE
    try:
        async with asyncio.timeout(within):
            await stream.write_line(handshake.challenge())
            try:
                reply = handshake.receive(await stream.read_line())
            except ControlError as error:
                await stream.write_line(handshake.refusal(error))
                raise
            await stream.write_line(reply)
    except TimeoutError:
        raise ControlError(TIMEOUT, f"{stream.peer} did not authenticate within {within:g} s") from None
    stream.buffer.max_line = longest
    return handshake.client_hello


async def join_handshake(
    stream: LineStream,
    secret: bytes,
    role: str,
    hello: dict[str, Any] | None = None,
    within: float = HANDSHAKE_TIMEOUT,
) -> dict[str, Any]:
    """Authenticate to the server this stream leads to, and it to us; gives its hello.

    Raises ControlError when either proof failed or took too long, EOFError or OSError when it left.
    """
    handshake = ClientHandshake(secret, role, hello)
    longest, stream.buffer.max_line = stream.buffer.max_line, MAX_HANDSHAKE_LINE
    try:
        async with asyncio.timeout(within):
            await stream.write_line(handshake.answer(await stream.read_line()))
            handshake.finish(await stream.read_line())
    except TimeoutError:
        raise ControlError(TIMEOUT, f"{stream.peer} did not authenticate within {within:g} s") from None
    stream.buffer.max_line = longest
    return handshake.server_hello


def _mac(secret: bytes, label: str, transcript: bytes) -> bytes:
    return hmac.digest(secret, label.encode() + b"\0" + transcript, "sha256")


def _transcript(
    server: bytes, client: bytes, server_hello: dict[str, Any], client_hello: dict[str, Any]
) -> bytes:
    return server + client + _digest(server_hello) + _digest(client_hello)


def _digest(hello: dict[str, Any]) -> bytes:
    canonical = json.dumps(hello, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(canonical).digest()


def _check_role(message: dict[str, Any], role: str) -> None:
    other = message.get("role")
    if other != role:
        raise ControlError(
            AUTH, f"this is a {role} connection, the other side wants {other!r:.40}; is the port right?"
        )


def _nonce(message: dict[str, Any]) -> bytes:
    return _hex(message, "nonce", NONCE_BYTES)


def _proof(message: dict[str, Any]) -> bytes:
    return _hex(message, "proof", hashlib.sha256().digest_size)


def _hex(message: dict[str, Any], key: str, size: int) -> bytes:
    text = message.get(key)
    try:
        value = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        value = b""
    if len(value) != size:
        raise ControlError(
            AUTH, f"the handshake's {key!r} must be {size} bytes in hexadecimal, not {text!r:.80}"
        )
    return value


def _hello(message: dict[str, Any]) -> dict[str, Any]:
    hello = message.get("hello", {})
    if not isinstance(hello, dict):
        raise ControlError(AUTH, f"the handshake's 'hello' must be an object, not {hello!r:.80}")
    return hello
