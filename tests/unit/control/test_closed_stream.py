"""Writing to a connection that is closed already (uvloop's transports raise RuntimeError for it)."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from brokers.engine.control.protocol import LineStream


class ClosedWriter:
    """As much of a ``StreamWriter`` as it takes, over a closed uvloop transport."""

    def is_closing(self) -> bool:
        return True

    def get_extra_info(self, name: str) -> tuple[str, int]:
        return ("127.0.0.1", 1)

    def write(self, data: bytes) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")


def test_a_closed_connection_is_an_os_error() -> None:
    stream = LineStream(
        asyncio.StreamReader(loop=asyncio.new_event_loop()), cast(asyncio.StreamWriter, ClosedWriter())
    )
    with pytest.raises(ConnectionResetError):
        asyncio.run(stream.write_line(b"{}\n"))
