"""The keys that sign and encrypt backups.

With ``MQ_BACKUP_KEY`` in the environment, backups are encrypted and signed with keys derived from it, and can
be read wherever that is known. Without it they are signed with a key derived from this console's own secret.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from brokers.backups.errors import BackupError

VARIABLE: Final = "MQ_BACKUP_KEY"
SHORTEST: Final = 16
NONCE: Final = 12
OVERHEAD: Final = NONCE + 16
"""Bytes that encryption adds to a file."""


@dataclass(frozen=True, slots=True)
class Keys:
    """A key to sign with and perhaps one to encrypt with. ``id`` tells keys apart and says nothing of them."""

    id: str
    signing: bytes
    encrypting: bytes | None

    @classmethod
    def load(cls) -> Self:
        """The keys of this console. Raises BackupError when ``MQ_BACKUP_KEY`` is too short to be one."""
        phrase = os.environ.get(VARIABLE, "")
        if not phrase:
            return cls._derive(settings.SECRET_KEY.encode(), encrypts=False)
        if len(phrase) < SHORTEST:
            raise BackupError(
                f"{VARIABLE} has {len(phrase)} characters; use {SHORTEST} at least, best random ones: "
                f"openssl rand -base64 32"
            )
        return cls._derive(phrase.encode(), encrypts=True)

    @classmethod
    def _derive(cls, secret: bytes, *, encrypts: bool) -> Self:
        def key(purpose: str) -> bytes:
            return HKDF(SHA256(), 32, salt=None, info=f"mqconsole backup {purpose}".encode()).derive(secret)

        name = hmac.digest(key("name"), b"id", "sha256").hex()[:16]
        return cls(name, key("signature"), key("encryption") if encrypts else None)

    def sign(self, data: bytes) -> str:
        """HMAC-SHA-256, in hexadecimal."""
        return hmac.new(self.signing, data, hashlib.sha256).hexdigest()

    def signed(self, data: bytes, signature: str) -> bool:
        """Whether ``signature`` is what ``sign`` gives, in a time that doesn't depend on it."""
        return hmac.compare_digest(self.sign(data).encode(), signature.encode())

    def seal(self, data: bytes, label: str) -> bytes:
        """AES-256-GCM, bound to ``label``: a nonce, then what is encrypted. As it is without a key."""
        if self.encrypting is None:
            return data
        nonce = os.urandom(NONCE)
        return nonce + AESGCM(self.encrypting).encrypt(nonce, data, label.encode())

    def unseal(self, data: bytes, label: str) -> bytes:
        """What was sealed. Raises BackupError when it was sealed otherwise or changed since."""
        if self.encrypting is None:
            raise BackupError(f"{label} is encrypted: set {VARIABLE} to the key that it was made with")
        try:
            return AESGCM(self.encrypting).decrypt(data[:NONCE], data[NONCE:], label.encode())
        except (InvalidTag, ValueError) as error:
            raise BackupError(
                f"{label} can't be decrypted: it was changed, or made with another key"
            ) from error
