"""Redrive: dead letters are sent on, back to where they died or elsewhere, and leave their queue."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Generator, Mapping
from typing import Any, ClassVar, Final

from brokers import models
from brokers.adapters.base import Cluster, ClusterError
from brokers.adapters.dead_letters import Chosen, Groups, Onward
from brokers.operations.base import Plan
from brokers.operations.long import Job, LongKind, Step

BATCH: Final = 500
"""Messages of one step at most."""


class CameBackDead(ClusterError):
    """So many redriven messages died again that it is better to stop."""


class Redrive(LongKind):
    """Parameters: vhost, name; positions (None: all) or groups; until; exchange and routing_key (None: back
    to where it died, the key it had); stop_after (None: never); edit (None, or payload, payload_encoding and
    properties of a single message).
    """

    name: ClassVar[str] = "redrive"
    title: ClassVar[str] = "Redrive"

    def plan(self, row: models.Cluster, cluster: Cluster, params: Mapping[str, Any]) -> Plan:
        found = cluster.dead_letters().groups((params["vhost"], params["name"]))
        fixed = fix(params, found)
        if refusal := refuse(params, fixed, found):
            return Plan(refusal=refusal, params=fixed)
        queue = cluster.queue(params["vhost"], params["name"])
        lines = [
            f"{how_many(fixed, found)} in {params['name']}: {_where(params, found)}.",
            "Each leaves this queue only after its new place has confirmed it. What cannot be sent stays.",
            "What comes into the queue from now on is left alone.",
        ]
        if params.get("edit"):
            lines.append(
                "It goes with the body and the headers as edited; the original is kept with the operation."
            )
        if params.get("stop_after") is not None:
            lines.append(f"It stops when more than {params['stop_after']:,} of them have come back dead.")
        warnings = []
        if queue.consumers:
            warnings.append(
                f"The queue has {queue.consumers:,} consumers. What they hold when it is its turn stays theirs."
            )
        if params.get("stop_after") is None:
            warnings.append("Nothing stops it if the messages die again: they come back here.")
        return Plan(tuple(lines), tuple(warnings), "", {"until": fixed["until"]}, fixed)

    def steps(self, cluster: Cluster, job: Job) -> Generator[Step, None, dict[str, Any]]:
        params = job.params
        queue, letters = (params["vhost"], params["name"]), cluster.dead_letters()
        onward = Onward(params.get("exchange"), params.get("routing_key"))
        tally, unsure = Tally(job.cursor, params["until"]), job.unsure
        limit = params.get("stop_after")
        while tally.at is not None:
            done = letters.redrive(
                queue,
                params["run"],
                chosen_of(params),
                tally.at,
                job.batch(BATCH),
                onward,
                watch=tally.watched,
                unsure=unsure,
                edit=params.get("edit"),
            )
            unsure = False
            tally.add(done.onward, done.count, done.kept)
            tally.originals += done.originals
            tally.came_back += done.came_back
            tally.watched = max(tally.watched, done.watched)
            yield Step(tally.as_json(), tally.handled, params["count"], done.count, f"{tally.done:,} sent on")
            if limit is not None and tally.came_back > limit:
                raise CameBackDead(
                    f"Stopped: {tally.came_back:,} of {tally.done:,} messages came back dead, more than the "
                    f"{limit:,} that were allowed. The others stay in the queue."
                )
        return self.so_far(tally.as_json())

    def so_far(self, cursor: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in cursor.items() if name not in ("at", "watched")}

    def summary(self, result: Mapping[str, Any]) -> str:
        done = result.get("done", 0)
        text = f"{done:,} {'message was' if done == 1 else 'messages were'} sent on"
        if back := result.get("came_back", 0):
            text += f", {back:,} of them have come back dead"
        return f"{text}.{kept_words(result)}"


class Tally:
    """What has been done so far: the cursor of a redrive or of a discard."""

    def __init__(self, cursor: Mapping[str, Any], until: int) -> None:
        self.at: int | None = cursor.get("at", 0)
        self.done: int = cursor.get("done", 0)
        self.kept = Counter(cursor.get("kept", {}))
        self.came_back: int = cursor.get("came_back", 0)
        self.watched: int = cursor.get("watched", until)
        self.originals: list[Mapping[str, Any]] = list(cursor.get("originals", ()))

    def add(self, onward: int | None, count: int, kept: Mapping[str, int]) -> None:
        """One more batch."""
        self.at = onward
        self.done += count
        self.kept.update(kept)

    @property
    def handled(self) -> int:
        """Messages that were looked at, whatever became of them."""
        return self.done + sum(self.kept.values())

    def as_json(self) -> dict[str, Any]:
        """As it is kept with the operation."""
        return {
            "at": self.at,
            "done": self.done,
            "kept": dict(self.kept),
            "came_back": self.came_back,
            "watched": self.watched,
            "originals": self.originals,
        }


def fix(params: Mapping[str, Any], found: Groups) -> dict[str, Any]:
    """The parameters with what they come to now: how many messages, all before which position."""
    positions, groups = params.get("positions"), params.get("groups") or []
    if positions is not None:
        count = len(positions)
    elif groups:
        count = sum(group.count for group in found.groups if group.id in groups)
    else:
        count = found.messages
    return {
        **params,
        "until": min(params.get("until") or found.end, found.end),
        "count": count,
        "run": params.get("run") or secrets.token_hex(8),
    }


def refuse(params: Mapping[str, Any], fixed: Mapping[str, Any], found: Groups) -> str:
    """Why nothing can be done to the messages that ``params`` choose, "" if it can."""
    if not found.messages:
        return "The queue is empty."
    if not fixed["count"]:
        return "No message is left of those you have chosen."
    if params.get("edit") and len(params.get("positions") or ()) != 1:
        return "Only a single message can be edited."
    return ""


def chosen_of(params: Mapping[str, Any]) -> Chosen:
    """The messages that an operation's parameters choose."""
    positions = params.get("positions")
    return Chosen(
        params["until"], None if positions is None else tuple(positions), tuple(params.get("groups") or ())
    )


def kept_words(result: Mapping[str, Any]) -> str:
    """What stays in the queue, and why, as a sentence to be put after another."""
    kept = result.get("kept") or {}
    return f" Left in the queue: {', '.join(f'{n:,} {why}' for why, n in kept.items())}." if kept else ""


def how_many(fixed: Mapping[str, Any], found: Groups) -> str:
    """The messages chosen, in words."""
    count = fixed["count"]
    if fixed.get("groups") and found.counted < found.messages:
        return f"At least {count:,} messages (of the {found.counted:,} oldest)"
    return "1 message" if count == 1 else f"{count:,} messages"


def _where(params: Mapping[str, Any], found: Groups) -> str:
    exchange, key = params.get("exchange"), params.get("routing_key")
    if exchange is None:
        groups = params.get("groups")
        names = sorted({g.queue for g in found.groups if g.queue and (not groups or g.id in groups)})
        back = f" ({', '.join(names[:5])}{' ...' if len(names) > 5 else ''})" if names else ""
        return f"sent back to where they died{back}"
    under = "the key that each had" if key is None else f"the key {key!r}"
    return (
        f"published to {'the default exchange' if exchange == '' else f'exchange {exchange!r}'} under {under}"
    )
