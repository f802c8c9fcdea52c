"""Is all well, at one glance; and if not: what, since when, and where to go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from brokers.live import charts, problems
from brokers.live.own import only_own
from brokers.live.page import Context, Feed, Page, Part, Rows
from brokers.live.state import Delta, State
from brokers.views.base import PageView


class OverviewPage(Page):
    """The cluster as a whole."""

    template = "overview/page.html"
    section = "overview"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._feed = Feed(self.cluster)

    def forget(self, delta: Delta) -> None:
        if delta.feed or delta.everything:
            self._feed.forget()

    def context(self, state: State) -> dict[str, Any]:
        nodes = tuple(state.nodes.values())
        found = state.derive("problems", lambda: self._problems(state))
        now = state.sampled
        return {
            "nodes": nodes,
            "running": state.running_nodes(),
            "problems": found,
            "since": {event.subject: event.began for event in self._feed.open_events},
            "totals": state.totals,
            "fresh": state.lost is None and state.derive("fresh", lambda: only_own(state)),
            "rates": charts.chart("Messages per second", "/s", charts.RATES, state.totals_history, now),
            "depth": charts.chart("Messages in queues", "", charts.DEPTH, state.totals_history, now),
            "operations": self._feed.operations,
            "events": self._feed.events,
        }

    def parts(self, context: Context) -> Iterator[Part | Rows]:
        yield Part("overview/_verdict.html")
        yield Part("overview/_start.html")
        yield Part("overview/_totals.html")
        yield Part("overview/_charts.html")
        yield Rows("nodes/_rows.html", "nodes/_row.html", "node", context["nodes"], key=lambda node: node.id)
        yield Part("overview/_operations.html")
        yield Part("overview/_events.html")

    @staticmethod
    def _problems(state: State) -> list[problems.Problem]:
        return problems.find(tuple(state.nodes.values()), tuple(state.queues.values()), state.lost)


class OverviewView(PageView):
    """The overview."""

    page_class = OverviewPage
