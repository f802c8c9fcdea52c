"""Methods of the classes exchange and queue, decided from the metadata at hand.

``decide`` reads only this node's copy. What has to change goes through a commit, and is checked again when
it is applied, for somebody else's change may have come first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from brokers.engine.core.amqp import errors, methods
from brokers.engine.core.amqp.errors import AmqpError
from brokers.engine.core.model.handlers import bindings, exchanges, queues
from brokers.engine.core.model.handlers.decision import AskQueue, Commit, Context, Decision
from brokers.engine.core.model.handlers.names import clean, queue_name, usable_queue
from brokers.engine.core.model.handlers.publishing import publishable
from brokers.engine.core.model.metadata import Metadata

__all__ = [
    "AskQueue",
    "Commit",
    "Context",
    "Decision",
    "clean",
    "decide",
    "publishable",
    "queue_name",
    "usable_queue",
]

HANDLERS: Mapping[type[methods.Method], Callable[[Metadata, Context, Any], Decision]] = {
    methods.ExchangeDeclare: exchanges.declare,
    methods.ExchangeDelete: exchanges.delete,
    methods.ExchangeBind: bindings.bind_exchange,
    methods.ExchangeUnbind: bindings.unbind_exchange,
    methods.QueueDeclare: queues.declare,
    methods.QueueDelete: queues.delete,
    methods.QueuePurge: queues.purge,
    methods.QueueBind: bindings.bind_queue,
    methods.QueueUnbind: bindings.unbind_queue,
}


def decide(metadata: Metadata, context: Context, method: methods.Method) -> Decision:
    """What to do about ``method``; see ``Decision``. Changes nothing by itself and does not raise for what
    a client did."""
    handler = HANDLERS.get(type(method))
    if handler is None:
        return errors.not_implemented(f"{type(method).__name__} is no method of exchanges or queues")
    try:
        return handler(metadata, context, method)
    except AmqpError as error:
        return error
