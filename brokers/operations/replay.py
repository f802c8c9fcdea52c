"""Replay: messages that a queue has had are published again, whatever became of them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator, Mapping
from typing import Any, ClassVar, Final

from brokers import models
from brokers.adapters.base import Cluster, ClusterError, ClusterUnavailable, NotFound, NotNow, Refused
from brokers.adapters.retained import Found, Replay, Retained, Selection, Target
from brokers.operations.base import Plan
from brokers.operations.long import Job, LongKind, Step
from brokers.templatetags.mq import size

LOOK: Final = 0.5
"""Seconds between two looks at how the node that does it gets on."""
NODE_GONE: Final = 10.0
"""Seconds out of reach after which a node's part is given to another."""
COUNTS: Final = ("published", "unroutable", "gone")


class ReplayKind(LongKind):
    """Parameters: vhost, name; the selection's first, end, since, until, key, headers; to_vhost, to_queue or
    to_exchange, to_key; replay (names it in the messages' headers). A plan fixes the positions.

    A node does the work (``engine/node/replay.py``) and this follows it. When the process that follows is gone,
    the next one goes on following; when the node is gone, another node begins at the cursor, and what had been
    confirmed after that is published twice. Both copies say so by the same ``replay`` and ``position``.
    """

    name: ClassVar[str] = "replay"
    title: ClassVar[str] = "Replay"

    def plan(self, row: models.Cluster, cluster: Cluster, params: Mapping[str, Any]) -> Plan:
        plan, _ = self.preview(cluster, params, 0)
        return plan

    def preview(self, cluster: Cluster, params: Mapping[str, Any], count: int) -> tuple[Plan, Found | None]:
        """The plan, and the first ``count`` messages of it. Raises ``ClusterError``."""
        queue = cluster.queue(params["vhost"], params["name"])
        if not queue.replicated:
            why = "The queue lives in the memory of one node and keeps nothing that is settled."
            return Plan(refusal=why, params=dict(params)), None
        try:
            found = cluster.retained().find(queue.key, selection_of(params), target_of(params), count)
        except (NotFound, Refused) as error:
            return Plan(refusal=str(error), params=dict(params)), None
        fixed = {
            **params,
            "first": found.first,
            "end": found.end,
            "since": None,
            "until": None,
            "count": found.count,
            "replay": params.get("replay") or secrets.token_hex(6),
        }
        if not found.count:
            why = f"Nothing matches that. The queue retains messages from position {found.oldest:,} on."
            return Plan(refusal=why, params=fixed), found
        return Plan(_lines(found, params), _warnings(params, queue.consumers), "", {}, fixed), found

    def steps(self, cluster: Cluster, job: Job) -> Generator[Step, None, dict[str, Any]]:
        course = _Course(cluster.retained(), job)
        try:
            while True:
                course.look()
                yield course.step()
                if course.over:
                    return course.result()
                time.sleep(LOOK)
        finally:
            course.leave()

    def so_far(self, cursor: Mapping[str, Any]) -> dict[str, Any]:
        return {name: cursor.get(name, 0) for name in COUNTS}

    def summary(self, result: Mapping[str, Any]) -> str:
        text = f"{_messages(result['published'])} replayed."
        if result["unroutable"]:
            text += f" {_messages(result['unroutable'])} had no queue to go to."
        if result["gone"]:
            text += f" {result['gone']:,} positions were let go by retention before they were reached."
        return text


