"""Probes of a drill: messages with numbers, published one after the other with confirms, consumed and acked.

Publisher and consumer are plain AMQP clients (py-amqp), each with a thread and a connection of its own, on nodes
that the drill leaves alone.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import amqp
from amqp.exceptions import AMQPError

PACE: Final = 0.005
"""Seconds between two probes, when confirms come at once."""
CONFIRM_WITHIN: Final = 60.0
CONNECT_WITHIN: Final = 5.0
_ERRORS: Final = (AMQPError, OSError)


@dataclass(frozen=True, slots=True)
class Findings:
    """What the probes saw. Gaps in milliseconds: the longest without a confirm or a delivery since the fault.

    ``duplicated`` deliveries were further ones of the same message; ``unflagged`` of them did not say so.
    """

    confirmed: int
    delivered: int
    lost: int
    duplicated: int
    unflagged: int
    unavailable_ms: float
    delivery_gap_ms: float


class Probes:
    """Publisher and consumer on ``queue``; ``addresses`` (host:port) are tried in turn."""

    def __init__(self, addresses: Sequence[str], queue: str) -> None:
        self._addresses = list(addresses)
        self._queue = queue
        self._stop_publishing = threading.Event()
        self._stop_consuming = threading.Event()
        self._confirms: list[float] = []
        self._confirmed: set[int] = set()
        self._deliveries: list[float] = []
        self._seen: Counter[int] = Counter()
        self._unflagged = 0
        self.trouble = ""
        """The last error of a connection; it was made anew."""
        self._threads = [
            threading.Thread(target=self._publish_all, name="drill-publisher", daemon=True),
            threading.Thread(target=self._consume_all, name="drill-consumer", daemon=True),
        ]

    def declare(self, expires: float) -> None:
        """Make the queue: durable, and gone by itself when unused for ``expires`` seconds."""
        with self._connect() as connection:
            arguments = {"x-expires": round(expires * 1000)}
            connection.channel().queue_declare(
                self._queue, durable=True, auto_delete=False, arguments=arguments
            )

    def delete(self) -> None:
        """Remove the queue."""
        with self._connect() as connection:
            connection.channel().queue_delete(self._queue)

    def start(self) -> None:
        """Begin to publish and consume."""
        for thread in self._threads:
            thread.start()

    def confirms(self) -> int:
        """How many probes are confirmed so far."""
        return len(self._confirms)

    def quiet_for(self) -> float:
        """Seconds since the last confirm."""
        return time.monotonic() - self._confirms[-1] if self._confirms else float("inf")

    def finish(self, within: float) -> None:
        """Publish no more, wait up to ``within`` seconds until all that was confirmed is delivered."""
        self._stop_publishing.set()
        self._stop_after(within)

    def _stop_after(self, within: float) -> None:
        if self._threads[0].ident is None:
            return
        self._threads[0].join(within)
        deadline = time.monotonic() + within
        while time.monotonic() < deadline and not self._confirmed <= self._seen.keys():
            time.sleep(PACE)
        self._stop_consuming.set()
        self._threads[1].join(CONNECT_WITHIN)

    def findings(self, since: float) -> Findings:
        """What was seen; gaps from ``since`` (monotonic) on."""
        return Findings(
            len(self._confirmed),
            len(self._deliveries),
            len(self._confirmed - self._seen.keys()),
            sum(count - 1 for count in self._seen.values()),
            self._unflagged,
            longest_gap(self._confirms, since),
            longest_gap(self._deliveries, since),
        )

    def _connect(self) -> amqp.Connection:
        """A connection to the first node that takes one. Raises ``OSError`` or ``AMQPError``."""
        for address in self._addresses[:-1]:
            try:
                return self._open(address)
            except _ERRORS as error:
                self.trouble = f"{address}: {error}"
        return self._open(self._addresses[-1])

    @staticmethod
    def _open(address: str) -> amqp.Connection:
        connection = amqp.Connection(address, confirm_publish=True, connect_timeout=CONNECT_WITHIN)
        connection.connect()
        return connection

    def _publish_all(self) -> None:
        number = 0
        while not self._stop_publishing.is_set():
            try:
                with self._connect() as connection:
                    channel = connection.channel()
                    while not self._stop_publishing.wait(PACE):
                        number += 1
                        message = amqp.Message(str(number), delivery_mode=2)
                        channel.basic_publish(
                            message,
                            routing_key=self._queue,
                            timeout=CONFIRM_WITHIN,
                            confirm_timeout=CONFIRM_WITHIN,
                        )
                        self._confirmed.add(number)
                        self._confirms.append(time.monotonic())
            except _ERRORS as error:
                self.trouble = f"publishing: {error}"
                self._stop_publishing.wait(0.1)

    def _consume_all(self) -> None:
        while not self._stop_consuming.is_set():
            try:
                with self._connect() as connection:
                    channel = connection.channel()
                    channel.basic_qos(0, 100, False)
                    channel.basic_consume(self._queue, callback=self._on_delivery)
                    while not self._stop_consuming.is_set():
                        try:
                            connection.drain_events(timeout=0.2)
                        except TimeoutError:
                            continue
            except _ERRORS as error:
                self.trouble = f"consuming: {error}"
                self._stop_consuming.wait(0.1)

    def _on_delivery(self, message: amqp.Message) -> None:
        number = int(message.body)
        if self._seen[number] and not message.delivery_info["redelivered"]:
            self._unflagged += 1
        self._deliveries.append(time.monotonic())
        self._seen[number] += 1
        message.channel.basic_ack(message.delivery_tag)


def longest_gap(times: Sequence[float], since: float) -> float:
    """The longest time (ms) between two neighbours of ``times`` of which the later is after ``since``."""
    gaps = (late - early for early, late in pairwise(times) if late > since)
    return round(1000 * max(gaps, default=0.0), 1)
