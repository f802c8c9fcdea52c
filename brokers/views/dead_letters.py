"""Dead letters: all queues that hold them, and one queue's with their causes counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar

from brokers.adapters.base import ClusterError, Queue
from brokers.adapters.dead_letters import Bucket, DeadLetterQueue, Groups
from brokers.live.page import Context, Page, Part, Rows
from brokers.live.problems import queue_name
from brokers.live.state import Delta, State
from brokers.views.base import PageView

FRESH: Final = 2.0
"""Seconds for which what a node has counted is shown again before it is asked anew."""
WIDTH, HEIGHT = 600, 100

T = TypeVar("T")


class Kept(Generic[T]):
    """What an adapter answered last, kept for a little while; ``trouble`` says why there is nothing newer."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._asked = float("-inf")
        self.value: T | None = None
        self.trouble = ""

    def get(self) -> T | None:
        """The answer, None before there was any."""
        now = time.monotonic()
        if now - self._asked >= FRESH:
            self._asked = now
            try:
                self.value, self.trouble = self._ask(), ""
            except ClusterError as error:
                self.trouble = str(error)
        return self.value


class DeadLettersPage(Page):
    """All dead-letter queues."""

    template = "dead_letters/page.html"
    section = "dead-letters"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._found = Kept(lambda: self.cluster.adapter().dead_letters().queues())

    def context(self, state: State) -> dict[str, Any]:
        found = self._found.get() or ()
        rows = [self._row(row, state.queues.get(row.key)) for row in found]
        rows.sort(key=lambda row: (-row["messages"], row["name"]))
        return {"rows": rows, "trouble": self._found.trouble, "all": sum(row["messages"] for row in rows)}

    def parts(self, context: Context) -> Iterator[Part | Rows]:
        yield Part("dead_letters/_rows.html")

    @staticmethod
    def _row(row: DeadLetterQueue, queue: Queue | None) -> dict[str, Any]:
        return {
            "vhost": row.vhost,
            "name": row.name,
            "sources": row.sources,
            "more": row.source_count - len(row.sources),
            "holds_dead": row.holds_dead,
            "messages": queue.messages if queue else 0,
            "consumers": queue.consumers if queue else 0,
            "oldest_age": queue.oldest_age if queue else None,
        }


class DeadLettersView(PageView):
    """The list of dead-letter queues."""

    page_class = DeadLettersPage


class DeadLetterQueuePage(Page):
    """One dead-letter queue: its messages by cause, and when they came."""

    template = "dead_letters/queue.html"
    section = "dead-letters"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._found: Kept[Groups] = Kept(lambda: self.cluster.adapter().dead_letters().groups(self.key))

    @property
    def key(self) -> tuple[str, str]:
        """The queue's vhost and name."""
        return self.names["vhost"], self.names["name"]

    def affected(self, delta: Delta) -> bool:
        return delta.everything or delta.tick or self.key in delta.queues

    def context(self, state: State) -> dict[str, Any]:
        queue = state.queues.get(self.key)
        found = self._found.get()
        return {
            "vhost": self.key[0],
            "name": self.key[1],
            "title": queue_name(Queue(*self.key)),
            "queue": queue,
            "missing": queue is None and state.lost is None,
            "found": found,
            "trouble": self._found.trouble,
            "bars": bars(found.over_time) if found else None,
        }

    def parts(self, context: Context) -> Iterator[Part | Rows]:
        yield Part("dead_letters/_figures.html")
        yield Part("dead_letters/_over_time.html")
        yield Part("dead_letters/_groups.html")


class DeadLetterQueueView(PageView):
    """One dead-letter queue."""

    page_class = DeadLetterQueuePage


def bars(buckets: tuple[Bucket, ...]) -> dict[str, Any] | None:
    """How many came when, as bars of SVG."""
    top = max((bucket.count for bucket in buckets), default=0)
    if not top:
        return None
    width = WIDTH / len(buckets)
    drawn = [
        {
            "x": round(number * width, 1),
            "width": round(width * 0.86, 1),
            "y": round(HEIGHT - HEIGHT * bucket.count / top, 1),
            "height": round(HEIGHT * bucket.count / top, 1),
            "bucket": bucket,
        }
        for number, bucket in enumerate(buckets)
    ]
    last = buckets[-1]
    return {
        "bars": drawn,
        "top": top,
        "since": buckets[0].at,
        "until": last.at + last.seconds,
        "width": WIDTH,
        "height": HEIGHT,
    }
