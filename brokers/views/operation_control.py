"""The dialog that pauses, resumes, limits and cancels a long operation."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from brokers.models import Operation
from brokers.operations import KINDS, worker
from brokers.operations.long import LongKind
from brokers.views.base import ClusterView
from brokers.views.choice import whole


class OperationControlView(ClusterView):
    """GET shows what can be done; POST does it. Only long operations can be steered."""

    permission_required = "brokers.operate_cluster"
    http_method_names = ["get", "head", "post", "options"]  # noqa: RUF012  as Django declares it

    def get(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        return self._show(request)

    def post(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        operation = self._operation()
        if not isinstance(KINDS.get(operation.kind), LongKind) or operation.state not in Operation.OPEN:
            return self._show(request, "It is over: there is nothing to steer any more.", 409)
        try:
            match request.POST.get("act"):
                case "pause":
                    worker.pause(operation)
                case "resume":
                    worker.resume(operation)
                case "cancel":
                    worker.cancel(operation)
                case "limit":
                    rate = whole(request.POST.get("rate", ""), "the rate", 1_000_000)
                    worker.set_rate(operation, rate or None)
                case other:
                    raise ValueError(f"there is no such act: {other!r:.40}")
        except ValueError as error:
            return self._show(request, str(error), 409)
        if not request.htmx:  # type: ignore[attr-defined]  # set by HtmxMiddleware
            return redirect("operation", self.cluster.slug, operation.pk)
        return self._show(request, done=True)

    def _operation(self) -> Operation:
        return get_object_or_404(Operation, cluster=self.cluster, pk=self.names["pk"])

    def _show(
        self, request: HttpRequest, trouble: str = "", status: int = 200, *, done: bool = False
    ) -> HttpResponse:
        operation = self._operation()
        kind = KINDS.get(operation.kind)
        context = {
            "cluster": self.cluster,
            "operation": operation,
            "unit": kind.unit if isinstance(kind, LongKind) else "",
            "open": operation.state in Operation.OPEN and isinstance(kind, LongKind),
            "trouble": trouble,
            "done": done,
        }
        template = "operation/_control.html" if request.htmx else "operation/control.html"  # type: ignore[attr-defined]  # as above
        return render(request, template, context, status=status)
