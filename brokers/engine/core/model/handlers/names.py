"""Names as clients give them."""

from __future__ import annotations

from brokers.engine.core.amqp import errors
from brokers.engine.core.model.equivalence import check_access
from brokers.engine.core.model.handlers.decision import Context
from brokers.engine.core.model.metadata import Metadata
from brokers.engine.core.model.topology import Kind, QueueInfo

_NO_LINE_ENDS = str.maketrans("", "", "\r\n")


def clean(name: str) -> str:
    """A name without line ends: RabbitMQ drops them, and nobody wants them in a log."""
    return name.translate(_NO_LINE_ENDS)


def queue_name(context: Context, name: str) -> str:
    """The queue that ``name`` stands for: the one last declared on the channel when it is empty.

    Raises ``AmqpError`` 404 when there is none.
    """
    if name:
        return clean(name)
    if not context.last_queue:
        raise errors.no_previous_queue()
    return context.last_queue


def usable_queue(metadata: Metadata, context: Context, name: str) -> QueueInfo:
    """The queue, to be read by the context's user and connection.

    Raises ``AmqpError``: 403 without the permission, 404 when there is none, 405 when it is another
    connection's alone.
    """
    metadata.authorizer(context.user, context.vhost).read(Kind.QUEUE, name)
    queue = metadata.state.queue(context.vhost, name)
    check_access(queue, context.connection)
    return queue
