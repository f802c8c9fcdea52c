"""Carries operations out and writes down what becomes of them, whatever that is."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any, Final

from django.db import IntegrityError, transaction
from django.utils import timezone

from brokers.adapters.base import ClusterError
from brokers.models import Cluster, Operation
from brokers.operations import KINDS
from brokers.operations.base import Plan
from brokers.operations.long import LongKind

logger = logging.getLogger(__name__)

ABANDONED: Final = timedelta(minutes=2)
"""A running operation that has not been heard of for so long has lost the process that ran it."""


class Busy(Exception):
    """The same operation is running on the same target already."""


def confirm(kind: str, cluster: Cluster, target: str, plan: Plan, *, who: Any, reason: str = "") -> Operation:
    """Write down that ``who`` confirmed ``plan``. Nothing has been done to the cluster yet."""
    return Operation.objects.create(
        kind=kind,
        cluster=cluster,
        target=target,
        params=dict(plan.params),
        plan=plan.as_json(),
        state=Operation.State.CONFIRMED,
        who=who,
        reason=reason,
    )


def run(operation: Operation) -> Operation:
    """Do a confirmed operation in this very thread, and record how it went.

    What goes wrong on the cluster's side ends as a failed operation, not as an exception. Raises ``Busy``
    (and cancels the operation) when the same is under way already.
    """
    _begin(operation)
    kind = KINDS[operation.kind]

    def report(percent: int, step: str) -> None:
        operation.progress, operation.step = percent, step
        operation.save(update_fields=["progress", "step", "changed"])

    try:
        operation.result = kind.run(operation.cluster.adapter(), operation.params, report)
    except ClusterError as error:
        operation.state, operation.error = Operation.State.FAILED, str(error)
    except BaseException:
        operation.state, operation.error = Operation.State.FAILED, "an error in the console; see its log"
        _end(operation)
        raise
    else:
        operation.state, operation.progress = Operation.State.DONE, 100
        operation.step = kind.summary(operation.result)
    _end(operation)
    logger.info("operation %s (%s) by %s: %s", operation.pk, operation, operation.who, operation.state)
    return operation


def fail(operation: Operation, why: str) -> None:
    """A confirmed operation cannot be begun; nothing has been done."""
    operation.state, operation.error = Operation.State.FAILED, why
    _end(operation)


def fail_abandoned() -> int:
    """Operations whose process went away in the middle become failed ones; how many there were.

    Not long ones: another process goes on with these (``worker``).
    """
    long = [name for name, kind in KINDS.items() if isinstance(kind, LongKind)]
    lost = Operation.objects.filter(state=Operation.State.RUNNING, changed__lt=timezone.now() - ABANDONED)
    return lost.exclude(kind__in=long).update(
        state=Operation.State.FAILED,
        error="The process that ran this went away before it ended. It may have been done or not.",
        finished=timezone.now(),
        changed=timezone.now(),
    )


def _begin(operation: Operation) -> None:
    operation.state, operation.started = Operation.State.RUNNING, timezone.now()
    try:
        with transaction.atomic():
            operation.save()
    except IntegrityError:
        operation.state, operation.started = Operation.State.CANCELLED, None
        operation.error = "The same operation was running already."
        _end(operation)
        raise Busy(operation.error) from None


def _end(operation: Operation) -> None:
    operation.finished = timezone.now()
    operation.save()
