"""Who may log in: passwords, client certificates, and what failed attempts cost."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from brokers.engine.core.amqp import errors
from brokers.engine.core.amqp.connection import Connection
from brokers.engine.core.amqp.errors import AmqpError
from brokers.engine.core.amqp.sasl import EXTERNAL
from brokers.engine.core.model.metadata import Metadata
from brokers.engine.core.model.passwords import NOBODY, verify_password
from brokers.engine.core.model.throttle import LoginThrottle

LOOPBACK_USERS = frozenset({"guest"})
MAX_VERIFIED = 10_000

Done = Callable[[AmqpError | None], None]

_log = logging.getLogger(__name__)


class Logins:
    """One for all connections of a node. Hashes are computed off the loop; what was right once is remembered,
    as long as the user's hash stays."""

    def __init__(self, metadata: Metadata, loop: asyncio.AbstractEventLoop) -> None:
        self._metadata = metadata
        self._loop = loop
        self._throttle = LoginThrottle()
        self._verified: dict[str, bytes] = {}
        self._verify_key = secrets.token_bytes(32)
        self._hashing = ThreadPoolExecutor(1, "password")
        """One thread: a hash takes 16 MiB, and strangers must not multiply that."""

    def check(self, connection: Connection, user: str, password: str, done: Done) -> None:
        """``done(None)`` when ``user`` is who it says, else ``done(error)``, perhaps after a while."""
        if user in LOOPBACK_USERS and not connection.loopback:
            self._refuse(connection, user, "loopback only", done)
            return
        wait = self._throttle.begin(user, _address(connection), self._loop.time())
        if wait is None:
            self._refuse(connection, user, "too many failed attempts", done)
        elif wait:
            self._loop.call_later(wait, self._look, connection, user, password, done)
        else:
            self._look(connection, user, password, done)

    def _look(self, connection: Connection, user: str, password: str, done: Done) -> None:
        known = self._metadata.state.users.get(user)
        if connection.mechanism == EXTERNAL:
            if known is not None:
                done(None)
            else:
                self._fail(connection, user, "no such user", done)
            return
        stored = known.password_hash if known is not None and known.password_hash else NOBODY
        proof = hmac.digest(self._verify_key, f"{user}\0{stored}\0{password}".encode(), "sha256")
        if hmac.compare_digest(self._verified.get(user, b""), proof):
            self._throttle.succeeded(user, _address(connection))
            done(None)
            return

        def verified(future: asyncio.Future[bool]) -> None:
            error = future.exception()
            if error is not None:
                _log.error("password hash of %r cannot be checked: %s", user, error)
            if error is None and future.result():
                if len(self._verified) >= MAX_VERIFIED:
                    self._verified.clear()
                self._verified[user] = proof
                self._throttle.succeeded(user, _address(connection))
                done(None)
            else:
                self._fail(connection, user, "wrong user or password", done)

        self._loop.run_in_executor(self._hashing, verify_password, password, stored).add_done_callback(
            verified
        )

    def _fail(self, connection: Connection, user: str, why: str, done: Done) -> None:
        self._throttle.failed(user, _address(connection), self._loop.time())
        self._refuse(connection, user, why, done)

    def _refuse(self, connection: Connection, user: str, why: str, done: Done) -> None:
        _log.warning("login of %r from %s refused: %s", user, connection.peer, why)
        done(errors.login_refused(connection.mechanism))


def _address(connection: Connection) -> str:
    """The client's address without its port."""
    return connection.peer.partition(" -> ")[0].rpartition(":")[0]
