"""One look at a cluster: a sample of its figures, and events for what began or ended since the last look."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from django.db import IntegrityError, transaction
from django.utils import timezone

from brokers.adapters.base import Change, ClusterError, Queue
from brokers.live import problems
from brokers.models import Cluster, Event
from brokers.templatetags.mq import millis
from monitoring.models import Sample

KEEP_SAMPLES: Final = timedelta(days=7)
KEEP_EVENTS: Final = timedelta(days=90)
_PROBLEMS: Final = (Event.Kind.UNREACHABLE, Event.Kind.NODE_DOWN, Event.Kind.NO_LEADER)


def check(cluster: Cluster) -> Sample:
    """Look at ``cluster`` and write down what there is to say."""
    now = timezone.now()
    try:
        seen = cluster.adapter().snapshot()
    except ClusterError as error:
        _compare(cluster, problems.find((), (), str(error)), now, kinds=(Event.Kind.UNREACHABLE,))
        return Sample.objects.create(cluster=cluster, at=now, answered=False)
    found = problems.find(seen.nodes, seen.queues, None)
    _compare(cluster, found, now, kinds=_PROBLEMS)
    _note_failovers(cluster, seen.queues)
    return Sample.objects.create(cluster=cluster, at=now, answered=True, **_figures(seen))


def drop_old(now: datetime | None = None) -> tuple[int, int]:
    """Delete samples and closed events past their time; how many of each."""
    now = now or timezone.now()
    samples, _ = Sample.objects.filter(at__lt=now - KEEP_SAMPLES).delete()
    events, _ = Event.objects.filter(ended__lt=now - KEEP_EVENTS).delete()
    return samples, events


def _figures(seen: Change) -> dict[str, float]:
    queues = seen.queues
    return {
        "nodes": len(seen.nodes),
        "nodes_running": sum(node.running for node in seen.nodes),
        "queues": len(queues),
        "queues_stuck": sum(queue.leader is None for queue in queues),
        "ready": sum(queue.ready for queue in queues),
        "unacked": sum(queue.unacked for queue in queues),
        "publish_rate": sum(queue.publish_rate for queue in queues),
        "deliver_rate": sum(queue.deliver_rate for queue in queues),
    }


def _compare(
    cluster: Cluster, found: list[problems.Problem], now: datetime, kinds: tuple[Event.Kind, ...]
) -> None:
    """Open events for new problems, close those of ``kinds`` that are over.

    While the cluster does not answer nothing is known about nodes and queues, so their events stay as they
    are: only the kinds that were looked at are closed.
    """
    opened = {(event.kind, event.subject): event for event in cluster.events.filter(ended__isnull=True)}
    for problem in found:
        event = opened.pop((problem.kind, problem.subject), None)
        if event is None:
            _open(cluster, problem, now)
        elif event.text != problem.text or event.severity != problem.severity:
            event.text, event.severity = problem.text, problem.severity
            event.save(update_fields=["text", "severity", "changed"])
    for (kind, _), event in opened.items():
        if kind in kinds:
            event.ended = now
            event.save(update_fields=["ended", "changed"])


def _open(cluster: Cluster, problem: problems.Problem, now: datetime) -> None:
    try:
        with transaction.atomic():
            Event.objects.create(
                cluster=cluster,
                kind=problem.kind,
                severity=problem.severity,
                subject=problem.subject,
                text=problem.text,
                began=now,
            )
    except IntegrityError:
        # Another check, at the same time, was first. The constraint is there for this very case.
        return


def _note_failovers(cluster: Cluster, queues: Sequence[Queue]) -> None:
    """Events for changes of leader since the last look. A queue's change is told once, by its time."""
    recent = timezone.now() - timedelta(minutes=10)
    known = set(
        cluster.events.filter(kind=Event.Kind.FAILOVER, began__gte=recent).values_list("subject", "began")
    )
    news = []
    for queue in queues:
        last = queue.last_failover
        if last is None or last.at < recent.timestamp():
            continue
        at = datetime.fromtimestamp(round(last.at, 3), UTC)
        name = problems.queue_name(queue)
        if (name, at) not in known:
            text = f"{name}: {last.target} leads after {last.source or 'nobody'} ({last.reason})"
            if last.unavailable_ms is not None:
                text += f", unavailable for {millis(last.unavailable_ms)}"
            severity = Event.Severity.INFO if last.reason == "transfer" else Event.Severity.WARNING
            news.append(
                Event(
                    cluster=cluster,
                    kind=Event.Kind.FAILOVER,
                    severity=severity,
                    subject=name,
                    text=f"{text}.",
                    began=at,
                    ended=at,
                )
            )
    Event.objects.bulk_create(news)
