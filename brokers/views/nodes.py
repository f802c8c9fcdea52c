"""The nodes of a cluster and what each of them uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from brokers.live.page import Context, Page, Part, Rows
from brokers.live.state import Delta, State
from brokers.views.base import PageView


class NodesPage(Page):
    """All nodes."""

    template = "nodes/page.html"
    section = "nodes"

    def affected(self, delta: Delta) -> bool:
        return delta.everything or bool(delta.nodes)

    def context(self, state: State) -> dict[str, Any]:
        nodes = tuple(state.nodes.values())
        return {"nodes": nodes, "running": state.running_nodes(), "quorum": len(nodes) // 2 + 1}

    def parts(self, context: Context) -> Iterator[Part | Rows]:
        yield Part("nodes/_quorum.html")
        yield Rows("nodes/_rows.html", "nodes/_row.html", "node", context["nodes"], key=lambda node: node.id)


class NodesView(PageView):
    """The table of nodes."""

    page_class = NodesPage
