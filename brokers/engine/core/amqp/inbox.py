"""Bytes that arrived and could not be taken yet."""

from __future__ import annotations

_MAX_PIECES = 64
"""Joined before there are more: small pieces cost more than what is in them."""


class Inbox:
    """The beginning of a frame (or of what has to wait), and how much is needed before it can be taken."""

    __slots__ = ("_have", "_need", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = 1

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, data: bytes) -> None:
        self._pieces.append(data)
        self._have += len(data)
        if len(self._pieces) > _MAX_PIECES:
            self._pieces = [b"".join(self._pieces)]

    @property
    def enough(self) -> bool:
        return self._have >= self._need

    def take(self) -> bytes:
        """All of it; nothing is left."""
        pieces = self._pieces
        self.clear()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def keep(self, rest: bytes, need: int) -> None:
        """Put back what could not be taken; ``need`` octets of it and what follows are worth a try."""
        self._pieces, self._have, self._need = [rest], len(rest), need

    def clear(self) -> None:
        self._pieces, self._have, self._need = [], 0, 1
