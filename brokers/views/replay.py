"""Replay of a queue: choose what and where to, see exactly what that comes to, confirm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from brokers.adapters.base import ClusterError, Queue
from brokers.live.problems import queue_name
from brokers.models import Operation
from brokers.operations import runner, worker
from brokers.operations.replay import ReplayKind, read_headers
from brokers.views.base import ClusterView
from brokers.views.history import read_moment, read_position
from brokers.views.message import brief

PREVIEW: Final = 10
REASON_LENGTH: Final = 300
MAX_TEXT: Final = 4_000
FIELDS: Final = (
    "first",
    "end",
    "since",
    "until",
    "key",
    "headers",
    "to",
    "to_queue",
    "to_exchange",
    "to_key",
)


class ReplayView(ClusterView):
    """GET plans and changes nothing; POST begins it, when it is still what was shown."""

    permission_required = "brokers.operate_cluster"
    http_method_names = ["get", "head", "post", "options"]  # noqa: RUF012  as Django declares it

    def get(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        return self._show(request, request.GET, planned="plan" in request.GET)

    def post(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        form = request.POST
        try:
            params = self._params(form)
            rate = read_rate(form.get("rate", ""))
            plan, found = ReplayKind().preview(self.cluster.adapter(), params, 0)
        except (ValueError, ClusterError) as error:
            return self._show(request, form, trouble=str(error), status=409)
        if plan.refusal or found is None:
            return self._show(request, form, planned=True, status=409)
        if form.get("seen") != f"{found.first}-{found.end}-{found.count}":
            trouble = "What would be replayed has changed since you looked. Nothing was done; look again."
            return self._show(request, form, planned=True, trouble=trouble, status=409)
        reason = form.get("reason", "").strip()[:REASON_LENGTH]
        operation = runner.confirm(
            ReplayKind.name, self.cluster, self.title, plan, who=request.user, reason=reason
        )
        if rate:
            Operation.objects.filter(pk=operation.pk).update(rate=rate)
        worker.start(operation)
        return redirect("operation", self.cluster.slug, operation.pk)

    @property
    def title(self) -> str:
        """How the queue is called; also the operation's target."""
        return queue_name(Queue(self.names["vhost"], self.names["name"]))

    def _params(self, form: Mapping[str, Any]) -> dict[str, Any]:
        def typed(name: str) -> str:
            return str(form.get(name, "")).strip()[:MAX_TEXT]

        params: dict[str, Any] = {
            "vhost": self.names["vhost"],
            "name": self.names["name"],
            "first": read_position(typed("first")),
            "end": read_position(typed("end")),
            "since": read_moment(typed("since")),
            "until": read_moment(typed("until")),
            "key": typed("key"),
            "headers": read_headers(typed("headers")),
        }
        where = form.get("to", "same")
        if where == "queue":
            if not typed("to_queue"):
                raise ValueError("say which queue to replay into")
            params["to_queue"] = typed("to_queue")
        elif where == "exchange":
            params["to_exchange"] = typed("to_exchange")
            params["to_key"] = typed("to_key") or None
        return params

    def _show(
        self,
        request: HttpRequest,
        form: Mapping[str, Any],
        *,
        planned: bool = False,
        trouble: str = "",
        status: int = 200,
    ) -> HttpResponse:
        context: dict[str, Any] = {
            "cluster": self.cluster,
            "title": self.title,
            "vhost": self.names["vhost"],
            "name": self.names["name"],
            "form": {name: form.get(name, "") for name in (*FIELDS, "rate", "reason")},
            "trouble": trouble,
        }
        if planned:
            try:
                plan, found = ReplayKind().preview(self.cluster.adapter(), self._params(form), PREVIEW)
                context |= {"plan": plan, "found": found}
                if found is not None:
                    context["rows"] = [{**row, "brief": brief(row)} for row in found.messages]
            except (ValueError, ClusterError) as error:
                context["trouble"] = trouble or str(error)
        return render(request, "replay/page.html", context, status=status)


def read_rate(text: str) -> int | None:
    """Messages a second; nothing is no limit. Raises ``ValueError``."""
    if not text.strip():
        return None
    if not (text.strip().isdecimal() and 0 < int(text) <= 1_000_000):
        raise ValueError(f"a rate is a whole number of messages a second, not {text:.40}")
    return int(text)
