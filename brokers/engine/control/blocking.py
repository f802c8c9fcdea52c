"""The control API for code that blocks: views, tasks, commands."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Any, Final, Self

from brokers.engine.config import ClusterConfig
from brokers.engine.control import auth
from brokers.engine.control.failover import (
    CALL_TIMEOUT,
    CONNECT_TIMEOUT,
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
    ControlError,
    LineBuffer,
    check_version,
    decode,
    encode,
)

_CHUNK: Final = 256 * 1024


class SyncControlClient:
    """Blocking calls. Each has a connection of its own: safe to share between threads and after a fork."""

    def __init__(self, endpoints: Sequence[Endpoint], secret: bytes) -> None:
        self._nodes = Nodes(endpoints)
        self._secret = secret

    @classmethod
    def from_config(cls, config: ClusterConfig) -> Self:
        """A client of the cluster that ``config`` describes. Raises ConfigError without its secret."""
        return cls(endpoints_of(config), config.secret())

    def call(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        node: str | None = None,
        timeout: float = CALL_TIMEOUT,
    ) -> Any:
        """As ``ControlClient.call``."""
        lost: list[Lost] = []
        for endpoint in self._nodes.candidates(node):
            try:
                result = self._call(endpoint, method, params or {}, timeout)
            except Lost as loss:
                lost.append(loss)
                if not may_go_on(method, loss):
                    break
            else:
                self._nodes.answered(endpoint)
                return result
        raise give_up(method, lost)

    def _call(self, endpoint: Endpoint, method: str, params: dict[str, Any], within: float) -> Any:
        sent = False
        try:
            with socket.create_connection((endpoint.host, endpoint.port), CONNECT_TIMEOUT) as connection:
                lines = _BlockingLines(connection)
                lines.deadline = time.monotonic() + CONNECT_TIMEOUT
                handshake = auth.ClientHandshake(self._secret, auth.CONTROL)
                lines.write(handshake.answer(lines.read()))
                handshake.finish(lines.read())
                lines.deadline = time.monotonic() + within
                line = encode({"v": VERSION, "id": 1, "method": method, "params": params})
                sent = True
                lines.write(line)
                message = decode(lines.read())
                check_version(message)
        except TimeoutError:
            why = f"no answer within {within if sent else CONNECT_TIMEOUT:g} s"
            raise Lost(endpoint, why, sent=sent) from None
        except (ControlError, EOFError, OSError) as error:
            raise Lost(endpoint, reason_of(error), sent=sent) from error
        return result_of(message)


class _BlockingLines:
    """Lines over a blocking socket, all before ``deadline`` (monotonic seconds)."""

    def __init__(self, connection: socket.socket) -> None:
        self.deadline = 0.0
        self._connection = connection
        self._buffer = LineBuffer()

    def read(self) -> bytes:
        while (line := self._buffer.next_line()) is None:
            self._connection.settimeout(self._left())
            data = self._connection.recv(_CHUNK)
            if not data:
                raise EOFError("the node closed the connection")
            self._buffer.feed(data)
        return line

    def write(self, line: bytes) -> None:
        self._connection.settimeout(self._left())
        self._connection.sendall(line)

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left
