"""What the protocol's hot paths cost with nothing behind them, in microseconds a message.

    python -m tests.bench.amqp_core [body size in octets, 1024 unless told]

Prints the best of several rounds; asserts nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from time import perf_counter

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.channel import Channel
from brokers.engine.core.amqp.consumer import Consumer
from brokers.engine.core.amqp.frames import method_frame
from brokers.engine.core.amqp.port import Delivery, Outcome
from brokers.engine.core.amqp.properties import BasicProperties, encode_header
from tests.unit.amqp.recording import Client, opened, publish, route

ROUNDS = 7
CHUNK = 65536


class Sink:
    """Target and queue that do nothing."""

    name = "q"

    def publish(
        self, channel: Channel, tag: int, route: bytes, header: bytes, body: bytes, mandatory: bool
    ) -> None:
        """Drop the message."""

    def settle(self, consumer: Consumer, positions: Sequence[int], outcome: Outcome) -> None:
        """Forget the messages."""

    def limit(self, consumer: Consumer) -> None:
        """Nothing is held back."""


def best(run: Callable[[], float], messages: int) -> float:
    return min(run() for _ in range(ROUNDS)) / messages * 1e6


def time_receive(client: Client, stream: bytes, chunk: int) -> float:
    chunks = [stream[at : at + chunk] for at in range(0, len(stream), chunk)]
    receive, take = client.connection.receive, client.connection.take_output
    began = perf_counter()
    for piece in chunks:
        receive(piece, 0.0)
        take()
    return perf_counter() - began


def publishing(size: int, properties: BasicProperties, messages: int = 10_000) -> float:
    client = opened(1)
    client.exchange(m.ConfirmSelect())
    client.connection.routes[route("", "bench")] = Sink()
    stream = publish(1, b"x" * size, routing_key="bench", properties=properties) * messages
    return best(lambda: time_receive(client, stream, CHUNK), messages)


def consumer_of(client: Client) -> Consumer:
    client.exchange(m.BasicConsume("q", "ctag1.0123456789abcdef"))
    consumer = client.broker.consumers[0]
    consumer.queue = Sink()
    return consumer


def delivering(size: int, *, spread: int = 1, messages: int = 10_000, batch: int = 50) -> float:
    """Neighbours differ in length when ``spread`` is over 1."""
    client = opened(1)
    consumer = consumer_of(client)
    bodies = [b"x" * (size + n) for n in range(spread)]
    headers = [encode_header(BasicProperties(delivery_mode=2), len(body)) for body in bodies]
    plan: list[list[Delivery]] = [
        [
            (at + n, False, bytes(bytearray(route("", "bench"))), headers[n % spread], bodies[n % spread])
            for n in range(batch)
        ]
        for at in range(0, messages, batch)
    ]

    def run() -> float:
        began = perf_counter()
        for deliveries in plan:
            consumer.deliver(deliveries)
            b"".join(client.connection.take_output())
        spent = perf_counter() - began
        client.connection.channels[1].unacked.take_all()
        return spent

    return best(run, messages)


def acknowledging(multiple: int, messages: int = 10_000) -> float:
    client = opened(1)
    consumer = consumer_of(client)
    channel = client.connection.channels[1]
    header = encode_header(BasicProperties(), 1)

    def run() -> float:
        first = channel.delivered + 1
        consumer.deliver([(n, False, route("", "bench"), header, b"x") for n in range(messages)])
        client.connection.take_output()
        stream = b"".join(
            method_frame(1, m.BasicAck(tag, multiple > 1))
            for tag in range(first + multiple - 1, first + messages, multiple)
        )
        return time_receive(client, stream, 50 * 21)

    return best(run, messages)


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    headers = BasicProperties(delivery_mode=2, content_type="text/plain")
    print(f"bodies of {size} octets, best of {ROUNDS}, us a message")
    print(f"publish, parsed from {CHUNK // 1024} KiB reads   {publishing(size, headers):6.2f}")
    print(f"deliver, batches of 50             {delivering(size):6.2f}")
    print(f"deliver, bodies of many lengths    {delivering(size, spread=50):6.2f}")
    print(f"ack, one by one                    {acknowledging(1):6.2f}")
    print(f"ack, multiple of 50                {acknowledging(50):6.2f}")


if __name__ == "__main__":
    main()
