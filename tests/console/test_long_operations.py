"""Operations that are run in steps: written down, limited, paused, cancelled, and gone on with by others."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from django.utils import timezone

from brokers import models
from brokers.adapters.base import Cluster, ClusterUnavailable, Refused
from brokers.models import Operation
from brokers.operations import KINDS, runner, worker
from brokers.operations.base import Plan
from brokers.operations.long import Job, LongKind, Step


class Counting(LongKind):
    """Counts to ``params["to"]``; ``between`` is called before each number."""

    name: ClassVar[str] = "counting"
    title: ClassVar[str] = "Count"

    def __init__(self) -> None:
        self.counted: list[int] = []
        self.jobs: list[Job] = []
        self.between: Any = lambda number: None
        self.closed = 0

    def plan(self, row: models.Cluster, cluster: Cluster, params: Mapping[str, Any]) -> Plan:
        return Plan(lines=(f"It counts to {params['to']}.",), params=params)

    def steps(self, cluster: Cluster, job: Job) -> Generator[Step, None, dict[str, Any]]:
        self.jobs.append(job)
        number, to = job.cursor.get("number", 0), job.params["to"]
        try:
            while number < to:
                self.between(number)
                number += 1
                self.counted.append(number)
                yield Step({"number": number}, number, to, 1, f"at {number}")
        finally:
            self.closed += 1
        return {"number": number}

    def summary(self, result: Mapping[str, Any]) -> str:
        return f"Counted to {result['number']}."


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> Counting:
    made = Counting()
    monkeypatch.setitem(KINDS, Counting.name, made)
    monkeypatch.setattr(worker, "NAP", 0.001)
    return made


@pytest.fixture
def operation(row: models.Cluster, kind: Counting) -> Operation:
    plan = kind.plan(row, row.adapter(), {"to": 5})
    return runner.confirm(Counting.name, row, "five", plan, who=None)


def at(number: int, act: Callable[[], None]) -> Callable[[int], None]:
    """Does something before one number."""

    def between(reached: int) -> None:
        if reached == number:
            act()

    return between


def again(operation: Operation) -> Operation:
    operation.refresh_from_db()
    return operation


def test_all_steps_are_done_and_written_down(operation: Operation, kind: Counting) -> None:
    seen = []
    assert not worker.work(operation.pk, told=lambda row: seen.append((row.progress, row.step)))
    assert kind.counted == [1, 2, 3, 4, 5]
    assert seen[0] == (20, "at 1")
    assert seen[-1] == (100, "Counted to 5.")
    again(operation)
    assert (operation.state, operation.result, operation.progress) == ("done", {"number": 5}, 100)
    assert (operation.finished_units, operation.total_units) == (5, 5)
    assert operation.started is not None
    assert operation.finished is not None
    assert not worker.work(operation.pk)
    assert kind.counted == [1, 2, 3, 4, 5]


def test_a_worker_gives_others_their_turn(operation: Operation, kind: Counting) -> None:
    assert worker.work(operation.pk, seconds=0)
    assert again(operation).state == "running"
    assert kind.closed == 1
    assert worker.waiting() == [operation.pk]
    assert not worker.work(operation.pk)
    assert kind.counted == [1, 2, 3, 4, 5]
    assert [job.unsure for job in kind.jobs] == [False, False]


def test_another_process_goes_on_when_one_is_gone(operation: Operation, kind: Counting) -> None:
    def crash(number: int) -> None:
        if number == 3:
            raise KeyboardInterrupt

    kind.between = crash
    with pytest.raises(KeyboardInterrupt):
        worker.work(operation.pk)
    kind.between = lambda number: None
    assert again(operation).state == "running"
    # While the lease lasts nobody else touches it.
    assert worker.waiting() == []
    assert not worker.work(operation.pk)
    assert kind.counted == [1, 2, 3]
    Operation.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
    assert worker.waiting() == [operation.pk]
    assert not worker.work(operation.pk)
    assert kind.counted == [1, 2, 3, 4, 5]
    assert kind.jobs[-1].unsure
    assert again(operation).state == "done"


def test_a_process_that_was_thought_gone_writes_nothing_more(operation: Operation, kind: Counting) -> None:
    def taken_over(number: int) -> None:
        if number == 2:
            Operation.objects.update(lease="another", step="the other's")

    kind.between = taken_over
    assert not worker.work(operation.pk)
    again(operation)
    assert (operation.cursor, operation.step, operation.state) == ({"number": 2}, "the other's", "running")


def test_pause_and_resume(operation: Operation, kind: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(worker, "enqueue", sent.append)
    kind.between = at(2, lambda: worker.pause(operation))
    assert not worker.work(operation.pk)
    assert again(operation).state == "paused"
    assert kind.counted == [1, 2, 3]
    assert worker.waiting() == []
    assert not worker.work(operation.pk)
    kind.between = lambda number: None
    worker.resume(operation)
    assert not worker.work(operation.pk)
    assert again(operation).state == "done"
    assert not kind.jobs[-1].unsure


def test_one_that_nobody_runs_can_be_paused_and_cancelled(operation: Operation, kind: Counting) -> None:
    worker.work(operation.pk, seconds=0)
    worker.pause(operation)
    assert again(operation).state == "paused"
    worker.cancel(operation)
    again(operation)
    assert (operation.state, operation.result) == ("cancelled", {"number": 1})
    assert operation.finished is not None
    assert not worker.work(operation.pk)


def test_cancel(operation: Operation, kind: Counting) -> None:
    kind.between = at(2, lambda: worker.cancel(operation))
    assert not worker.work(operation.pk)
    again(operation)
    assert (operation.state, operation.result) == ("cancelled", {"number": 3})
    assert kind.closed == 1


def test_a_cancelled_confirmation_never_begins(operation: Operation, kind: Counting) -> None:
    worker.cancel(operation)
    assert not worker.work(operation.pk)
    assert again(operation).state == "cancelled"
    assert kind.counted == []


def test_a_rate_limit_is_kept_and_can_be_changed(
    operation: Operation, kind: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    clock = [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr("brokers.operations.worker.time.sleep", sleep)
    monkeypatch.setattr("brokers.operations.worker.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(worker, "NAP", 0.25)
    worker.set_rate(operation, 2)
    kind.between = at(3, lambda: worker.set_rate(operation, None))
    while worker.work(operation.pk):
        pass
    assert kind.jobs[0].rate == 2
    assert kind.jobs[0].batch(500) == 1
    assert sum(slept) == pytest.approx(1.5)  # three steps at two a second, then no limit
    assert again(operation).state == "done"


def test_a_cluster_out_of_reach_is_waited_for(operation: Operation, kind: Counting) -> None:
    tries: list[int] = []

    def flaky(number: int) -> None:
        if number == 3 and len(tries) < 3:
            tries.append(number)
            raise ClusterUnavailable("no node answered")

    kind.between = flaky
    assert not worker.work(operation.pk)
    assert kind.counted == [1, 2, 3, 4, 5]
    assert [job.unsure for job in kind.jobs] == [False, True, True, True]
    assert again(operation).state == "done"


def test_one_that_stays_out_of_reach_fails(
    operation: Operation, kind: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "PATIENCE", 0.01)

    def gone(number: int) -> None:
        if number == 2:
            raise ClusterUnavailable("no node answered")

    kind.between = gone
    assert not worker.work(operation.pk)
    again(operation)
    assert operation.state == "failed"
    assert "no node answered" in operation.error
    assert operation.result == {"number": 2}


def test_a_refusal_ends_it_and_a_bug_is_not_hidden(operation: Operation, kind: Counting) -> None:
    def refuse(number: int) -> None:
        raise Refused("it is not allowed")

    kind.between = refuse
    assert not worker.work(operation.pk)
    assert (again(operation).state, operation.error) == ("failed", "it is not allowed")


def test_a_bug_ends_it_and_is_not_hidden(operation: Operation, kind: Counting) -> None:
    def broken(number: int) -> None:
        raise ZeroDivisionError

    kind.between = broken
    with pytest.raises(ZeroDivisionError):
        worker.work(operation.pk)
    assert "see its log" in again(operation).error


def test_the_same_is_not_under_way_twice(row: models.Cluster, operation: Operation, kind: Counting) -> None:
    worker.work(operation.pk, seconds=0)
    worker.pause(operation)
    second = runner.confirm(Counting.name, row, "five", kind.plan(row, row.adapter(), {"to": 5}), who=None)
    assert not worker.work(second.pk)
    assert again(second).state == "cancelled"
    assert "under way" in second.error


def test_long_ones_are_not_failed_as_abandoned(operation: Operation, kind: Counting) -> None:
    worker.work(operation.pk, seconds=0)
    Operation.objects.update(changed=timezone.now() - timedelta(hours=1))
    assert runner.fail_abandoned() == 0
    assert again(operation).state == "running"


def test_no_task_can_be_sent(operation: Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **options: Any) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr("brokers.operations.worker.current_app.send_task", refused)
    worker.enqueue(operation.pk)
    assert worker.waiting() == [operation.pk]


def test_the_tasks(operation: Operation, kind: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    from brokers import tasks

    sent: list[int] = []
    monkeypatch.setattr(worker, "enqueue", sent.append)
    tasks.resume_operations()
    assert sent == [operation.pk]
    tasks.run_operation(operation.pk)
    assert sent == [operation.pk]
    assert again(operation).state == "done"
