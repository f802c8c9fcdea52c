"""Messages a second, confirmed and delivered, with one publisher and one consumer in processes of their own.

``python -m tests.bench.throughput --port 5672 [--consumer-port P] [--seconds 10] [--size 1024]``. Works with
any AMQP 0-9-1 broker (``--quorum`` asks RabbitMQ for a quorum queue). Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import struct
import time
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event

from tests.bench.rawclient import RawClient, method

QUORUM = b"\x0cx-queue-typeS\x00\x00\x00\x06quorum"


def publish(port: int, queue: str, size: int, window: int, count: Synchronized[int], stop: Event) -> None:
    """Keep ``window`` unconfirmed messages under way."""
    client = RawClient(port)
    client.confirm()
    message = client.publish_frames(queue, b"x" * size)
    sent = confirmed = 0
    while not stop.is_set():
        room = window - (sent - confirmed)
        if room >= window // 10:
            client.socket.sendall(message * room)
            sent += room
        for kind, payload in client.frames():
            if kind == 1 and payload[:4] == b"\x00\x3c\x00\x50":
                tag = struct.unpack_from(">Q", payload, 4)[0]
                confirmed = tag if payload[12] else confirmed + 1
        count.value = confirmed


def consume(port: int, queue: str, prefetch: int, count: Synchronized[int], stop: Event) -> None:
    """Take and acknowledge everything, one multiple ack a read."""
    client = RawClient(port)
    client.consume(queue, prefetch)
    got = 0
    while not stop.is_set():
        tag = 0
        for kind, payload in client.frames():
            if kind == 1 and payload[:4] == b"\x00\x3c\x00\x3c":
                got += 1
                at = 5 + payload[4]
                tag = struct.unpack_from(">Q", payload, at)[0]
        if tag:
            client.socket.sendall(method(60, 80, struct.pack(">QB", tag, 1)))
        count.value = got


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Run once."""
    queue = f"bench-{time.time_ns()}"
    RawClient(options.port).declare(queue, QUORUM if options.quorum else b"")
    stop = multiprocessing.Event()
    confirmed = multiprocessing.Value("Q", 0, lock=False)
    delivered = multiprocessing.Value("Q", 0, lock=False)
    processes = [
        multiprocessing.Process(
            target=consume,
            args=(options.consumer_port or options.port, queue, options.prefetch, delivered, stop),
            daemon=True,
        ),
        multiprocessing.Process(
            target=publish,
            args=(options.port, queue, options.size, options.window, confirmed, stop),
            daemon=True,
        ),
    ]
    for process in processes:
        process.start()
    time.sleep(options.warmup)
    begin = (confirmed.value, delivered.value, time.monotonic())
    time.sleep(options.seconds)
    end = (confirmed.value, delivered.value, time.monotonic())
    stop.set()
    for process in processes:
        process.join(2)
        process.kill()
    seconds = end[2] - begin[2]
    return {
        "confirmed_per_second": round((end[0] - begin[0]) / seconds),
        "delivered_per_second": round((end[1] - begin[1]) / seconds),
        "size": options.size,
        "window": options.window,
        "prefetch": options.prefetch,
    }


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5672)
    parser.add_argument("--consumer-port", type=int)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--warmup", type=float, default=2)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--window", type=int, default=500)
    parser.add_argument("--prefetch", type=int, default=500)
    parser.add_argument("--quorum", action="store_true")
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
