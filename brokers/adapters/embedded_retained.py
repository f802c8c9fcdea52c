"""``Retained`` of the embedded cluster, through its nodes' control API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from brokers.adapters.base import QueueKey
from brokers.adapters.retained import Found, History, Message, Replay, Retained, Selection, Stretch, Target

TIMEOUT: Final = 15.0
"""Seconds; a node counts for less than two of them before it says how far it got."""

Call = Callable[..., Any]


class EmbeddedRetained(Retained):
    """``call(method, params, timeout)`` asks any node, which asks the one that knows."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def page(self, queue: QueueKey, *, first: int | None, at: float | None, count: int) -> History:
        params = {**_names(queue), "first": first, "at": _millis(at), "count": count}
        found = self._call("history", params, timeout=TIMEOUT)
        return History(found["oldest"], found["end"], found["first"], found["messages"])

    def message(self, queue: QueueKey, position: int, max_bytes: int) -> Message:
        params = {**_names(queue), "position": position, "max_bytes": max_bytes}
        found: Message = self._call("message", params, timeout=TIMEOUT)
        return found

    def timeline(self, queue: QueueKey) -> Sequence[Stretch]:
        return [Stretch(**row) for row in self._call("timeline", _names(queue), timeout=TIMEOUT)["buckets"]]

    def find(self, queue: QueueKey, selection: Selection, to: Target | None, preview: int) -> Found:
        params = {
            **_names(queue),
            "first": selection.first,
            "end": selection.end,
            "since": _millis(selection.since),
            "until": _millis(selection.until),
            **_matching(selection),
            **_to(to),
        }
        found = self._call("replay_plan", {**params, "preview": preview}, timeout=TIMEOUT)
        first, count, size, messages = found["first"], found["count"], found["bytes"], found["messages"]
        # The stretch is fixed by the first answer: what is published meanwhile is not counted.
        params |= {"first": first, "end": found["end"], "since": None, "until": None}
        while found["counted_to"] < params["end"]:
            rest = {**params, "from": found["counted_to"], "preview": preview - len(messages)}
            found = self._call("replay_plan", rest, timeout=TIMEOUT)
            count += found["count"]
            size += found["bytes"]
            messages += found["messages"]
        return Found(first, params["end"], found["oldest"], count, size, messages)

    def replay(
        self, job: str, queue: QueueKey, found: tuple[int, int], selection: Selection, to: Target, rate: int
    ) -> Replay:
        params = {
            **_names(queue),
            "id": job,
            "first": found[0],
            "end": found[1],
            **_matching(selection),
            **_to(to),
            "rate": rate,
        }
        return _replay(self._call("replay_start", params, timeout=TIMEOUT))

    def replay_status(self, job: str, node: str) -> Replay:
        return _replay(self._call("replay_status", {"id": job, "node": node}))

    def replay_cancel(self, job: str, node: str) -> Replay:
        return _replay(self._call("replay_cancel", {"id": job, "node": node}, timeout=TIMEOUT))


def _names(queue: QueueKey) -> dict[str, Any]:
    return {"vhost": queue[0], "name": queue[1]}


def _matching(selection: Selection) -> dict[str, Any]:
    return {"match_key": selection.key, "match_headers": dict(selection.headers)}


def _to(to: Target | None) -> dict[str, Any]:
    if to is None:
        return {}
    return {"to_vhost": to.vhost, "to_queue": to.queue, "to_exchange": to.exchange, "to_routing_key": to.key}


def _millis(seconds: float | None) -> int | None:
    return None if seconds is None else max(0, round(seconds * 1000))


def _replay(row: Mapping[str, Any]) -> Replay:
    return Replay(
        row["node"],
        row["state"],
        row["cursor"],
        row["end"],
        row["published"],
        row["unroutable"],
        row["gone"],
        row["waiting"],
        row["error"],
    )
