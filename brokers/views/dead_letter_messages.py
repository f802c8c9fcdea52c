"""The messages of a dead-letter queue: a page of them, one in full, all as a file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone

from brokers.adapters.base import ClusterError, Queue
from brokers.adapters.dead_letters import Chosen
from brokers.live.problems import queue_name
from brokers.operations import export
from brokers.views.base import ClusterView
from brokers.views.choice import choice_of
from brokers.views.history import as_file
from brokers.views.message import SHOWN, brief, shown

PAGE: Final = 50
LISTED: Final = 1024
"""Bytes of each body in a list."""
EVERYTHING: Final = 1 << 52
"""A position after all others."""


class DeadLetterView(ClusterView):
    """What views of one dead-letter queue have in common."""

    http_method_names = ["get", "head", "options"]  # noqa: RUF012  as Django declares it

    @property
    def key(self) -> tuple[str, str]:
        """The queue's vhost and name."""
        return self.names["vhost"], self.names["name"]

    @property
    def named(self) -> dict[str, Any]:
        """What templates need to name cluster and queue."""
        return {
            "cluster": self.cluster,
            "vhost": self.key[0],
            "name": self.key[1],
            "title": queue_name(Queue(*self.key)),
        }


class DeadLetterMessagesView(DeadLetterView):
    """A page of messages, perhaps of one group only."""

    def get(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        group = request.GET.get("group", "")[:64]
        first = request.GET.get("from", "0")
        context = {**self.named, "group": group}
        if not (first.isascii() and first.isdecimal() and len(first) < 16):
            raise Http404("a position is a whole number")
        chosen = Chosen(EVERYTHING, groups=(group,) if group else ())
        try:
            found = self.cluster.adapter().dead_letters().page(self.key, chosen, int(first), PAGE, LISTED)
        except ClusterError as error:
            context["trouble"] = str(error)
            return render(request, "dead_letters/messages.html", context, status=503)
        rows = [{**row, "brief": brief(row)} for row in found.messages]
        context |= {"rows": rows, "onward": found.onward, "end": found.end, "first": int(first)}
        return render(request, "dead_letters/messages.html", context)


class DeadLetterMessageView(DeadLetterView):
    """One message in full; with ``download`` its body as a file."""

    def get(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        position = int(self.names["position"])
        download = "download" in request.GET
        chosen = Chosen(EVERYTHING, (position,))
        most = export.WHOLE if download else SHOWN
        context = {**self.named, "position": position}
        try:
            found = self.cluster.adapter().dead_letters().page(self.key, chosen, position, 1, most)
        except ClusterError as error:
            context["trouble"] = str(error)
            return render(request, "dead_letters/message.html", context, status=503)
        if not found.messages:
            context["trouble"] = "This message is no longer in the queue."
            return render(request, "dead_letters/message.html", context, status=404)
        row = found.messages[0]
        if download:
            return as_file(row, f"{self.key[1]}-{position}")
        return render(request, "dead_letters/message.html", context | {"message": shown(row)})


class ExportView(DeadLetterView):
    """The messages chosen, as JSON lines in a file."""

    permission_required = "brokers.operate_cluster"
    http_method_names = ["post", "options"]  # noqa: RUF012  as Django declares it

    def post(self, request: HttpRequest, **kwargs: str) -> HttpResponse | StreamingHttpResponse:
        try:
            positions, groups = choice_of(request.POST)
            end = self.cluster.adapter().dead_letters().page(self.key, Chosen(0), 0, 1, 0).end
        except ValueError as error:
            raise Http404(str(error)) from error
        except ClusterError as error:
            return render(
                request, "dead_letters/message.html", {**self.named, "trouble": str(error)}, status=503
            )
        params = {
            "vhost": self.key[0],
            "name": self.key[1],
            "positions": positions,
            "groups": groups,
            "until": end,
        }
        lines = export.lines(export.begin(self.cluster, params, request.user))
        # Under ASGI a plain iterator would be read to its end before the first byte goes out.
        content = _apart(lines) if isinstance(request, ASGIRequest) else lines
        answer = StreamingHttpResponse(content, content_type="application/x-ndjson")
        name = f"dead-letters-{timezone.now():%Y%m%dT%H%M%S}.jsonl"
        answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer


async def _apart(lines: Iterator[bytes]) -> AsyncIterator[bytes]:
    """``lines`` read in a thread, some at a time."""

    def some() -> bytes:
        parts = []
        for line in lines:
            parts.append(line)
            if len(parts) == export.PAGE:
                break
        return b"".join(parts)

    try:
        while part := await sync_to_async(some)():
            yield part
    finally:
        await sync_to_async(lines.close)()  # type: ignore[attr-defined]  # a generator has it
