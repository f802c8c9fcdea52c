"""Traffic for chaos: gentle publishers, and consumers that give messages back now and then."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable

from tests.bench.rawclient import RawClient, method
from tests.cluster.traffic import Traffic

WINDOW = 8
REQUEUES = 0.01
"""How many deliveries are given back instead of being acknowledged."""


class ChaosTraffic(Traffic):
    """Like ``Traffic``, with some requeues."""

    def __init__(self, queue: str, seed: int) -> None:
        super().__init__(queue)
        self._rng = random.Random(f"{seed} {queue}")
        self.requeued = 0
        self.window = WINDOW

    def delivered(self) -> int:
        """How many deliveries there were so far."""
        return len(self.history.deliveries)

    def wait(self, count: Callable[[], int], target: int, seconds: float) -> bool:
        """Whether ``count`` came to ``target`` within ``seconds``."""
        deadline = time.monotonic() + seconds
        while count() < target:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _consume_on(self, client: RawClient) -> None:
        session = client.socket.fileno() * 100_000 + client.socket.getsockname()[1]
        head: tuple[int, bool] | None = None
        while not self._stop_consuming.is_set():
            try:
                frames = client.frames()
            except TimeoutError:
                continue
            answers = []
            for kind, payload in frames:
                if kind == 1 and payload[:4] == b"\x00\x3c\x00\x3c":
                    head = struct.unpack_from(">Q?", payload, 5 + payload[4])
                elif kind == 1:
                    raise ConnectionError(f"unexpected method {payload!r}")
                elif kind == 3 and head is not None:
                    publisher, number = struct.unpack(">IQ", payload)
                    tag, redelivered = head
                    with self._lock:
                        self.history.deliveries.append(((publisher, number), redelivered, session))
                    if self._rng.random() < REQUEUES:
                        self.requeued += 1
                        answers.append(method(60, 120, struct.pack(">QB", tag, 2)))
                    else:
                        answers.append(method(60, 80, struct.pack(">QB", tag, 0)))
            if answers:
                client.socket.sendall(b"".join(answers))
