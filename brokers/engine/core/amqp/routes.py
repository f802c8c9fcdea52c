"""A route: the exchange and routing-key short strings of ``basic.publish``, raw as they stand there."""

from __future__ import annotations

from brokers.engine.core.amqp.errors import syntax_error

PUBLISH_IDS = (60, 40)
"""Class and method of ``basic.publish``."""


def check_route(route: bytes) -> None:
    """Raise 502 unless ``route`` is two short strings, the first of them (an exchange's name) UTF-8."""
    exchange_end = 1 + route[0] if route else 1
    if exchange_end >= len(route) or exchange_end + 1 + route[exchange_end] != len(route):
        raise syntax_error("exchange and routing key do not fill basic.publish").during(*PUBLISH_IDS)
    try:
        route[1:exchange_end].decode()
    except UnicodeDecodeError as exc:
        raise syntax_error("exchange of basic.publish is not UTF-8").during(*PUBLISH_IDS) from exc
