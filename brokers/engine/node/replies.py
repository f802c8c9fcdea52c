"""Direct reply-to: replies go straight to the channel that asked, past all queues.

A channel that consumes from the pseudo-queue ``amq.rabbitmq.reply-to`` gets an address; requests it publishes
carry that address in ``reply_to``, and who publishes to the address through the default exchange reaches the
channel, from any node of the cluster. Replies are not kept: one whose channel is gone is dropped, as in
RabbitMQ (https://www.rabbitmq.com/docs/direct-reply-to).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from struct import Struct
from weakref import WeakKeyDictionary

from brokers.engine.core.amqp import errors
from brokers.engine.core.amqp.channel import Channel
from brokers.engine.core.amqp.constants import NO_ROUTE
from brokers.engine.core.amqp.consumer import Consumer
from brokers.engine.core.amqp.port import DIRECT_REPLY_TO, Outcome

ADDRESS_PREFIX = DIRECT_REPLY_TO + "."

REPLY, ASK, ANSWER = 0, 1, 2
"""Frames between nodes: a reply to hand over; does an address exist; the answer to that."""

MAX_ASKED = 1024
"""Questions that are remembered while their answers are on the way."""

_reply = Struct(">BHHI")
_ask = Struct(">BQH")
_answer = Struct(">BQ?")


class ReplyQueue:
    """Stands for a queue at the consumers of the pseudo-queue; nothing is ever settled there."""

    name = DIRECT_REPLY_TO
    group = -1

    def limit(self, consumer: Consumer) -> None:
        """See ``port.Queue``. Replies are not limited."""

    def settle(self, consumer: Consumer, positions: Sequence[int], outcome: Outcome) -> None:
        """See ``port.Queue``. Replies need no acknowledgement."""


class Replies:
    """The reply addresses of this node's channels, and the way to those of others.

    ``send(node, parts)`` hands a frame to another node; False when that is out of reach.
    """

    def __init__(self, me: int, send: Callable[[int, Sequence[bytes]], bool]) -> None:
        self._me = me
        self._send = send
        self._queue = ReplyQueue()
        self._consumers: dict[str, Consumer] = {}
        self._addresses: WeakKeyDictionary[Channel, str] = WeakKeyDictionary()
        self._asked: dict[int, Callable[[bool], None]] = {}
        self._next = 0

    # -- channels -------------------------------------------------------------------------------------

    def consume(self, channel: Channel, consumer: Consumer) -> None:
        """``consumer`` gets the channel's replies. Raises ``AmqpError`` 406 when it wants to acknowledge
        them, or the channel has a reply consumer already."""
        if not consumer.no_ack:
            raise errors.precondition_failed("reply consumer cannot acknowledge")
        if channel in self._addresses:
            raise errors.precondition_failed("reply consumer already set")
        address = f"{ADDRESS_PREFIX}{self._me}.{secrets.token_urlsafe(18)}"
        consumer.queue = self._queue
        self._addresses[channel] = address
        self._consumers[address] = consumer

    def address(self, channel: Channel) -> str:
        """What replaces ``reply_to`` in requests. Raises ``AmqpError`` 406 without a reply consumer."""
        address = self._addresses.get(channel)
        if address is None:
            raise errors.precondition_failed("fast reply consumer does not exist")
        return address

    def forget(self, channel: Channel) -> None:
        """The channel has no reply consumer any more."""
        address = self._addresses.pop(channel, None)
        if address is not None:
            del self._consumers[address]

    def is_ours(self, consumer: Consumer) -> bool:
        """Whether ``consumer`` is a reply consumer."""
        return getattr(consumer, "queue", None) is self._queue

    # -- addresses ------------------------------------------------------------------------------------

    def exists(self, address: str, answered: Callable[[bool], None]) -> None:
        """``answered(whether a channel has this address)``, now or when its node has said so; never when
        that node is lost meanwhile."""
        node = _node_of(address)
        if node == self._me:
            answered(address in self._consumers)
            return
        self._next += 1
        raw = address.encode()
        if node is None or not self._send(node, [_ask.pack(ASK, self._next, len(raw)), raw]):
            answered(False)
            return
        self._asked[self._next] = answered
        if len(self._asked) > MAX_ASKED:
            del self._asked[next(iter(self._asked))]

    def deliver(self, address: str, route: bytes, header: bytes, body: bytes) -> None:
        """Hand a reply to the channel that waits for it, if there is one."""
        node = _node_of(address)
        if node == self._me:
            consumer = self._consumers.get(address)
            if consumer is not None:
                consumer.deliver([(0, False, route, header, body)])
        elif node is not None:
            raw = address.encode()
            self._send(
                node, [_reply.pack(REPLY, len(raw), len(route), len(header)), raw, route, header, body]
            )

    # -- other nodes ----------------------------------------------------------------------------------

    def receive(self, node: int, frame: bytes) -> None:
        """A frame of a peer. Raises ``ValueError`` when it is malformed."""
        kind = frame[0]
        if kind == REPLY and len(frame) >= _reply.size:
            _, *sizes = _reply.unpack_from(frame)
            address, route, header, body = _cut(frame, _reply.size, sizes)
            self.deliver(address.decode(), route, header, body)
        elif kind == ASK and len(frame) >= _ask.size:
            _, number, size = _ask.unpack_from(frame)
            raw, _ = _cut(frame, _ask.size, [size])
            self._send(node, [_answer.pack(ANSWER, number, raw.decode() in self._consumers)])
        elif kind == ANSWER and len(frame) == _answer.size:
            _, number, found = _answer.unpack(frame)
            answered = self._asked.pop(number, None)
            if answered is not None:
                answered(found)
        else:
            raise ValueError(f"malformed reply frame of kind {kind}, {len(frame)} bytes")


class ReplyTarget:
    """Where a publish to a reply address goes."""

    __slots__ = ("_address", "_replies")

    def __init__(self, replies: Replies, address: str) -> None:
        self._replies = replies
        self._address = address

    def publish(
        self, channel: Channel, tag: int, route: bytes, header: bytes, body: bytes, mandatory: bool
    ) -> None:
        """See ``port.Target``. No queue has the message, so a mandatory one goes back all the same."""
        self._replies.deliver(self._address, route, header, body)
        if mandatory:
            channel.returned(NO_ROUTE, "NO_ROUTE", route, header, body)
        if tag:
            channel.confirmed(tag, tag)


def _node_of(address: str) -> int | None:
    number, dot, _ = address.removeprefix(ADDRESS_PREFIX).partition(".")
    return int(number) if dot and number.isascii() and number.isdigit() and len(number) < 6 else None


def _cut(frame: bytes, pos: int, sizes: Sequence[int]) -> list[bytes]:
    """The pieces of ``sizes`` from ``pos`` on, and what follows them."""
    pieces = []
    for size in sizes:
        pieces.append(frame[pos : pos + size])
        pos += size
    if pos > len(frame):
        raise ValueError(f"reply frame of {len(frame)} bytes ends before its parts do ({pos})")
    return [*pieces, frame[pos:]]
