"""The port between the protocol and the broker behind it.

``Connection``, ``Channel`` and ``Consumer`` (this package) speak AMQP; a ``Broker`` (``engine.node``)
routes, stores and hands out. The protocol side calls the broker through this port, and the broker calls
back the methods that the classes below promise. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from brokers.engine.core.amqp.channel import Channel
    from brokers.engine.core.amqp.connection import Connection
    from brokers.engine.core.amqp.consumer import Consumer
    from brokers.engine.core.amqp.errors import AmqpError
    from brokers.engine.core.amqp.methods import BasicConsume, BasicGet, Method


DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
"""The pseudo-queue of direct reply-to: https://www.rabbitmq.com/docs/direct-reply-to."""


class Outcome(IntEnum):
    """What became of a delivered message."""

    ACK = 0
    REQUEUE = 1
    REJECT = 2


Delivery = tuple[int, bool, bytes, bytes, bytes]
"""One message for a consumer: (position in the queue, redelivered, route, header, body).

``route`` is the raw bytes of the exchange and routing-key short strings, exactly as they stood in
``basic.publish`` and as they stand in ``basic.deliver``; ``header`` is the payload of the content header
frame; ``body`` is the whole body, to be cut at the consumer's frame_max.
"""

Reply = "Method | AmqpError | None"
Done = Callable[["Method | AmqpError | None"], None]
"""Takes the answer to a call: the method to send back, an error to close the channel or connection with
(``AmqpError.scope`` says which), or None when there is nothing to say. Called exactly once, perhaps
before the call returns, perhaps much later."""


class Queue(Protocol):
    """A queue as a channel sees it: where consumers' acknowledgements go."""

    name: str

    def settle(self, consumer: Consumer, positions: Sequence[int], outcome: Outcome) -> None:
        """The client has settled these deliveries of ``consumer``. Called on the hot path: cheap, queues only."""
        ...

    def limit(self, consumer: Consumer) -> None:
        """``consumer.prefetch`` has changed."""
        ...


class Target(Protocol):
    """Where a (exchange, routing key) pair leads at this moment."""

    def publish(
        self, channel: Channel, tag: int, route: bytes, header: bytes, body: bytes, mandatory: bool
    ) -> None:
        """Take one message. ``tag`` is the channel's publish sequence number, 0 outside confirm mode.

        With ``tag`` the broker later calls ``channel.confirmed(first, last)`` or
        ``channel.refused(first, last)`` once for it; unroutable ``mandatory`` ones first go back by
        ``channel.returned(code, text, route, header, body)``.
        """
        ...


class Broker(Protocol):
    """What a node offers to one of its AMQP connections."""

    def server_properties(self) -> dict[str, object]: ...

    def authenticate(
        self, connection: Connection, user: str, password: str, done: Callable[[AmqpError | None], None]
    ) -> None:
        """Check a password; the error (403 ACCESS_REFUSED, RabbitMQ's text) or None."""
        ...

    def open(self, connection: Connection, vhost: str, done: Callable[[AmqpError | None], None]) -> None:
        """The user of ``connection`` opens ``vhost``: 530 NOT_ALLOWED when missing or refused."""
        ...

    def resolve(self, channel: Channel, route: bytes) -> Target:
        """Find where ``route`` (see ``Delivery``) leads, and enter it in ``channel.connection.routes``
        when that may be kept; the broker empties that dict when topology changes.

        Raises ``AmqpError`` (404 for no such exchange, 403 for no permission).
        """
        ...

    def resolve_special(self, channel: Channel, route: bytes, header: bytes) -> Target:
        """Find where one message leads whose ``header`` (checked) may have CC, BCC or a direct reply-to.

        The target rewrites the header where that is needed. Raises ``AmqpError`` as ``resolve`` does, and
        406 for CC or BCC of a wrong type, or a reply-to without a reply consumer.
        """
        ...

    def call(self, channel: Channel, method: Method, done: Done) -> None:
        """A method with an answer, of the classes exchange, queue (all but handled by the channel itself).

        The channel has checked its form only; names, permissions and equivalence are the broker's.
        """
        ...

    def consume(self, channel: Channel, consumer: Consumer, method: BasicConsume, done: Done) -> None:
        """Start ``consumer`` (its tag already chosen). The broker sets ``consumer.queue`` before ``done``."""
        ...

    def cancel(self, consumer: Consumer) -> None:
        """Send nothing more to ``consumer``; what it holds unsettled stays its own."""
        ...

    def get(self, channel: Channel, consumer: Consumer, method: BasicGet, done: Callable[..., None]) -> None:
        """basic.get: ``done(delivery | None, ready)`` or ``done(error, 0)``.

        ``consumer`` is a one-off holder made by the channel, so that settling works as for consumers;
        the broker sets ``consumer.queue``. With ``method.no_ack`` the broker settles by itself.
        """
        ...

    def release(self, channel: Channel, consumers: Sequence[Consumer]) -> None:
        """``channel`` is closing: forget ``consumers`` (get-holders with unsettled messages included) and
        give what they hold unsettled back to their queues."""
        ...

    def closed(self, connection: Connection) -> None:
        """The connection is over (channels were released first)."""
        ...

    def departed(self, connection: Connection, done: Callable[[], None]) -> None:
        """Call ``done`` when all is over that ``cancel``, ``release`` and ``closed`` have set off, such as the
        end of queues that were this connection's; the client gets its ok then, and finds the names free."""
        ...
