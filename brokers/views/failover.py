"""The dialog "Fail over": what would happen, a confirmation, and what happened."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from brokers.adapters.base import ClusterError, Queue
from brokers.live.problems import queue_name
from brokers.operations import runner
from brokers.operations.base import Plan
from brokers.operations.failover import Failover, candidates_of
from brokers.views.base import ClusterView

REASON_LENGTH = 300


class FailoverView(ClusterView):
    """GET plans and changes nothing; POST does it, if the plan still holds."""

    permission_required = "brokers.operate_cluster"
    http_method_names = ["get", "head", "post", "options"]  # noqa: RUF012  as Django declares it

    def get(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        return self._show(request, request.GET.get("target") or None)

    def post(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        target = request.POST.get("target") or None
        reason = request.POST.get("reason", "").strip()[:REASON_LENGTH]
        seen = {"leader": request.POST.get("seen_leader"), "term": request.POST.get("seen_term")}
        try:
            plan = self._plan(target)
        except ClusterError as error:
            return self._show(request, target, reason=reason, trouble=str(error), status=409)
        if plan.refusal:
            return self._show(request, target, reason=reason, status=409)
        if seen != {name: str(value) for name, value in plan.basis.items()}:
            trouble = (
                f"The queue's leader has changed since you opened this: it is {plan.basis['leader']} now. "
                f"Nothing was done. Look at the new plan and confirm again."
            )
            return self._show(request, None, reason=reason, trouble=trouble, status=409)
        operation = runner.confirm(
            Failover.name, self.cluster, self.title, plan, who=request.user, reason=reason
        )
        try:
            runner.run(operation)
        except runner.Busy as error:
            return self._show(request, target, reason=reason, trouble=str(error), status=409)
        if not request.htmx:  # type: ignore[attr-defined]  # set by HtmxMiddleware
            return redirect("operation", self.cluster.slug, operation.pk)
        return render(
            request,
            "failover/_result.html",
            {"operation": operation, "cluster": self.cluster, "title": self.title},
        )

    @property
    def title(self) -> str:
        """How the queue is called; also the operation's target."""
        return queue_name(Queue(self.names["vhost"], self.names["name"]))

    def _plan(self, target: str | None) -> Plan:
        params = {"vhost": self.names["vhost"], "name": self.names["name"], "target": target}
        return Failover().plan(self.cluster, self.cluster.adapter(), params)

    def _show(
        self,
        request: HttpRequest,
        target: str | None,
        *,
        reason: str = "",
        trouble: str = "",
        status: int = 200,
    ) -> HttpResponse:
        context: dict[str, Any] = {
            "cluster": self.cluster,
            "title": self.title,
            "vhost": self.names["vhost"],
            "name": self.names["name"],
            "reason": reason,
            "trouble": trouble,
        }
        try:
            queue = self.cluster.adapter().queue(self.names["vhost"], self.names["name"])
            context |= {"plan": self._plan(target), "candidates": candidates_of(queue), "queue": queue}
        except ClusterError as error:
            context["trouble"] = trouble or str(error)
        template = "failover/_dialog.html" if request.htmx else "failover/page.html"  # type: ignore[attr-defined]  # as above
        return render(request, template, context, status=status)
