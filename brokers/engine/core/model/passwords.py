"""Password hashes: scrypt (RFC 7914), with parameters and salt in the text.

A hash takes tens of milliseconds and 16 MiB by design: callers with an event loop compute it elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import NamedTuple

COST = 2**14
BLOCK_SIZE = 8
PARALLELISM = 1
SALT_BYTES = 16

_KEY_BYTES = 32
_MAX_COST = 2**20
_MAX_MEMORY = 256 * 1024 * 1024


class PasswordHash(NamedTuple):
    """A parsed ``scrypt$n$r$p$salt$key``; salt and key in base64."""

    cost: int
    block_size: int
    parallelism: int
    salt: bytes
    key: bytes

    def __str__(self) -> str:
        salt, key = (base64.b64encode(part).decode("ascii") for part in (self.salt, self.key))
        return f"scrypt${self.cost}${self.block_size}${self.parallelism}${salt}${key}"


def parse(text: str) -> PasswordHash:
    """Read a hash. Raises ``ValueError`` when it is none, or would cost more than this program allows."""
    parts = text.split("$")
    if len(parts) != 6 or parts[0] != "scrypt":
        raise ValueError("not a password hash of the form scrypt$n$r$p$salt$key")
    try:
        cost, block_size, parallelism = (int(part) for part in parts[1:4])
        salt, key = (base64.b64decode(part, validate=True) for part in parts[4:])
    except (ValueError, binascii.Error) as error:
        raise ValueError(f"malformed password hash: {error}") from error
    if not (1 < cost <= _MAX_COST and cost & (cost - 1) == 0):
        raise ValueError(f"password hash with cost {cost}: must be a power of two up to {_MAX_COST}")
    if not (1 <= block_size <= 32 and 1 <= parallelism <= 16):
        raise ValueError(f"password hash with block size {block_size}, parallelism {parallelism}: too large")
    if 128 * cost * block_size > _MAX_MEMORY:
        raise ValueError(f"password hash would need {128 * cost * block_size} bytes: limit is {_MAX_MEMORY}")
    if not key:
        raise ValueError("password hash without a key")
    return PasswordHash(cost, block_size, parallelism, salt, key)


def hash_password(password: str, salt: bytes, cost: int = COST) -> str:
    """Hash ``password``. ``salt`` should be ``SALT_BYTES`` fresh random bytes."""
    key = _derive(password, salt, cost, BLOCK_SIZE, PARALLELISM, _KEY_BYTES)
    return str(PasswordHash(cost, BLOCK_SIZE, PARALLELISM, salt, key))


def verify_password(password: str, stored: str) -> bool:
    """Whether ``password`` is the one of ``stored``, compared in constant time.

    An empty ``stored`` (a user without password) and an empty ``password`` never match. For a user that
    does not exist, verify against ``NOBODY``, so that the answer takes as long. Raises ``ValueError`` for
    a malformed ``stored``.
    """
    if not stored:
        return False
    parsed = parse(stored)
    key = _derive(password, parsed.salt, parsed.cost, parsed.block_size, parsed.parallelism, len(parsed.key))
    return hmac.compare_digest(key, parsed.key) and password != ""


def _derive(password: str, salt: bytes, cost: int, block_size: int, parallelism: int, length: int) -> bytes:
    secret = password.encode("utf-8", "surrogateescape")
    memory = 128 * block_size * (cost + parallelism + 2)
    return hashlib.scrypt(secret, salt=salt, n=cost, r=block_size, p=parallelism, maxmem=memory, dklen=length)


NOBODY = str(PasswordHash(COST, BLOCK_SIZE, PARALLELISM, bytes(SALT_BYTES), bytes(_KEY_BYTES)))
"""A hash that no password has; verifying against it costs as much as against a real one."""
