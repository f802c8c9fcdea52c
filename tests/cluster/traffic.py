"""Traffic with a memory: publishers and consumers that note everything, and the check of what they noted.

Messages are numbered per publisher. Publishers and consumers reconnect to the next node when theirs goes
away; a message whose confirm did not come is not sent again, so every number is published at most once.
"""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, pairwise

from tests.bench.rawclient import RawClient, method

WINDOW = 200
PREFETCH = 100


@dataclass
class History:
    """What happened. Keys are (publisher, number); a delivery is (key, redelivered, consumer's session)."""

    attempted: set[tuple[int, int]] = field(default_factory=set)
    confirmed: set[tuple[int, int]] = field(default_factory=set)
    refused: set[tuple[int, int]] = field(default_factory=set)
    deliveries: list[tuple[tuple[int, int], bool, int]] = field(default_factory=list)
    confirm_times: list[float] = field(default_factory=list)
    reconnects: int = 0
    problems: list[str] = field(default_factory=list)

    def longest_gap(self) -> float:
        """The longest time between two confirms, in seconds."""
        times = sorted(self.confirm_times)
        return max((b - a for a, b in pairwise(times)), default=0.0)

    def check(self) -> dict[str, int]:
        """Assert that nothing was lost, invented, silently repeated or put out of order; counts."""
        assert not self.problems, self.problems
        delivered = Counter(key for key, _, _ in self.deliveries)
        lost = self.confirmed - set(delivered)
        assert not lost, f"{len(lost)} confirmed messages were lost, e.g. {sorted(lost)[:5]}"
        phantoms = set(delivered) - self.attempted
        assert not phantoms, f"{len(phantoms)} messages nobody published, e.g. {sorted(phantoms)[:5]}"
        # A consumer whose node died may read its last deliveries after others got them again: what counts
        # is that at most one of them pretends to be the first.
        firsts = Counter(key for key, redelivered, _ in self.deliveries if not redelivered)
        silent = [key for key, count in firsts.items() if count > 1]
        assert not silent, f"{len(silent)} messages came again without the flag, e.g. {sorted(silent)[:5]}"
        last: dict[tuple[int, int], int] = {}
        for key, redelivered, session in self.deliveries:
            stream, number = (key[0], session), key[1]
            if not redelivered:
                assert number > last.get(stream, -1), f"{key} came after {last[stream]}"
                last[stream] = number
        return {
            "confirmed": len(self.confirmed),
            "delivered": len(self.deliveries),
            "duplicates": len(self.deliveries) - len(delivered),
            "reconnects": self.reconnects,
        }


