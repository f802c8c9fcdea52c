"""Channel 0: who the client is, what both sides agree on, and the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.constants import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_MIN_SIZE,
)
from brokers.engine.core.amqp.errors import AmqpError, channel_error, not_allowed
from brokers.engine.core.amqp.frames import frame_not_expected, unknown_frame
from brokers.engine.core.amqp.sasl import EXTERNAL, credentials
from brokers.engine.core.amqp.states import ConnectionState

if TYPE_CHECKING:
    from brokers.engine.core.amqp.connection import Connection


def control_frame(connection: Connection, kind: int, payload: bytes) -> None:
    """Take a frame of channel 0. Raises ``AmqpError``."""
    if kind == FRAME_METHOD:
        _control_method(connection, m.decode_method(payload))
    elif kind != FRAME_HEARTBEAT and connection.state is not ConnectionState.CLOSING:
        raise (frame_not_expected if kind in (FRAME_HEADER, FRAME_BODY) else unknown_frame)(kind, payload)


def _control_method(connection: Connection, method: m.Method) -> None:
    state = connection.state
    if isinstance(method, m.ConnectionClose):
        connection.closed_by_client(method)
    elif state is ConnectionState.CLOSING:
        if isinstance(method, m.ConnectionCloseOk):
            connection.end(connection.reason)
    elif isinstance(method, m.ConnectionStartOk) and state is ConnectionState.STARTING:
        _start_ok(connection, method)
    elif isinstance(method, m.ConnectionTuneOk) and state is ConnectionState.TUNING:
        _tune_ok(connection, method)
    elif isinstance(method, m.ConnectionOpen) and state is ConnectionState.OPENING:
        _open(connection, method)
    elif isinstance(method, m.ConnectionUpdateSecret) and state is ConnectionState.RUNNING:
        connection.send(m.ConnectionUpdateSecretOk())  # passwords do not expire: nothing to renew
    else:
        raise channel_error(f"unexpected method in connection state {state.value}").during(
            method.class_id, method.method_id
        )


def _start_ok(connection: Connection, method: m.ConnectionStartOk) -> None:
    """Check the password; ``connection.tune`` follows, now or later."""
    connection.client_properties = method.client_properties
    connection.mechanism = method.mechanism
    if method.mechanism == EXTERNAL and connection.certified:
        user, password = connection.certified, ""
    else:
        user, password = credentials(method.mechanism, method.response)
    resume = connection.stall()

    def done(refusal: AmqpError | None) -> None:
        if not resume():
            return
        if refusal is None:
            settings = connection.settings
            connection.user = user
            connection.state = ConnectionState.TUNING
            connection.send(m.ConnectionTune(settings.channel_max, settings.frame_max, settings.heartbeat))
        else:
            connection.refuse(refusal)
        connection.proceed()

    connection.broker.authenticate(connection, user, password, done)


def _tune_ok(connection: Connection, method: m.ConnectionTuneOk) -> None:
    """Take what the client chose. Raises ``AmqpError`` 530 when that is out of bounds."""
    settings = connection.settings
    _check("frame_max", method.frame_max, FRAME_MIN_SIZE, settings.frame_max)
    _check("channel_max", method.channel_max, 1, settings.channel_max)
    connection.tune(method.channel_max, method.frame_max, method.heartbeat)
    connection.state = ConnectionState.OPENING


def _check(name: str, chosen: int, lowest: int, highest: int) -> None:
    """``highest`` 0 and ``chosen`` 0 both mean no limit."""
    unlimited = " (no limit)" if chosen == 0 else ""
    if chosen and chosen < lowest:
        relation, bound = "lower than the minimum", lowest
    elif highest and (not chosen or chosen > highest):
        relation, bound = "higher than the maximum", highest
    else:
        return
    raise not_allowed(f"negotiated {name} = {chosen}{unlimited} is {relation} allowed value ({bound})")


def _open(connection: Connection, method: m.ConnectionOpen) -> None:
    """Enter the virtual host; ``connection.open-ok`` follows, now or later."""
    resume = connection.stall()

    def done(refusal: AmqpError | None) -> None:
        if not resume():
            return
        if refusal is None:
            connection.vhost = method.virtual_host
            connection.state = ConnectionState.RUNNING
            connection.send(m.ConnectionOpenOk())
        else:
            connection.fail(refusal.during(method.class_id, method.method_id))
        connection.proceed()

    connection.broker.open(connection, method.virtual_host, done)
