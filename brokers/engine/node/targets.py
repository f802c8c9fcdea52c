"""Where publishes go: the targets that channels keep per (exchange, routing key)."""

from __future__ import annotations

from collections.abc import Callable

from brokers.engine.core.amqp.channel import Channel
from brokers.engine.core.amqp.constants import NO_ROUTE
from brokers.engine.core.amqp.port import Target
from brokers.engine.core.model.deduplication import MARKED, SeenKeys, marked
from brokers.engine.core.session.link import QueueLink, Sink


def names(route: bytes) -> tuple[str, str]:
    """Exchange and routing key of a checked route."""
    split = 1 + route[0]
    return route[1:split].decode(), route[split + 1 :].decode("utf-8", "surrogateescape")


class QueueTarget:
    """One queue."""

    __slots__ = ("_link",)

    def __init__(self, link: QueueLink) -> None:
        self._link = link

    def publish(
        self, channel: Channel, tag: int, route: bytes, header: bytes, body: bytes, mandatory: bool
    ) -> None:
        """See ``port.Target``."""
        self._link.add(channel if tag else None, tag, route, header, body)


class NoTarget:
    """No queue: mandatory messages go back, all count as done."""

    def publish(
        self, channel: Channel, tag: int, route: bytes, header: bytes, body: bytes, mandatory: bool
    ) -> None:
        """See ``port.Target``."""
        if mandatory:
            channel.returned(NO_ROUTE, "NO_ROUTE", route, header, body)
        if tag:
            channel.confirmed(tag, tag)


class Gather:
    """Several queues' answers for one publisher's messages: one is safe when all of them have it, and refused
    when all have answered and any refused it."""

    __slots__ = ("_missing", "_refused", "_sink")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._missing: dict[int, int] = {}
        self._refused: set[int] = set()

    def expect(self, tag: int, queues: int) -> None:
        """``queues`` queues will answer for ``tag``."""
        self._missing[tag] = queues

    def confirmed(self, first: int, last: int) -> None:
        """One more queue has the messages ``first`` to ``last``."""
        missing = self._missing
        safe = first
        for tag in range(first, last + 1):
            left = missing[tag] - 1
            if not left and tag not in self._refused:
                del missing[tag]
                continue
            if safe < tag:
                self._sink.confirmed(safe, tag - 1)
            safe = tag + 1
            if left:
                missing[tag] = left
            else:
                self._refuse(tag)
        if safe <= last:
            self._sink.confirmed(safe, last)

    def refused(self, first: int, last: int) -> None:
        """One more queue has answered, and refused the messages ``first`` to ``last``."""
        for tag in range(first, last + 1):
            self._refused.add(tag)
            self._missing[tag] -= 1
            if not self._missing[tag]:
                self._refuse(tag)

    def _refuse(self, tag: int) -> None:
        del self._missing[tag]
        self._refused.discard(tag)
        self._sink.refused(tag, tag)


class FanoutTarget:
    """Several queues."""

    __slots__ = ("_gather", "_links")

    def __init__(self, links: tuple[QueueLink, ...], gather: Callable[[Channel], Gather]) -> None:
        self._links = links
        self._gather = gather

    def publish(
        self, channel: Channel, tag: int, route: bytes, header: bytes, body: bytes, mandatory: bool
    ) -> None:
        """See ``port.Target``."""
        sink = None
        if tag:
            sink = self._gather(channel)
            sink.expect(tag, len(self._links))
        for link in self._links:
            link.add(sink, tag, route, header, body)


class ComputedTarget:
    """An exchange whose routes depend on each message's headers."""

    __slots__ = ("_find",)

    def __init__(self, find: Callable[[bytes], Target]) -> None:
        self._find = find

    def publish(
        self, channel: Channel, tag: int, route: bytes, header: bytes, body: bytes, mandatory: bool
    ) -> None:
        """See ``port.Target``."""
        self._find(header).publish(channel, tag, route, header, body, mandatory)


class DeduplicatingTarget:
    """What lies behind an exchange that drops repeated messages: the queues do it, told by a header."""

    __slots__ = ("_links", "_target", "_window")

    def __init__(
        self, target: QueueTarget | FanoutTarget, links: tuple[QueueLink, ...], window: SeenKeys
    ) -> None:
        self._target = target
        self._links = links
        self._window = window

    def publish(
        self, channel: Channel, tag: int, route: bytes, header: bytes, body: bytes, mandatory: bool
    ) -> None:
        """See ``port.Target``."""
        with_window = marked(header, self._window)
        if with_window is not None:
            for link in self._links:
                link.flag(MARKED)
        self._target.publish(channel, tag, route, with_window or header, body, mandatory)


class RewritingTarget:
    """Publishes one message with another header than it came with."""

    __slots__ = ("_header", "_target")

    def __init__(self, target: Target, header: bytes) -> None:
        self._target = target
        self._header = header

    def publish(
        self, channel: Channel, tag: int, route: bytes, header: bytes, body: bytes, mandatory: bool
    ) -> None:
        """See ``port.Target``."""
        self._target.publish(channel, tag, route, self._header, body, mandatory)
