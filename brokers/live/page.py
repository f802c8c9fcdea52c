"""What a page shows of a cluster, cut into parts that change by themselves.

One partial, two ways in: a view renders a page's template, which includes the partials; the live hub renders
the same partials when what they show has changed. A page is made from its address alone, so all who look at
the same address share one, and nothing in it may depend on who looks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.http import QueryDict
from django.template.loader import render_to_string

from brokers import models
from brokers.adapters.base import QueueKey
from brokers.live.state import Delta, State
from brokers.live.watcher import state_of

Context = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A partial whose root element has an id of its own and is replaced as a whole."""

    template: str


@dataclass(frozen=True, slots=True)
class Rows:
    """A list whose rows are replaced one by one, or all together when rows came, went or moved.

    ``template`` renders the list (its root has an id), ``row_template`` one row (with an id as well), which
    gets its item as ``name``.
    """

    template: str
    row_template: str
    name: str
    items: Sequence[Any]
    key: Callable[[Any], object]


class Page(ABC):
    """A page of one cluster at one address."""

    template: ClassVar[str]
    section: ClassVar[str]
    """Which entry of the navigation is the current one."""

    def __init__(
        self, cluster: models.Cluster, path: str, names: Mapping[str, str], query: QueryDict
    ) -> None:
        """``names`` are the address's captured parts (vhost, name). Raises ValueError for a bad query."""
        self.cluster = cluster
        self.path = path
        self.names = names
        self.params: dict[str, str] = self.clean(query)

    def clean(self, query: QueryDict) -> dict[str, str]:
        """The query's parameters that the page knows, defaults left out. What it doesn't know is ignored."""
        return {}

    @property
    def address(self) -> str:
        """Path and cleaned query: what identifies the view."""
        return self.path + (f"?{urlencode(self.params)}" if self.params else "")

    def query_with(self, **changes: object) -> str:
        """The page's query with some parameters changed (None: left out), as it goes into a link."""
        merged = {**self.params, **{name: str(value) for name, value in changes.items() if value is not None}}
        for name, value in changes.items():
            if value is None:
                merged.pop(name, None)
        return "?" + urlencode(merged)

    @property
    def state(self) -> State:
        """This process's latest state of the cluster."""
        return state_of(self.cluster.pk, self.cluster.slug, self.cluster.adapter)

    @abstractmethod
    def context(self, state: State) -> dict[str, Any]:
        """What the templates need beside ``page``, ``cluster`` and ``state``."""

    @abstractmethod
    def parts(self, context: Context) -> Iterator[Part | Rows]:
        """The parts that change by themselves."""

    def affected(self, delta: Delta) -> bool:
        """Whether ``delta`` may have changed anything that the page shows."""
        return bool(delta)

    def forget(self, delta: Delta) -> None:  # noqa: B027  a page that keeps nothing needs none
        """Drop what the page keeps between two renderings and ``delta`` has made old."""

    def full_context(self, state: State) -> dict[str, Any]:
        """The context of the page's templates, partials included."""
        return {"page": self, "cluster": self.cluster, "state": state, **self.context(state)}

    def all_parts(self, context: Context) -> Iterator[Part | Rows]:
        """The page's parts and the one that all pages have: whether the cluster answers."""
        yield Part("_cluster.html")
        yield from self.parts(context)


class Feed:
    """The last operations and events of a cluster, read once and kept until told to forget them."""

    def __init__(self, cluster: models.Cluster, queue: QueueKey | None = None, limit: int = 8) -> None:
        """``queue`` leaves only operations on that queue."""
        self._cluster = cluster
        self._queue = queue
        self._limit = limit

    @cached_property
    def operations(self) -> list[models.Operation]:
        """Newest first."""
        found = self._cluster.operations.select_related("who")
        if self._queue is not None:
            vhost, name = self._queue
            found = found.filter(params__vhost=vhost, params__name=name)
        return list(found[: self._limit])

    @cached_property
    def events(self) -> list[models.Event]:
        """Newest first."""
        return list(self._cluster.events.all()[: self._limit])

    @cached_property
    def open_events(self) -> list[models.Event]:
        """Problems that last, oldest first."""
        return list(self._cluster.events.filter(ended__isnull=True).order_by("began"))

    def forget(self) -> None:
        """Read again when asked the next time."""
        for name in ("operations", "events", "open_events"):
            self.__dict__.pop(name, None)


class Renderer:
    """Renders what of a page has changed since the last time. Belongs to one thread."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._sent: dict[str, str] = {}
        self._items: dict[str, dict[object, tuple[Any, str]]] = {}

    def changes(self) -> list[str]:
        """The partials and rows that differ from what was rendered before; maybe none.

        A text holds either parts, or a table's body, or rows of one: a browser that parses a fragment drops
        table rows that stand beside anything else.
        """
        context = self.page.full_context(self.page.state)
        parts, tables = [], []
        for part in self.page.all_parts(context):
            if isinstance(part, Rows):
                tables.append(self._rows(part, context))
            else:
                parts.append(self._part(part, context))
        return [text for text in ("".join(parts), *tables) if text]

    def everything(self) -> list[str]:
        """All partials as they are now."""
        self._sent.clear()
        self._items.clear()
        return self.changes()

    def _part(self, part: Part, context: Context) -> str:
        html = render_to_string(part.template, dict(context))
        if self._sent.get(part.template) == html:
            return ""
        self._sent[part.template] = html
        return html

    def _rows(self, rows: Rows, context: Context) -> str:
        before = self._items.get(rows.template, {})
        now: dict[object, tuple[Any, str]] = {}
        changed = []
        for item in rows.items:
            key = rows.key(item)
            known = before.get(key)
            if known is not None and known[0] == item:
                now[key] = known
                continue
            html = render_to_string(rows.row_template, {**context, rows.name: item})
            now[key] = (item, html)
            if known is None or known[1] != html:
                changed.append(html)
        self._items[rows.template] = now
        if list(now) == list(before) and rows.template in self._sent:
            return "".join(changed)
        self._sent[rows.template] = ""
        return render_to_string(rows.template, dict(context))
