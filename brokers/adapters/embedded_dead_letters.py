"""``DeadLetters`` of the embedded cluster, through its nodes' control API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from brokers.adapters.base import QueueKey
from brokers.adapters.dead_letters import (
    Bucket,
    Chosen,
    DeadLetterQueue,
    DeadLetters,
    Done,
    Group,
    Groups,
    Onward,
    Page,
)

TIMEOUT: Final = 10.0
"""Seconds for what takes long: the first count of a long queue, a batch."""


class EmbeddedDeadLetters(DeadLetters):
    """``call(method, params, timeout)`` asks the cluster and raises ``ClusterError``."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def queues(self) -> tuple[DeadLetterQueue, ...]:
        rows = self._call("dead_letter_queues", {}, TIMEOUT)["queues"]
        return tuple(
            DeadLetterQueue(
                row["vhost"], row["name"], tuple(row["sources"]), row["source_count"], row["holds_dead"]
            )
            for row in rows
        )

    def groups(self, queue: QueueKey) -> Groups:
        found = self._call("dead_letter_groups", _names(queue), TIMEOUT)
        return Groups(
            tuple(Group(**row) for row in found["groups"]),
            found["group_count"],
            found["counted"],
            found["messages"],
            found["end"],
            tuple(Bucket(**row) for row in found["over_time"]),
        )

    def page(self, queue: QueueKey, chosen: Chosen, first: int, count: int, max_bytes: int) -> Page:
        params = {**_names(queue), **_selection(chosen, first), "count": count, "max_bytes": max_bytes}
        found = self._call("browse", params, TIMEOUT)
        return Page(found["messages"], found["next"], found["end"])

    def redrive(
        self,
        queue: QueueKey,
        run: str,
        chosen: Chosen,
        first: int,
        count: int,
        onward: Onward,
        *,
        watch: int,
        unsure: bool = False,
        edit: Mapping[str, Any] | None = None,
    ) -> Done:
        params = {
            **_names(queue),
            **_selection(chosen, first),
            "run": run,
            "count": count,
            "exchange": onward.exchange,
            "routing_key": onward.key,
            "watch": watch,
            "unsure": unsure,
            "edit": edit,
        }
        return _done(self._call("redrive", params, TIMEOUT))

    def discard(self, queue: QueueKey, run: str, chosen: Chosen, first: int, count: int) -> Done:
        params = {**_names(queue), **_selection(chosen, first), "run": run, "count": count}
        return _done(self._call("discard", params, TIMEOUT))


def _names(queue: QueueKey) -> dict[str, Any]:
    return {"vhost": queue[0], "name": queue[1]}


def _selection(chosen: Chosen, first: int) -> dict[str, Any]:
    selection: dict[str, Any] = {"from": first, "until": chosen.until, "groups": list(chosen.groups)}
    if chosen.positions is not None:
        selection["positions"] = list(chosen.positions)
    return selection


def _done(row: Mapping[str, Any]) -> Done:
    return Done(
        row["next"],
        row["done"],
        row["kept"],
        row["originals"],
        row.get("came_back", 0),
        row.get("watched", -1),
    )
