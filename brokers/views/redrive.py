"""The dialogs "Redrive" and "Discard" of a dead-letter queue."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Final

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render

from brokers.adapters.base import ClusterError
from brokers.adapters.dead_letters import Chosen, Message
from brokers.operations import runner, worker
from brokers.operations.base import Plan
from brokers.operations.discard import Discard
from brokers.operations.long import LongKind
from brokers.operations.redrive import Redrive
from brokers.views.choice import choice_of, whole
from brokers.views.dead_letter_messages import DeadLetterView

EDITED: Final = 256 * 1024
"""Bytes of the largest body that can be edited."""
REASON_LENGTH: Final = 300
STOP_AFTER: Final = 10
DEATHS: Final = ("x-death", "x-first-death-", "x-last-death-")
"""Headers that say how a message died: they are not edited."""


class ActView(DeadLetterView):
    """GET plans and changes nothing; POST begins what was shown."""

    permission_required = "brokers.operate_cluster"
    http_method_names = ["get", "head", "post", "options"]  # noqa: RUF012  as Django declares it
    kind: ClassVar[LongKind]

    def get(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        return self._show(request, request.GET)

    def post(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        form = request.POST
        try:
            params = self._params(form)
            rate = whole(form.get("rate", ""), "the rate", 1_000_000) or None
            self._check(form)
            plan = self.kind.plan(self.cluster, self.cluster.adapter(), params)
        except (ValueError, ClusterError) as error:
            return self._show(request, form, trouble=str(error), status=409)
        if plan.refusal:
            return self._show(request, form, status=409)
        reason = form.get("reason", "").strip()[:REASON_LENGTH]
        operation = runner.confirm(
            self.kind.name, self.cluster, self.named["title"], plan, who=request.user, reason=reason
        )
        worker.set_rate(operation, rate)
        worker.start(operation)
        if not request.htmx:  # type: ignore[attr-defined]  # set by HtmxMiddleware
            return redirect("operation", self.cluster.slug, operation.pk)
        context = {**self.named, "operation": operation, "heading": self.kind.title}
        return render(request, "dead_letters/_begun.html", context)

    def _params(self, form: QueryDict) -> dict[str, Any]:
        positions, groups = choice_of(form)
        return {
            "vhost": self.key[0],
            "name": self.key[1],
            "positions": positions,
            "groups": groups,
            "until": whole(form.get("until", ""), "the end"),
        }

    def _check(self, form: QueryDict) -> None:
        """Raises ``ValueError`` when the confirmation is not enough."""

    def _more(self, form: QueryDict) -> dict[str, Any]:
        """What the dialog needs beside the plan."""
        return {}

    def _show(
        self, request: HttpRequest, form: QueryDict, trouble: str = "", status: int = 200
    ) -> HttpResponse:
        context: dict[str, Any] = {**self.named, "form": form, "trouble": trouble}
        try:
            positions, groups = choice_of(form)
            context |= {"positions": positions, "groups": groups}
            plan: Plan = self.kind.plan(self.cluster, self.cluster.adapter(), self._params(form))
            context |= {"plan": plan, **self._more(form)}
        except (ValueError, ClusterError) as error:
            context["trouble"] = trouble or str(error)
        name = self.kind.name
        template = f"dead_letters/_{name}.html" if request.htmx else f"dead_letters/{name}.html"  # type: ignore[attr-defined]  # as above
        return render(request, template, context, status=status)


class DiscardView(ActView):
    """Throws messages away, when the queue's name was typed."""

    kind = Discard()

    def _check(self, form: QueryDict) -> None:
        if form.get("typed", "") != self.key[1]:
            raise ValueError(f"Type the queue's name, {self.key[1]}, to confirm. Nothing was done.")


class RedriveView(ActView):
    """Sends messages on; a single one may be edited before."""

    kind = Redrive()

    def _params(self, form: QueryDict) -> dict[str, Any]:
        params = super()._params(form)
        stop = form.get("stop_after", str(STOP_AFTER))
        params["stop_after"] = whole(stop, "the number of messages that may come back")
        elsewhere = form.get("to") == "elsewhere"
        params["exchange"] = form.get("exchange", "")[:255] if elsewhere else None
        params["routing_key"] = (form.get("routing_key", "")[:255] or None) if elsewhere else None
        params["edit"] = self._edit(form) if form.get("edit") else None
        return params

    def _edit(self, form: QueryDict) -> dict[str, Any]:
        """The message as it was edited. Raises ``ValueError``."""
        try:
            properties = json.loads(form.get("properties", "{}"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the properties are no JSON: {error}") from None
        if not isinstance(properties, dict):
            raise ValueError("the properties are a JSON object")
        payload, encoding = form.get("payload", ""), form.get("payload_encoding", "string")
        if encoding == "string":
            # Browsers send line ends as CR LF whatever they were.
            payload = payload.replace("\r\n", "\n")
        if len(payload.encode()) > 2 * EDITED:
            raise ValueError(f"the body is too large to be edited here; {EDITED:,} bytes at most")
        return {"payload": payload, "payload_encoding": encoding, "properties": properties}

    def _more(self, form: QueryDict) -> dict[str, Any]:
        positions, _ = choice_of(form)
        more: dict[str, Any] = {"stop_after": form.get("stop_after", str(STOP_AFTER))}
        if positions is None or len(positions) != 1:
            return more
        chosen = Chosen(1 << 52, tuple(positions))
        letters = self.cluster.adapter().dead_letters()
        found = letters.page(self.key, chosen, positions[0], 1, EDITED).messages
        if not found or found[0]["truncated"]:
            return more
        row = found[0]
        return more | {
            "editable": True,
            "payload": form.get("payload", row["payload"]),
            "payload_encoding": row["payload_encoding"],
            "properties": form.get("properties", _properties(row)),
        }


def _properties(row: Message) -> str:
    headers = {name: value for name, value in row["headers"].items() if not name.startswith(DEATHS)}
    properties = {
        name: value["$time"] if isinstance(value, dict) and "$time" in value else value
        for name, value in row["properties"].items()
    }
    return json.dumps({**properties, "headers": headers}, indent=2, ensure_ascii=False)
