"""All queues of a cluster: searched, sorted and paged by the server, be there ten or ten thousand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from django.http import QueryDict

from brokers.adapters.base import Queue
from brokers.live.page import Context, Page, Part, Rows
from brokers.live.state import State
from brokers.views.base import PageView

PAGE_SIZE: Final = 50

Key = Callable[[Queue], Any]

COLUMNS: Final[dict[str, tuple[str, Key]]] = {
    "name": ("Queue", lambda queue: (queue.name.casefold(), queue.name, queue.vhost)),
    "state": ("State", lambda queue: queue.state),
    "ready": ("Ready", lambda queue: queue.ready),
    "unacked": ("Unacked", lambda queue: queue.unacked),
    "publish": ("In", lambda queue: queue.publish_rate),
    "deliver": ("Out", lambda queue: queue.deliver_rate),
    "consumers": ("Consumers", lambda queue: queue.consumers),
    "leader": ("Leader", lambda queue: queue.leader or ""),
    "lag": ("Replicas", lambda queue: (len(queue.replicas) - queue.present, queue.worst_lag or 0)),
}
"""What can be sorted by: parameter -> heading and sort key."""

NUMERIC: Final = frozenset({"ready", "unacked", "publish", "deliver", "consumers"})
DEFAULT_SORT: Final = "name"
STATES: Final = {"running": "running", "electing": "electing", "no-quorum": "no quorum"}


class QueuesPage(Page):
    """A page of the table of queues. ``sort`` is a column, with "-" before it for the largest first."""

    template = "queues/page.html"
    section = "queues"

    def clean(self, query: QueryDict) -> dict[str, str]:
        params = {}
        if words := query.get("q", "").strip()[:200]:
            params["q"] = words
        if (state := query.get("state", "")) in STATES:
            params["state"] = state
        sort = query.get("sort", DEFAULT_SORT)
        if sort.removeprefix("-") in COLUMNS and sort != DEFAULT_SORT:
            params["sort"] = sort
        page = query.get("page", "1")
        if page.isdecimal() and len(page) < 6 and int(page) > 1:
            params["page"] = str(int(page))
        return params

    @property
    def sort(self) -> str:
        """The column, perhaps with "-" before it."""
        return self.params.get("sort", DEFAULT_SORT)

    def context(self, state: State) -> dict[str, Any]:
        found = self._found(state)
        pages = max(1, -(-len(found) // PAGE_SIZE))
        number = min(int(self.params.get("page", "1")), pages)
        first = (number - 1) * PAGE_SIZE
        return {
            "queues": found[first : first + PAGE_SIZE],
            "found": len(found),
            "all": len(state.queues),
            "first": first + 1,
            "last": min(first + PAGE_SIZE, len(found)),
            "number": number,
            "pages": pages,
            "q": self.params.get("q", ""),
            "wanted_state": self.params.get("state", ""),
            "states": STATES,
            "headings": [self._heading(name) for name in COLUMNS],
        }

    def parts(self, context: Context) -> Iterator[Part | Rows]:
        yield Part("queues/_count.html")
        yield Rows(
            "queues/_rows.html", "queues/_row.html", "queue", context["queues"], key=lambda queue: queue.key
        )

    def _found(self, state: State) -> list[Queue]:
        found = self._sorted(state)
        if words := self.params.get("q", "").casefold().split():
            found = [
                queue
                for queue in found
                if all(word in queue.name.casefold() or word in queue.vhost.casefold() for word in words)
            ]
        if wanted := self.params.get("state"):
            found = [queue for queue in found if queue.state == wanted]
        return found

    def _sorted(self, state: State) -> list[Queue]:
        """Sorted once for all views that sort alike. Equal ones stay in the order of their names."""

        def by_name() -> list[Queue]:
            return sorted(state.queues.copy().values(), key=COLUMNS[DEFAULT_SORT][1])

        column = self.sort.removeprefix("-")
        in_order = state.derive("queues by name", by_name)
        if self.sort == DEFAULT_SORT:
            return in_order
        return state.derive(
            f"queues by {self.sort}",
            lambda: sorted(in_order, key=COLUMNS[column][1], reverse=self.sort.startswith("-")),
        )

    def _heading(self, name: str) -> dict[str, Any]:
        """A column's heading: a click sorts by it, numbers with the largest first; another turns it round."""
        title, _ = COLUMNS[name]
        ascending, descending = name, f"-{name}"
        numeric = name in NUMERIC
        start, other = (descending, ascending) if numeric else (ascending, descending)
        return {
            "title": title,
            "numeric": numeric,
            "query": self.query_with(sort=other if self.sort == start else start, page=None),
            "sorted": {ascending: "ascending", descending: "descending"}.get(self.sort, ""),
        }


class QueuesView(PageView):
    """The table of queues."""

    page_class = QueuesPage
