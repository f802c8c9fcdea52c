"""From ``connection.start-ok`` to ``connection.open-ok``: who the client is and what both sides agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.constants import FRAME_MIN_SIZE
from brokers.engine.core.amqp.errors import AmqpError, not_allowed
from brokers.engine.core.amqp.sasl import credentials

if TYPE_CHECKING:
    from brokers.engine.core.amqp.connection import Connection


def start_ok(connection: Connection, method: m.ConnectionStartOk) -> None:
    """Check the password; ``connection.tune`` follows, now or later."""
    connection.client_properties = method.client_properties
    connection.mechanism = method.mechanism
    user, password = credentials(method.mechanism, method.response)
    resume = connection.stall()

    def done(refusal: AmqpError | None) -> None:
        if not resume():
            return
        if refusal is not None:
            connection.refuse(refusal)
        else:
            settings = connection.settings
            connection.user = user
            connection.begin_tuning()
            connection.send(m.ConnectionTune(settings.channel_max, settings.frame_max, settings.heartbeat))
        connection.proceed()

    connection.broker.authenticate(connection, user, password, done)


def tune_ok(connection: Connection, method: m.ConnectionTuneOk) -> None:
    """Take what the client chose. Raises ``AmqpError`` 530 when that is out of bounds."""
    settings = connection.settings
    _check("frame_max", method.frame_max, FRAME_MIN_SIZE, settings.frame_max)
    _check("channel_max", method.channel_max, 1, settings.channel_max)
    connection.tuned(method.channel_max, method.frame_max, method.heartbeat)


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


def open_vhost(connection: Connection, method: m.ConnectionOpen) -> None:
    """Enter the virtual host; ``connection.open-ok`` follows, now or later."""
    resume = connection.stall()

    def done(refusal: AmqpError | None) -> None:
        if not resume():
            return
        if refusal is not None:
            connection.fail(refusal.during(method.class_id, method.method_id))
        else:
            connection.opened(method.virtual_host)
        connection.proceed()

    connection.broker.open(connection, method.virtual_host, done)
