"""One queue: what is in it, what flows through it, who leads it and how far behind its copies are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from brokers.adapters.base import Queue
from brokers.live import charts
from brokers.live.page import Context, Feed, Page, Part, Rows
from brokers.live.problems import queue_name
from brokers.live.state import Delta, State
from brokers.views.base import PageView


class QueuePage(Page):
    """The page of one queue. One that is gone leaves a page that says so and comes to life if it returns."""

    template = "queue/page.html"
    section = "queues"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._feed = Feed(self.cluster, queue=self.key, limit=6)

    @property
    def key(self) -> tuple[str, str]:
        """The queue's vhost and name."""
        return self.names["vhost"], self.names["name"]

    @property
    def title(self) -> str:
        """How the queue is called."""
        return queue_name(Queue(*self.key))

    def affected(self, delta: Delta) -> bool:
        return delta.everything or delta.tick or delta.feed or self.key in delta.queues or bool(delta.nodes)

    def forget(self, delta: Delta) -> None:
        if delta.feed or delta.everything:
            self._feed.forget()

    def context(self, state: State) -> dict[str, Any]:
        queue = state.queues.get(self.key)
        history, now = state.histories.get(self.key), state.sampled
        return {
            "vhost": self.key[0],
            "name": self.key[1],
            "title": self.title,
            "queue": queue,
            "missing": queue is None and state.lost is None,
            "replicas": queue.replicas if queue else (),
            "rates": charts.chart("Messages per second", "/s", charts.RATES, history, now),
            "depth": charts.chart("Messages in the queue", "", charts.DEPTH, history, now),
            "operations": self._feed.operations,
            "nodes": state.nodes,
            "refusal": self.cluster.adapter().refusals.get("transfer_leadership", ""),
        }

    def parts(self, context: Context) -> Iterator[Part | Rows]:
        yield Part("queue/_state.html")
        yield Part("queue/_figures.html")
        yield Part("queue/_charts.html")
        yield Part("queue/_replicas.html")
        yield Part("queue/_operations.html")


class QueueView(PageView):
    """The page of one queue."""

    page_class = QueuePage
