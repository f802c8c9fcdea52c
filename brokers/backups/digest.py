"""A digest of messages that doesn't depend on how they were cut into blocks."""

from __future__ import annotations

import hashlib
from array import array
from itertools import pairwise

from brokers.adapters.blocks import Block


class Digest:
    """SHA-256 over all messages in order (routes, properties, bodies) and over their lengths."""

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0
        self._content = hashlib.sha256()
        self._lengths = hashlib.sha256()

    def add(self, block: Block) -> None:
        """The next messages."""
        lengths = array("I", (end - start for start, end in pairwise((0, *block.ends))))
        self._content.update(block.data)
        self._lengths.update(lengths.tobytes())
        self.messages += len(block.ends)
        self.bytes += len(block.data)

    def hexdigest(self) -> str:
        """In hexadecimal."""
        return hashlib.sha256(self._content.digest() + self._lengths.digest()).hexdigest()
