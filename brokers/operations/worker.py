"""Runs long operations: one process at a time each, from the last step that was written down.

A process takes a *lease* and renews it with every step; one that is gone lets it run out, and another goes on
from the cursor. All writes name the lease, so that a process that was thought gone can write nothing more.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from celery import current_app
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from kombu.exceptions import OperationalError

from brokers.adapters.base import ClusterError, ClusterUnavailable, NotNow, OutcomeUnknown
from brokers.models import Operation
from brokers.operations import KINDS
from brokers.operations.long import Job, LongKind, Step, percent

logger = logging.getLogger(__name__)

TASK: Final = "brokers.tasks.run_operation"
LEASE: Final = timedelta(seconds=20)
"""A process that has written nothing for so long counts as gone."""
SLICE: Final = 20.0
"""Seconds after which a worker puts an operation back into its queue, so that others get their turn."""
PATIENCE: Final = 120.0
"""Seconds without any step, the cluster being out of reach, after which an operation is failed."""
NAP: Final = 0.25
"""Seconds after which a run that rests looks whether it is to pause or to be cancelled."""
LATER: Final = (ClusterUnavailable, OutcomeUnknown, NotNow)
"""What is worth another try."""

State = Operation.State


class _Lost(Exception):
    """Another process has taken the operation over, or it was ended meanwhile."""


def start(operation: Operation) -> None:
    """Have a worker begin (or go on with) ``operation`` once what was written down is committed.

    When no task can be sent, the periodic ``resume`` finds it.
    """
    transaction.on_commit(lambda: enqueue(operation.pk))


def enqueue(pk: int) -> None:
    """Ask the workers to look at an operation."""
    try:
        current_app.send_task(TASK, [pk], retry=False)
    except (OperationalError, OSError) as error:
        logger.warning(
            "operation %d waits for the next look at open ones, no task can be sent: %s", pk, error
        )


def waiting() -> list[int]:
    """Long operations that nobody runs and somebody should."""
    names = [name for name, kind in KINDS.items() if isinstance(kind, LongKind)]
    free = Q(leased_until__isnull=True) | Q(leased_until__lt=timezone.now())
    found = Operation.objects.filter(free, kind__in=names, state__in=(State.CONFIRMED, State.RUNNING))
    return list(found.order_by("pk").values_list("pk", flat=True)[:100])


def pause(operation: Operation) -> None:
    """Stop before the next step, until ``resume``."""
    found = Operation.objects.filter(pk=operation.pk)
    _wish(found, Operation.Wish.PAUSE)
    # One that nobody runs has no next step to stop before.
    free = Q(leased_until__isnull=True) | Q(leased_until__lt=timezone.now())
    found.filter(free, state=State.RUNNING).update(state=State.PAUSED, wish="", lease="", **_touched())


def cancel(operation: Operation) -> None:
    """Stop before the next step, for ever. What is done stays done."""
    found = Operation.objects.filter(pk=operation.pk)
    _wish(found, Operation.Wish.CANCEL)
    free = Q(leased_until__isnull=True) | Q(leased_until__lt=timezone.now())
    open_ = found.filter(free, state__in=(State.CONFIRMED, State.RUNNING, State.PAUSED))
    if open_.update(state=State.CANCELLED, wish="", lease="", finished=timezone.now(), **_touched()):
        operation.refresh_from_db()
        _conclude(operation)


def resume(operation: Operation) -> None:
    """Go on with a paused operation."""
    found = Operation.objects.filter(pk=operation.pk)
    if not found.filter(state=State.PAUSED).update(
        state=State.RUNNING, wish="", lease="", leased_until=None, **_touched()
    ):
        found.filter(wish=Operation.Wish.PAUSE).update(wish="", **_touched())
    start(operation)


def set_rate(operation: Operation, rate: int | None) -> None:
    """From the next step on, at most ``rate`` units a second; None is no limit."""
    Operation.objects.filter(pk=operation.pk).update(rate=rate, **_touched())


def work(pk: int, seconds: float = SLICE, told: Callable[[Operation], None] | None = None) -> bool:
    """Run an operation for about ``seconds``; whether there is more to do (then call again, or enqueue it).

    ``told`` is called with the row after every step. False as well when it is paused, over, or another
    process runs it.
    """
    operation = _claim(pk)
    if operation is None:
        return False
    run = _Run(operation, told)
    try:
        return run.go(time.monotonic() + seconds)
    except _Lost:
        logger.info("operation %d is another process's now", pk)
        return False


def _touched() -> dict[str, Any]:
    return {"changed": timezone.now()}


def _wish(found: Any, wish: str) -> None:
    found.filter(state__in=(State.CONFIRMED, State.RUNNING)).update(wish=wish, **_touched())


def _claim(pk: int) -> Operation | None:
    now = timezone.now()
    free = Q(leased_until__isnull=True) | Q(leased_until__lt=now)
    found = Operation.objects.filter(free, pk=pk, state__in=(State.CONFIRMED, State.RUNNING))
    token = secrets.token_hex(16)
    try:
        with transaction.atomic():
            taken = found.update(state=State.RUNNING, lease=token, leased_until=now + LEASE, changed=now)
    except IntegrityError:
        Operation.objects.filter(pk=pk, state=State.CONFIRMED).update(
            state=State.CANCELLED,
            error="The same operation was under way on the same target already.",
            finished=now,
            changed=now,
        )
        return None
    if not taken:
        return None
    operation = Operation.objects.select_related("cluster", "who").get(pk=pk)
    if operation.lease != token:
        return None
    if operation.started is None:
        operation.started = now
        Operation.objects.filter(pk=pk).update(started=now)
    return operation


def _conclude(operation: Operation) -> None:
    """Give an operation that ended early the result it has so far."""
    kind = KINDS[operation.kind]
    if isinstance(kind, LongKind):
        operation.result = kind.so_far(operation.cursor)
        Operation.objects.filter(pk=operation.pk).update(result=operation.result)


class _Run:
    """One process's go at an operation."""

    def __init__(self, operation: Operation, told: Callable[[Operation], None] | None) -> None:
        kind = KINDS[operation.kind]
        if not isinstance(kind, LongKind):
            raise TypeError(f"operations of kind {operation.kind!r} are not run in steps")
        self._kind = kind
        self._operation = operation
        self._told = told
        # The lease before this one may have ended in the middle of a step.
        self._unsure = operation.attempts > 0
        self._write(attempts=operation.attempts + 1)

    def go(self, until: float) -> bool:
        """Whether there is more to do."""
        operation = self._operation
        stuck_since: float | None = None
        pause = NAP
        while True:
            before = operation.cursor
            try:
                return self._steps(until)
            except LATER as error:
                self._unsure = True
                now = time.monotonic()
                if stuck_since is None or operation.cursor != before:
                    stuck_since, pause = now, NAP
                if now - stuck_since > PATIENCE:
                    self._end(State.FAILED, error=f"{error} (for more than {PATIENCE:.0f} s)")
                    return False
                self._write(step=f"waiting: {error}"[:300])
                if not self._rest(pause):
                    return False
                pause = min(2 * pause, 5.0)
            except ClusterError as error:
                self._end(State.FAILED, error=str(error))
                return False
            except (_Lost, DatabaseError):
                raise
            except Exception:
                self._end(State.FAILED, error="an error in the console; see its log")
                raise

    def _steps(self, until: float) -> bool:
        operation = self._operation
        if self._stops():
            return False
        job = Job(operation.pk, operation.params, operation.cursor, operation.rate, self._unsure)
        steps = self._kind.steps(operation.cluster.adapter(), job)
        try:
            while True:
                began, rate = time.monotonic(), operation.rate
                try:
                    step = next(steps)
                except StopIteration as end:
                    self._finish(end.value)
                    return False
                self._note(step)
                if self._stops():
                    return False
                if operation.rate and not self._rest(step.cost / operation.rate - (time.monotonic() - began)):
                    return False
                if operation.rate != rate:
                    return self._hand_over()
                if time.monotonic() >= until:
                    return self._hand_over()
        finally:
            steps.close()

    def _note(self, step: Step) -> None:
        self._unsure = False
        self._write(
            cursor=dict(step.cursor),
            finished_units=step.done,
            total_units=step.total,
            progress=percent(step.done, step.total),
            step=step.note[:300],
        )
        if self._told is not None:
            self._told(self._operation)

    def _stops(self) -> bool:
        """Do what an operator has wished for meanwhile; whether that ends this go."""
        operation = self._operation
        operation.refresh_from_db(fields=["wish", "rate"])
        if operation.wish == Operation.Wish.CANCEL:
            self._end(State.CANCELLED)
            return True
        if operation.wish == Operation.Wish.PAUSE:
            self._write(state=State.PAUSED, wish="", attempts=0, release=True)
            return True
        return False

    def _rest(self, seconds: float) -> bool:
        """Wait, and look up meanwhile; False when the run is to stop."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, NAP))
            self._write()
            if self._stops():
                return False
        return True

    def _hand_over(self) -> bool:
        """Leave the rest to the next go, which finds everything in order."""
        self._write(attempts=0, release=True)
        return True

    def _finish(self, result: Mapping[str, Any]) -> None:
        self._write(
            state=State.DONE,
            result=dict(result),
            progress=100,
            step=self._kind.summary(result)[:300],
            finished=timezone.now(),
            release=True,
        )
        self._said(State.DONE)

    def _end(self, state: Operation.State, error: str = "") -> None:
        result = self._kind.so_far(self._operation.cursor)
        self._write(state=state, error=error, result=result, wish="", finished=timezone.now(), release=True)
        self._said(state)

    def _said(self, state: Operation.State) -> None:
        operation = self._operation
        logger.info("operation %s (%s) by %s: %s", operation.pk, operation, operation.who, state)
        if self._told is not None:
            self._told(operation)

    def _write(self, *, release: bool = False, **changes: Any) -> None:
        """Write down ``changes`` and renew the lease. Raises ``_Lost`` when it is no longer this process's."""
        now = timezone.now()
        lease = {"lease": "", "leased_until": None} if release else {"leased_until": now + LEASE}
        found = Operation.objects.filter(pk=self._operation.pk, lease=self._operation.lease)
        if not found.update(**changes, **lease, changed=now):
            raise _Lost
        for name, value in changes.items():
            setattr(self._operation, name, value)
