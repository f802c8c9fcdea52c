"""What operators did: all of it, newest first, and one operation in full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.http import QueryDict

from brokers.live.page import Context, Page, Part, Rows
from brokers.live.state import Delta, State
from brokers.models import Operation
from brokers.operations import KINDS
from brokers.operations.long import LongKind
from brokers.views.base import PageView

PAGE_SIZE: Final = 50


class OperationsPage(Page):
    """A page of the list of operations."""

    template = "operations/page.html"
    section = "operations"

    def clean(self, query: QueryDict) -> dict[str, str]:
        page = query.get("page", "1")
        return {"page": str(int(page))} if page.isdecimal() and len(page) < 6 and int(page) > 1 else {}

    def affected(self, delta: Delta) -> bool:
        return delta.feed or delta.everything

    def context(self, state: State) -> dict[str, Any]:
        found = self.cluster.operations.select_related("who")
        number = int(self.params.get("page", "1"))
        first = (number - 1) * PAGE_SIZE
        listed = list(found[first : first + PAGE_SIZE + 1])
        return {
            "operations": listed[:PAGE_SIZE],
            "number": number,
            "more": len(listed) > PAGE_SIZE,
        }

    def parts(self, context: Context) -> Iterator[Part | Rows]:
        yield Part("operations/_rows.html")


class OperationsView(PageView):
    """The list of operations."""

    permission_required = "brokers.view_operation"
    page_class = OperationsPage


class OperationPage(Page):
    """One operation: its plan, its course, its result."""

    template = "operation/page.html"
    section = "operations"

    def affected(self, delta: Delta) -> bool:
        return delta.feed or delta.everything

    def context(self, state: State) -> dict[str, Any]:
        found = self.cluster.operations.select_related("who")
        operation = found.filter(pk=self.names["pk"]).first()
        long = operation is not None and isinstance(KINDS.get(operation.kind), LongKind)
        return {
            "operation": operation,
            "missing": operation is None,
            "steered": operation is not None and long and operation.state in Operation.OPEN,
        }

    def parts(self, context: Context) -> Iterator[Part | Rows]:
        yield Part("operation/_operation.html")


class OperationView(PageView):
    """One operation."""

    permission_required = "brokers.view_operation"
    page_class = OperationPage
