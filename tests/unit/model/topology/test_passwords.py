"""Password hashes."""

from __future__ import annotations

import pytest

from brokers.engine.core.model.passwords import NOBODY, hash_password, parse, verify_password

SALT = bytes(range(16))


def test_verify() -> None:
    stored = hash_password("secret", SALT, cost=16)
    assert verify_password("secret", stored)
    assert not verify_password("Secret", stored)
    assert stored != hash_password("secret", bytes(16), cost=16)
    assert "secret" not in stored


def test_known_answer() -> None:
    """RFC 7914, section 12, second vector, cut to 32 octets."""
    stored = "scrypt$1024$8$16$TmFDbA==$/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWI="
    assert verify_password("password", stored)


def test_no_password_matches_nothing() -> None:
    assert not verify_password("", "")
    assert not verify_password("x", "")
    assert not verify_password("", hash_password("", SALT, cost=16))


def test_nobody_has_this_one() -> None:
    assert not verify_password("guest", NOBODY)
    assert parse(NOBODY).cost == parse(hash_password("x", SALT)).cost


def test_odd_octets_survive() -> None:
    password = b"\xff\x00".decode("utf-8", "surrogateescape")
    assert verify_password(password, hash_password(password, SALT, cost=16))


@pytest.mark.parametrize(
    "stored",
    [
        "plain",
        "md5$16$8$1$c2FsdA==$a2V5",
        "scrypt$sixteen$8$1$c2FsdA==$a2V5",
        "scrypt$17$8$1$c2FsdA==$a2V5",
        "scrypt$1073741824$8$1$c2FsdA==$a2V5",
        "scrypt$1048576$32$1$c2FsdA==$a2V5",
        "scrypt$16$8$99$c2FsdA==$a2V5",
        "scrypt$16$8$1$?$a2V5",
        "scrypt$16$8$1$c2FsdA==$",
    ],
)
def test_what_is_no_hash_is_refused_before_any_work(stored: str) -> None:
    with pytest.raises(ValueError, match="password hash"):
        verify_password("x", stored)