class _Course:
    """One go at a replay: what was done before it, and what its node does now."""

    def __init__(self, retained: Retained, job: Job) -> None:
        params, cursor = job.params, job.cursor
        self._retained = retained
        self._params = params
        self._rate = job.rate or 0
        self._name: str = params["replay"]
        self._at: int = cursor.get("at", params["first"])
        self._before = {name: cursor.get("before", {}).get(name, 0) for name in COUNTS}
        self._written = {name: cursor.get(name, 0) for name in COUNTS}
        self._node: str | None = cursor.get("node")
        self._now: Replay | None = None
        self._unheard_since: float | None = None
        self._went_on = False

    @property
    def over(self) -> bool:
        """Whether everything is done. Raises ``NotNow`` when the node gave up: a full queue may have room soon."""
        now = self._now
        if now is None or now.state == "running":
            return False
        if now.state == "failed":
            raise NotNow(now.error)
        return now.state == "done"

    def look(self) -> None:
        """Ask the node that does it; have one begin where none does."""
        if self._node is None:
            self._begin()
            return
        try:
            self._now = self._retained.replay_status(self._name, self._node)
            self._unheard_since = None
        except NotFound:
            self._begin_again()
            return
        except ClusterUnavailable:
            self._unheard_since = self._unheard_since or time.monotonic()
            if time.monotonic() - self._unheard_since < NODE_GONE:
                return
            self._begin_again()
            return
        if self._now.state == "cancelled" or (self._now.state == "failed" and not self._went_on):
            # Stopped in order, or for a reason that an operator who resumes it has done away with.
            self._before = self._totals()
            self._at = self._now.cursor
            self._begin()

    def _begin_again(self) -> None:
        """The node is gone, and with it what it had done after it was last asked."""
        self._before = self._written if self._now is None else self._totals()
        if self._now is not None:
            self._at = self._now.cursor
        self._begin()

    def _begin(self) -> None:
        params = self._params
        queue = (params["vhost"], params["name"])
        stretch = (self._at, params["end"])
        self._now = self._retained.replay(
            self._name, queue, stretch, selection_of(params), target_of(params), self._rate
        )
        self._node, self._unheard_since, self._went_on = self._now.node, None, True

    def _totals(self) -> dict[str, int]:
        now = self._now
        if now is None:
            return self._written
        return {name: self._before[name] + getattr(now, name) for name in COUNTS}

    def step(self) -> Step:
        """What is done by now."""
        now, totals = self._now, self._totals()
        at = self._at if now is None else now.cursor
        cursor = {"at": at, "node": self._node, "before": self._before, **totals}
        first, end = self._params["first"], self._params["end"]
        note = f"{_messages(totals['published'])} replayed, at position {at:,} of {end:,}"
        if now is None or self._unheard_since is not None:
            note = f"waiting for {self._node}, which is out of reach"
        elif now.waiting:
            note = f"waiting: {now.waiting}"
        return Step(cursor, at - first, end - first, 0, note)

    def result(self) -> dict[str, Any]:
        """What came of it."""
        return {**self._totals(), "replay": self._name}

    def leave(self) -> None:
        """Nobody follows from now on: have the node stop, and keep for the next go where it did."""
        now = self._now
        if self._node is None or now is None or now.state != "running":
            return
        try:
            self._retained.replay_cancel(self._name, self._node)
        except ClusterError:
            # It is gone or stops by itself when it has not been asked for a minute.
            return


def selection_of(params: Mapping[str, Any]) -> Selection:
    """Which messages ``params`` mean."""
    return Selection(
        params.get("first"),
        params.get("end"),
        params.get("since"),
        params.get("until"),
        params.get("key") or "",
        params.get("headers") or {},
    )


def target_of(params: Mapping[str, Any]) -> Target:
    """Where ``params`` send them; the same queue unless they say otherwise."""
    vhost = params.get("to_vhost") or params["vhost"]
    if params.get("to_exchange") is not None:
        return Target(vhost, exchange=params["to_exchange"], key=params.get("to_key"))
    return Target(vhost, queue=params.get("to_queue") or params["name"])


def read_headers(text: str) -> dict[str, str]:
    """Lines of ``name=value``. Raises ``ValueError`` for anything else."""
    found = {}
    for line in filter(None, (line.strip() for line in text.splitlines())):
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"a header to match is written name=value, not {line:.80}")
        found[name.strip()] = value.strip()
    return found


def _lines(found: Found, params: Mapping[str, Any]) -> tuple[str, ...]:
    to = target_of(params)
    if to.queue is not None:
        where = "the same queue" if to.queue == params["name"] and to.vhost == params["vhost"] else to.queue
    else:
        key = "with their own routing keys" if to.key is None else f"with the routing key {to.key}"
        where = f"exchange {to.exchange or '(default)'} {key}"
    return (
        f"{_messages(found.count)} ({size(found.bytes)} of bodies) of positions {found.first:,} to "
        f"{found.end - 1:,} are published again, into {where}.",
        "Each is confirmed by all queues it reaches, and says by its header x-replayed-from where it is from.",
        "What the queue itself holds stays as it is.",
    )


def _warnings(params: Mapping[str, Any], consumers: int) -> tuple[str, ...]:
    warnings = ["Consumers will handle these messages once more. That cannot be undone."]
    to = target_of(params)
    if to.queue == params["name"] and to.vhost == params["vhost"] and consumers:
        warnings.append(
            f"The queue has {consumers:,} consumers now; they get them as soon as they are published."
        )
    return tuple(warnings)


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"
