"""basic.publish, as far as topology goes: may this user publish there?"""

from __future__ import annotations

from collections.abc import Sequence

from brokers.engine.core.amqp import errors
from brokers.engine.core.model.authorize import check_topic
from brokers.engine.core.model.metadata import Metadata
from brokers.engine.core.model.topology import DEFAULT_EXCHANGE, Kind
from brokers.engine.core.model.vhost import VHost


def publishable(metadata: Metadata, vhost: str, user: str, exchange: str, keys: Sequence[str] = ()) -> VHost:
    """The vhost to route in, when ``user`` may publish to ``exchange`` with each of the routing ``keys``.

    Holds until ``metadata.generation`` changes. Raises ``AmqpError``: 403 without write permission or for
    an internal exchange, 404 when there is none.
    """
    metadata.authorizer(user, vhost).write(Kind.EXCHANGE, exchange)
    if exchange != DEFAULT_EXCHANGE:
        found = metadata.state.exchange(vhost, exchange)
        if found.internal:
            raise errors.internal_exchange_refused(exchange, vhost)
        if found.type == "topic":
            for key in keys:
                check_topic(metadata.state.topic_permissions, user, vhost, exchange, key, write=True)
    return metadata.state.vhost(vhost)
