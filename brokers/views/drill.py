"""Fail-over drills: their history with a trend, and the form that begins one on a queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from kombu.exceptions import OperationalError

from brokers.adapters.base import ClusterError, Queue
from brokers.live.page import Context, Page, Part, Rows
from brokers.live.problems import queue_name
from brokers.live.state import Delta, State
from brokers.models import Operation
from brokers.operations import runner
from brokers.operations.drill import FAULTS, Drill
from brokers.tasks import run_drill
from brokers.views.base import ClusterView, PageView

KEPT: Final = 50
"""Drills that the page shows."""
REASON_LENGTH: Final = 300
WIDTH: Final = 600
HEIGHT: Final = 100


class DrillsPage(Page):
    """All drills of a cluster, newest first, and how unavailability went from drill to drill."""

    template = "drill/page.html"
    section = "drills"

    def affected(self, delta: Delta) -> bool:
        return delta.feed or delta.everything

    def context(self, state: State) -> dict[str, Any]:
        drills = list(self.cluster.operations.filter(kind=Drill.name).select_related("who")[:KEPT])
        return {"drills": drills, "trend": trend(drills)}

    def parts(self, context: Context) -> Iterator[Part | Rows]:
        yield Part("drill/_drills.html")


class DrillsView(PageView):
    """The history of drills."""

    permission_required = "brokers.view_operation"
    page_class = DrillsPage


class DrillView(ClusterView):
    """GET plans and changes nothing; POST has a worker do it, if the plan still holds."""

    permission_required = "brokers.operate_cluster"
    http_method_names = ["get", "head", "post", "options"]  # noqa: RUF012  as Django declares it

    def get(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        return self._show(request, request.GET.get("fault", "transfer"))

    def post(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        fault = request.POST.get("fault", "")
        try:
            plan = Drill().plan(self.cluster, self.cluster.adapter(), self._params(fault))
        except ClusterError as error:
            return self._show(request, fault, trouble=str(error), status=409)
        if plan.refusal:
            return self._show(request, fault, status=409)
        if request.POST.get("seen") != f"{plan.basis['leader']}-{plan.basis['term']}":
            trouble = "The queue's leader has changed since you opened this. Nothing was done; look again."
            return self._show(request, fault, trouble=trouble, status=409)
        if fault != "transfer" and request.POST.get("typed", "").strip() != plan.params["node"]:
            trouble = f"Type the node's name, {plan.params['node']}, to confirm. Nothing was done."
            return self._show(request, fault, trouble=trouble, status=409)
        reason = request.POST.get("reason", "").strip()[:REASON_LENGTH]
        operation = runner.confirm(
            Drill.name, self.cluster, self.title, plan, who=request.user, reason=reason
        )
        try:
            run_drill.apply_async((operation.pk,), retry=False)
        except (OperationalError, OSError) as error:
            runner.fail(operation, f"no worker could be asked to do it: {error}")
        return redirect("operation", self.cluster.slug, operation.pk)

    @property
    def title(self) -> str:
        """How the queue is called; also the operation's target."""
        return queue_name(Queue(self.names["vhost"], self.names["name"]))

    def _params(self, fault: str) -> dict[str, Any]:
        return {"vhost": self.names["vhost"], "name": self.names["name"], "fault": fault}

    def _show(
        self, request: HttpRequest, fault: str, *, trouble: str = "", status: int = 200
    ) -> HttpResponse:
        context: dict[str, Any] = {
            "cluster": self.cluster,
            "title": self.title,
            "vhost": self.names["vhost"],
            "name": self.names["name"],
            "faults": FAULTS,
            "fault": fault,
            "trouble": trouble,
        }
        try:
            context["plan"] = Drill().plan(self.cluster, self.cluster.adapter(), self._params(fault))
        except ClusterError as error:
            context["trouble"] = trouble or str(error)
        return render(request, "drill/begin.html", context, status=status)


def trend(drills: Sequence[Operation]) -> dict[str, Any] | None:
    """Unavailability of drills (given newest first) as bars of SVG, the oldest left; None without any."""
    done = [drill for drill in reversed(drills) if drill.state == Operation.State.DONE]
    if not done:
        return None
    top = max(drill.result["unavailable_ms"] for drill in done) or 1.0
    slot = WIDTH / max(len(done), 12)
    bars = []
    for number, drill in enumerate(done):
        height = max(1.0, HEIGHT * drill.result["unavailable_ms"] / top)
        bars.append(
            {
                "x": round(number * slot, 1),
                "width": round(0.8 * slot, 1),
                "y": round(HEIGHT - height, 1),
                "height": round(height, 1),
                "drill": drill,
            }
        )
    return {"bars": bars, "top": top, "width": WIDTH, "height": HEIGHT, "count": len(done)}