class Traffic:
    """Runs publishers and consumers of one queue in threads until told to stop."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.history = History()
        self.window = WINDOW
        """Messages of a publisher that wait for their confirm at most."""
        self._stop_publishing = threading.Event()
        self._stop_consuming = threading.Event()
        self._publishers: list[threading.Thread] = []
        self._consumers: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._numbers: dict[int, count[int]] = {}

    def publish(self, ports: list[int], *, pause: float = 0.002) -> None:
        """Start a publisher that prefers the first of ``ports``."""
        number = len(self._publishers)
        self._start(self._publishers, lambda: self._publish(number, ports, pause))

    def consume(self, ports: list[int]) -> None:
        """Start a consumer that prefers the first of ``ports``."""
        self._start(self._consumers, lambda: self._consume(ports))

    def _start(self, threads: list[threading.Thread], run: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                run()
            except Exception as error:
                self.history.problems.append(repr(error))
                raise

        thread = threading.Thread(target=guarded, daemon=True)
        threads.append(thread)
        thread.start()

    def confirmed(self) -> int:
        """How many messages have been confirmed so far."""
        return len(self.history.confirmed)

    def finish(self, timeout: float = 30.0) -> History:
        """Stop publishing, let consumers drain, stop them; what happened."""
        self._stop_publishing.set()
        for thread in self._publishers:
            thread.join(timeout)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with self._lock:
                missing = self.history.confirmed - {key for key, _, _ in self.history.deliveries}
            if not missing:
                break
            time.sleep(0.05)
        self._stop_consuming.set()
        for thread in self._consumers:
            thread.join(timeout)
        return self.history

    # -- publishers -----------------------------------------------------------------------------------

    def _publish(self, publisher: int, ports: list[int], pause: float) -> None:
        attempt = 0
        while not self._stop_publishing.is_set():
            with contextlib.suppress(OSError, RuntimeError, ConnectionError):
                client = RawClient(ports[attempt % len(ports)])
                client.socket.settimeout(20)
                with contextlib.closing(client.socket):
                    client.confirm()
                    self._publish_on(client, publisher, pause)
                    continue
            attempt += 1
            self.history.reconnects += 1
            time.sleep(0.02)

    def _publish_on(self, client: RawClient, publisher: int, pause: float) -> None:
        numbers = self._numbers.setdefault(publisher, count())
        tags: dict[int, int] = {}
        tag = 0
        try:
            while True:
                stopping = self._stop_publishing.is_set()
                if stopping and not tags:
                    return
                frames = []
                fresh = []
                while len(tags) < self.window and not stopping:
                    tag += 1
                    tags[tag] = number = next(numbers)
                    fresh.append((publisher, number))
                    frames.append(client.publish_frames(self.queue, struct.pack(">IQ", publisher, number)))
                with self._lock:
                    self.history.attempted.update(fresh)
                client.socket.sendall(b"".join(frames))
                self._take_confirms(client, publisher, tags)
                time.sleep(pause)
        except OSError:
            raise ConnectionError from None

    def _take_confirms(self, client: RawClient, publisher: int, tags: dict[int, int]) -> None:
        for kind, payload in client.frames():
            if kind != 1 or payload[:4] not in (b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78"):
                if kind == 1:
                    raise ConnectionError(f"unexpected method {payload!r}")
                continue
            tag, multiple = struct.unpack_from(">QB", payload, 4)
            settled = [t for t in tags if t <= tag] if multiple & 1 else [tag]
            into = self.history.confirmed if payload[3] == 0x50 else self.history.refused
            now = time.monotonic()
            with self._lock:
                into.update((publisher, tags.pop(t)) for t in settled)
                self.history.confirm_times.append(now)

    # -- consumers ------------------------------------------------------------------------------------

    def _consume(self, ports: list[int]) -> None:
        attempt = 0
        while not self._stop_consuming.is_set():
            with contextlib.suppress(OSError, RuntimeError, ConnectionError):
                client = RawClient(ports[attempt % len(ports)])
                with contextlib.closing(client.socket):
                    client.consume(self.queue, PREFETCH)
                    client.socket.settimeout(0.2)
                    self._consume_on(client)
            attempt += 1
            time.sleep(0.02)

    def _consume_on(self, client: RawClient) -> None:
        tag = 0
        head: tuple[int, bool] | None = None
        while not self._stop_consuming.is_set():
            try:
                frames = client.frames()
            except TimeoutError:
                continue
            for kind, payload in frames:
                if kind == 1 and payload[:4] == b"\x00\x3c\x00\x3c":
                    head = struct.unpack_from(">Q?", payload, 5 + payload[4])
                elif kind == 1:
                    raise ConnectionError(f"unexpected method {payload!r}")
                elif kind == 3 and head is not None:
                    publisher, number = struct.unpack(">IQ", payload)
                    tag, redelivered = head
                    with self._lock:
                        self.history.deliveries.append(
                            (
                                (publisher, number),
                                redelivered,
                                client.socket.fileno() * 100_000 + client.socket.getsockname()[1],
                            )
                        )
            if tag:
                client.socket.sendall(method(60, 80, struct.pack(">QB", tag, 1)))
                tag = 0
