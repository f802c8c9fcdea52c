"""Sender-selected distribution: the headers CC and BCC name further routing keys of a message.

https://www.rabbitmq.com/docs/sender-selected. BCC is taken out of the message before it is delivered.
"""

from __future__ import annotations

from collections.abc import Mapping

from brokers.engine.core.amqp import errors
from brokers.engine.core.model.arguments import type_name

CC, BCC = "CC", "BCC"


def sender_routes(headers: Mapping[str, object] | None) -> tuple[str, ...]:
    """The routing keys in CC and BCC, each a string of an array; other items are passed over.

    Raises ``AmqpError`` 406 when CC or BCC is there and no array.
    """
    keys: list[str] = []
    for name in (CC, BCC):
        if headers is None or name not in headers:
            continue
        value = headers[name]
        if not isinstance(value, list | tuple):
            raise errors.precondition_failed(
                f'invalid message: {{unacceptable_type_in_header,"{name}",{type_name(value)}}}'
            )
        keys += [key for key in value if isinstance(key, str)]
    return tuple(keys)
