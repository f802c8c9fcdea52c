"""Fail over: another replica of a queue becomes its leader, on purpose and without loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, ClassVar

from brokers import models
from brokers.adapters.base import Cluster, Queue, Replica
from brokers.operations.base import Kind, Plan, Report
from brokers.templatetags.mq import millis

FAR_BEHIND = 10_000
"""A replica this many entries behind makes the queue wait noticeably while it catches up."""


class Failover(Kind):
    """Transfers a queue's leadership. Parameters: vhost, name, target (a node's name, or None to choose)."""

    name: ClassVar[str] = "failover"
    title: ClassVar[str] = "Fail over"

    def plan(self, row: models.Cluster, cluster: Cluster, params: Mapping[str, Any]) -> Plan:
        queue = cluster.queue(params["vhost"], params["name"])
        basis = {"leader": queue.leader, "term": queue.term}
        candidates = candidates_of(queue)
        refusal = cluster.refusals.get("transfer_leadership", "") or _refusal(queue, candidates)
        if refusal:
            return Plan(refusal=refusal, basis=basis, params=dict(params))
        wanted = params.get("target")
        target = next((replica for replica in candidates if replica.node == wanted), None)
        if wanted and target is None:
            names = ", ".join(replica.node for replica in candidates)
            return Plan(
                refusal=f"{wanted} has no running follower of this queue; choose one of: {names}.",
                basis=basis,
                params=dict(params),
            )
        target = target or candidates[0]
        lines = [
            f"Leadership moves from {queue.leader} to {target.node}, which {_distance(target)}.",
            _pause(row),
            _clients(queue),
            "No confirmed message is lost: all replicas keep what they have.",
        ]
        warnings = []
        if (target.lag or 0) >= FAR_BEHIND:
            warnings.append(
                f"{target.node} is {target.lag:,} entries behind. It has to catch up first; "
                f"publishers wait for their confirms until then."
            )
        if down := [replica.node for replica in queue.replicas if replica.role == "down"]:
            warnings.append(f"{', '.join(down)} is down: the queue has no replica to spare.")
        return Plan(tuple(lines), tuple(warnings), "", basis, {**params, "target": target.node})

    def run(self, cluster: Cluster, params: Mapping[str, Any], report: Report) -> dict[str, Any]:
        report(10, f"handing leadership to {params['target']}")
        transfer = cluster.transfer_leadership(params["vhost"], params["name"], params["target"])
        return {
            "from": transfer.source,
            "to": transfer.target,
            "unavailable_ms": transfer.unavailable_ms,
            "term": transfer.term,
        }

    def summary(self, result: Mapping[str, Any]) -> str:
        return (
            f"{result['to']} leads now, after {result['from'] or 'nobody'}. "
            f"The queue was unavailable for {millis(result['unavailable_ms'])}."
        )


def candidates_of(queue: Queue) -> list[Replica]:
    """The replicas that could lead next, the best first: those with the least to catch up."""
    followers = [replica for replica in queue.replicas if replica.role == "follower"]
    return sorted(followers, key=lambda replica: (replica.lag is None, replica.lag or 0, replica.node))


def _refusal(queue: Queue, candidates: Sequence[Replica]) -> str:
    if not queue.replicated:
        return "The queue lives in the memory of one node; only durable queues have replicas to fail over to."
    if queue.leader is None:
        return "The queue has no leader now, so there is nothing to hand over. It elects one by itself."
    if not candidates:
        return "No other replica of the queue runs, so there is none to hand over to. Start a node first."
    return ""


def _distance(replica: Replica) -> str:
    if replica.lag is None:
        return "has not yet said how far it is"
    if replica.lag == 0:
        return "has everything already"
    return f"is {replica.lag:,} {'entry' if replica.lag == 1 else 'entries'} behind and catches up first"


def _pause(row: models.Cluster) -> str:
    done = models.Operation.objects.filter(
        cluster=row, kind=Failover.name, state=models.Operation.State.DONE
    ).order_by("-created")
    known = [op.result["unavailable_ms"] for op in done[:10] if op.result.get("unavailable_ms") is not None]
    if not known:
        return "For a moment the queue confirms and delivers nothing: usually less than 100 ms."
    if len(known) == 1:
        return f"For a moment the queue confirms and delivers nothing: {millis(known[0])} the last time."
    return (
        f"For a moment the queue confirms and delivers nothing: the last {len(known)} fail-overs of this "
        f"cluster took {millis(median(known))} (median) and {millis(max(known))} at most."
    )


def _clients(queue: Queue) -> str:
    if queue.consumers == 0:
        return "Publishers stay connected, whichever node they use. The queue has no consumers."
    who = "1 consumer stays" if queue.consumers == 1 else f"{queue.consumers:,} consumers stay"
    holds = f"the {queue.unacked:,} unacknowledged messages they hold stay theirs" if queue.unacked else ""
    text = f"Publishers and {who} connected, whichever node they use"
    return f"{text}; {holds}." if holds else f"{text}."
