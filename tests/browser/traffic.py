"""A plain pika program beside the browser: publishes numbered messages, knows which ones were confirmed."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Self

import pika
from pika.exceptions import AMQPError

logging.getLogger("pika").setLevel(logging.WARNING)


class Publisher(threading.Thread):
    """Publishes 0, 1, 2 ... to ``queue`` through one node, one confirm after the other, until stopped.

    It does not reconnect: an error, or a refused message, ends it and is kept in ``error``.
    """

    def __init__(self, port: int, queue: str) -> None:
        super().__init__(name=f"publisher to {queue}", daemon=True)
        self.confirmed: list[int] = []
        self.error: AMQPError | None = None
        self._port = port
        self._queue = queue
        self._asked_to_end = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asked_to_end.set()
        self.join(30)

    def run(self) -> None:
        try:
            with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", self._port)) as connection:
                channel = connection.channel()
                channel.confirm_delivery()
                number = 0
                while not self._asked_to_end.wait(0.002):
                    channel.basic_publish("", self._queue, str(number).encode())
                    self.confirmed.append(number)
                    number += 1
        except AMQPError as error:
            self.error = error


def declare(port: int, queue: str) -> None:
    """Declare a durable queue."""
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port)) as connection:
        connection.channel().queue_declare(queue, durable=True)


def drain(port: int, queue: str) -> list[int]:
    """Take everything out of ``queue``, in order."""
    numbers = []
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port)) as connection:
        channel = connection.channel()
        for method, _, body in channel.consume(queue, inactivity_timeout=3.0):
            if method is None:
                break
            channel.basic_ack(method.delivery_tag)
            numbers.append(int(body))
    return numbers
