"""A queue's history: what it was sent, along a time line, and what is known of each message's course."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from brokers.adapters.base import ClusterError, NotFound, Queue
from brokers.adapters.retained import Stretch
from brokers.live.problems import queue_name
from brokers.views.base import ClusterView
from brokers.views.message import SHOWN, body_of, brief, shown

PAGE: Final = 50
DOWNLOAD: Final = 32 << 20
"""Bytes of a body that can be downloaded."""
WIDTH: Final = 600
HEIGHT: Final = 100


class QueueHistoryView(ClusterView):
    """A page of the history. Drawn when asked for: it does not change by itself while somebody reads it."""

    http_method_names = ["get", "head", "options"]  # noqa: RUF012  as Django declares it

    @property
    def key(self) -> tuple[str, str]:
        """The queue's vhost and name."""
        return self.names["vhost"], self.names["name"]

    @property
    def named(self) -> dict[str, Any]:
        """What all templates here need."""
        vhost, name = self.key
        return {
            "cluster": self.cluster,
            "vhost": vhost,
            "name": name,
            "title": queue_name(Queue(vhost, name)),
        }

    def get(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        trouble, first, at = "", None, None
        position, moment = request.GET.get("first", "").strip(), request.GET.get("at", "").strip()
        try:
            first = read_position(position)
            at = read_moment(moment)
        except ValueError as error:
            trouble = str(error)
        context = {**self.named, "trouble": trouble, "at": moment, "asked": position}
        try:
            retained = self.cluster.adapter().retained()
            page = retained.page(self.key, first=first, at=at, count=PAGE)
            stretches = retained.timeline(self.key)
        except NotFound as error:
            return render(request, "history/page.html", context | {"trouble": str(error)}, status=404)
        except ClusterError as error:
            return render(request, "history/page.html", context | {"trouble": str(error)}, status=503)
        after = page.first + len(page.messages)
        context |= {
            "history": page,
            "rows": [{**row, "brief": brief(row)} for row in page.messages],
            "older": max(page.oldest, page.first - PAGE) if page.first > page.oldest else None,
            "newer": after if after < page.end else None,
            "line": time_line(stretches),
        }
        return render(request, "history/page.html", context)


class RetainedMessageView(QueueHistoryView):
    """One retained message, in the dialog or as a page of its own; with ``download`` its body as a file."""

    def get(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        position = int(self.names["position"])
        download = "download" in request.GET
        try:
            row = (
                self.cluster.adapter().retained().message(self.key, position, DOWNLOAD if download else SHOWN)
            )
        except NotFound as error:
            raise Http404(str(error)) from error
        except ClusterError as error:
            context = {**self.named, "position": position, "trouble": str(error)}
            return render(request, "history/message.html", context, status=503)
        if download:
            return as_file(row, f"{self.key[1]}-{position}")
        context = {**self.named, "position": position, "message": shown(row)}
        template = "history/_message.html" if request.htmx else "history/message.html"  # type: ignore[attr-defined]  # set by HtmxMiddleware
        return render(request, template, context)


def as_file(row: Mapping[str, Any], name: str) -> HttpResponse:
    """A body as a download that no browser opens by itself."""
    answer = HttpResponse(body_of(row), content_type="application/octet-stream")
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100]
    answer.headers["Content-Disposition"] = f'attachment; filename="{safe}.bin"'
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer


def read_position(text: str) -> int | None:
    """A position as typed. Raises ``ValueError``."""
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise ValueError(f"a position is a whole number, not {text:.40}")
    return int(text)


def read_moment(text: str) -> float | None:
    """A time as typed or as a browser's field gives it: ISO 8601, UTC unless it names a zone.

    In seconds since the epoch. Raises ``ValueError``.
    """
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"a time is written 2026-01-31T14:05:00, not {text:.40}") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def time_line(stretches: Sequence[Stretch]) -> dict[str, Any] | None:
    """The time line as bars of SVG: their height is how much was published, the lower part is settled."""
    top = max((stretch.published for stretch in stretches), default=0)
    if not top:
        return None
    width = WIDTH / len(stretches)
    bars = []
    for number, stretch in enumerate(stretches):
        height = HEIGHT * stretch.published / top
        done = HEIGHT * stretch.settled / top
        bars.append(
            {
                "x": round(number * width, 1),
                "width": round(width * 0.86, 1),
                "y": round(HEIGHT - height, 1),
                "height": round(height, 1),
                "settled_y": round(HEIGHT - done, 1),
                "settled_height": round(done, 1),
                "stretch": stretch,
            }
        )
    return {
        "bars": bars,
        "top": top,
        "since": stretches[0].at,
        "until": stretches[-1].until,
        "width": WIDTH,
        "height": HEIGHT,
        "settled": sum(stretch.settled for stretch in stretches),
        "published": sum(stretch.published for stretch in stretches),
    }
