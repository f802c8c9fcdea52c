"""The SASL mechanisms PLAIN (RFC 4616) and AMQPLAIN (of AMQP 0-8): user and password out of a response."""

from __future__ import annotations

from brokers.engine.core.amqp.errors import AmqpError, command_invalid, syntax_error
from brokers.engine.core.amqp.table import decode_table

MECHANISMS = ("PLAIN", "AMQPLAIN")
EXTERNAL = "EXTERNAL"
"""Offered besides to clients whose TLS certificate says who they are (RFC 4422, appendix A)."""


def credentials(mechanism: str, response: bytes) -> tuple[str, str]:
    """(user, password).

    Raises ``AmqpError``: 503 for a mechanism that was not offered, 502 for a malformed response. Its text
    never repeats the response: that holds the password.
    """
    if mechanism == "PLAIN":
        user, password = _plain(response)
    elif mechanism == "AMQPLAIN":
        user, password = _amqplain(response)
    else:
        raise command_invalid(f"unknown authentication mechanism '{mechanism}'")
    return user, password


def _plain(response: bytes) -> tuple[str, str]:
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise _invalid("PLAIN", "it takes three parts, separated by NUL octets")
    identity, raw_user, raw_password = parts
    if identity not in (b"", raw_user):
        raise _invalid("PLAIN", "acting as another user is not supported")
    try:
        return raw_user.decode(), raw_password.decode()
    except UnicodeDecodeError as exc:
        raise _invalid("PLAIN", "it is not UTF-8") from exc


def _amqplain(response: bytes) -> tuple[str, str]:
    sized = len(response).to_bytes(4, "big") + response
    table, _ = decode_table(sized, 0, len(sized))
    user, password = table.get("LOGIN"), table.get("PASSWORD")
    if not isinstance(user, str) or not isinstance(password, str):
        raise _invalid("AMQPLAIN", "it is missing the LOGIN or PASSWORD field")
    return user, password


def _invalid(mechanism: str, why: str) -> AmqpError:
    return syntax_error(f"response of authentication mechanism {mechanism} is invalid: {why}")
