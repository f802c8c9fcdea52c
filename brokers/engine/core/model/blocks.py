"""How a queue's messages travel out of a cluster and back in: blocks of raw messages, as in its log.

A block is ``>QQII`` (position of the first message, the leader's stamp in ms since 1970, count, bytes of the
messages), then the ends of the messages (u32 each, relative to the first one's start), then the messages as
``entries`` lays them out. Backups consist of such blocks, so they can be read without this program's help.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from struct import error as StructError
from typing import NamedTuple

_head = Struct(">QQII")
_prefix = Struct(">HI")

MAX_BLOCK = 512 << 20
"""Bytes of the largest block that is taken for one; batches and messages are far smaller."""


class Block(NamedTuple):
    """Messages with the positions ``first`` and following, published together at ``stamp`` (ms)."""

    first: int
    stamp: int
    ends: Sequence[int]
    data: bytes

    def encode(self) -> bytes:
        """As it travels."""
        head = _head.pack(self.first, self.stamp, len(self.ends), len(self.data))
        return b"".join((head, Struct(f">{len(self.ends)}I").pack(*self.ends), self.data))


class BlockReader:
    """Cuts a stream of blocks that comes in pieces of any size."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Block]:
        """The blocks that are whole now. Raises ``ValueError`` for what is no stream of blocks."""
        self._data += data
        found = []
        at = 0
        while len(self._data) - at >= _head.size:
            first, stamp, count, size = _head.unpack_from(self._data, at)
            if size > MAX_BLOCK or count > size:
                raise ValueError(f"no block of messages: {count} messages in {size} bytes")
            table = at + _head.size
            start = table + 4 * count
            if len(self._data) < start + size:
                break
            ends = Struct(f">{count}I").unpack_from(self._data, table)
            found.append(Block(first, stamp, ends, bytes(self._data[start : start + size])))
            check(found[-1])
            at = start + size
        del self._data[:at]
        return found

    def finish(self) -> None:
        """The stream is over. Raises ``ValueError`` when that is in the middle of a block."""
        if self._data:
            raise ValueError(f"{len(self._data)} bytes of an incomplete block at the end")


def check(block: Block) -> None:
    """Raises ``ValueError`` unless the table of ends and all messages' own lengths agree."""
    start = 0
    try:
        for end in block.ends:
            route, header = _prefix.unpack_from(block.data, start)
            start += _prefix.size + route + header
            if not start <= end <= len(block.data):
                raise ValueError(f"a message of the block at position {block.first} does not fit its length")
            start = end
    except StructError as error:
        raise ValueError(f"the block at position {block.first} is cut off") from error
    if start != len(block.data):
        raise ValueError(f"the block at position {block.first} has {len(block.data) - start} bytes too many")
