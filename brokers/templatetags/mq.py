"""How numbers, times and states are written, on every page alike."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from django import template
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from brokers import naming
from brokers.adapters.base import Queue

register = template.Library()

UNKNOWN: Final = "\N{EN DASH}"
"""Shown for what isn't known; never an empty cell, never a false zero."""


@register.filter
def number(value: int | None) -> str:
    """A whole number with its thousands apart: 1,234,567."""
    return UNKNOWN if value is None else f"{value:,}"


@register.filter
def short(value: float | None) -> str:
    """A number in at most four characters and a unit: 950, 1.2k, 34k, 5.6M."""
    if value is None:
        return UNKNOWN
    size = abs(value)
    for limit, unit in ((999_500_000, "G"), (999_500, "M"), (9_999.5, "k")):
        if size >= limit:
            scaled = value / {"G": 1e9, "M": 1e6, "k": 1e3}[unit]
            return f"{scaled:.1f}{unit}" if abs(scaled) < 99.95 else f"{scaled:.0f}{unit}"
    return f"{value:,.0f}"


@register.filter
def axis(value: float) -> str:
    """A round number beside a scale: 5, 200, 50k, 2.5M."""
    for from_here, divisor, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= from_here:
            return f"{value / divisor:g}{unit}"
    return f"{value:,g}"


@register.filter
def rate(value: float | None) -> str:
    """Messages per second: 0, 0.4, 12, 5,200, 51.3k."""
    if value is None:
        return UNKNOWN
    if value < 0.05:
        return "0"
    return f"{value:.1f}" if value < 9.95 else short(value)


@register.filter
def size(value: float | None) -> str:
    """Bytes: 512 B, 1.5 KiB, 20 MiB."""
    if value is None:
        return UNKNOWN
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1023.5:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.5 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


@register.filter
def millis(value: float | None) -> str:
    """A short duration given in milliseconds: 0.4 ms, 12 ms, 1.20 s."""
    if value is None:
        return UNKNOWN
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.0f} ms" if value >= 9.95 else f"{value:.1f} ms"


@register.filter
def duration(seconds: float | None) -> str:
    """A long duration by its two largest units: 45 s, 3 min 20 s, 5 h 12 min, 3 d 4 h."""
    if seconds is None:
        return UNKNOWN
    if 0 < seconds < 0.95:
        return millis(seconds * 1000)
    rest = round(seconds)
    if rest < 60:
        return f"{rest} s"
    for unit, length, lower, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if rest >= length:
            whole, below = divmod(rest, length)
            return f"{whole} {unit} {below // part} {lower}" if below // part else f"{whole} {unit}"
    raise AssertionError(f"no unit for {seconds} seconds")


@register.filter
def moment(value: datetime | float | None) -> str | SafeString:
    """A point in time: UTC in the page, turned into the viewer's own zone by the browser."""
    if value is None:
        return UNKNOWN
    at = value if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        at.isoformat(timespec="milliseconds"),
        at.strftime("%Y-%m-%d %H:%M:%S UTC"),
        at.strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


class _Look(NamedTuple):
    tone: str
    mark: str
    words: str


_LOOKS: Final = {
    "running": _Look("good", "●", "running"),
    "done": _Look("good", "●", "done"),
    "leader": _Look("good", "★", "leader"),
    "follower": _Look("plain", "●", "follower"),
    "learner": _Look("warn", "◐", "catching up"),
    "starting": _Look("warn", "◐", "starting"),
    "draining": _Look("warn", "◐", "draining"),
    "electing": _Look("warn", "◐", "electing"),
    "paused": _Look("warn", "◐", "paused"),
    "planned": _Look("plain", "○", "planned"),
    "confirmed": _Look("plain", "○", "confirmed"),
    "cancelled": _Look("plain", "○", "cancelled"),
    "no-quorum": _Look("bad", "▲", "no quorum"),
    "down": _Look("bad", "■", "down"),
    "failed": _Look("bad", "■", "failed"),
    "info": _Look("plain", "●", "info"),
    "warning": _Look("warn", "▲", "warning"),
    "critical": _Look("bad", "■", "critical"),
}


@register.filter
def status(state: str, words: str = "") -> SafeString:
    """A state by mark, word and tone: never by colour alone."""
    look = _LOOKS.get(state, _Look("plain", "○", state))
    return format_html(
        '<span class="status {}"><span class="mark" aria-hidden="true">{}</span>{}</span>',
        look.tone,
        look.mark,
        words or look.words,
    )


@register.filter
def queue_id(queue: Queue) -> str:
    """The element id of a queue's row."""
    return naming.dom_id(queue.vhost, queue.name)


@register.filter
def dom_id(name: str) -> str:
    """An element id for something called ``name``, whatever it is called."""
    return naming.dom_id(name)


@register.filter
def get(mapping: Mapping[Any, Any], key: object) -> Any:
    """``mapping[key]``, None when it isn't there."""
    return mapping.get(key)


@register.filter
def replicas(queue: Queue) -> SafeString:
    """A queue's replicas in brief: how many of them run, and how far the last one is behind."""
    total, lag = len(queue.replicas), queue.worst_lag
    if not queue.replicated:
        return format_html('<span class="status plain">{}</span>', "in memory")
    words = f"{queue.present} of {total}"
    if queue.present < total:
        tone, mark = ("bad", "■") if 2 * queue.present <= total else ("warn", "▲")
    elif lag:
        tone, mark = "plain", "◐"
    else:
        tone, mark = "plain", "●"
    if lag:
        words += f", {short(lag)} behind"
    return format_html(
        '<span class="status {}"><span class="mark" aria-hidden="true">{}</span>{}</span>', tone, mark, words
    )


@register.simple_tag(takes_context=True)
def queue_url(context: template.Context, queue: Queue) -> str:
    """The address of a queue's page in the page's cluster."""
    return reverse("queue", args=(context["cluster"].slug, queue.vhost, queue.name))


@register.simple_tag(takes_context=True)
def page_query(context: template.Context, **changes: object) -> str:
    """The page's own query with ``changes``: for links that sort and turn pages."""
    query: str = context["page"].query_with(**changes)
    return query
