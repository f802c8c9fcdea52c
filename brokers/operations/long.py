"""Operations that take long: done in steps that are written down, so that any process can go on with them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from brokers.adapters.base import Cluster
from brokers.operations.base import Kind, Report


@dataclass(frozen=True, slots=True)
class Step:
    """What has been done for good by now.

    ``cursor`` is from where another process would go on: it must describe what is finished, nothing of what
    is under way. ``cost`` is how many units this step was, for the rate limit; ``done`` and ``total`` (None:
    not known) are counts of the whole run.
    """

    cursor: Mapping[str, Any]
    done: int = 0
    total: int | None = None
    cost: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One go at a long operation."""

    pk: int
    """The operation's number: the same in every go."""
    params: Mapping[str, Any]
    cursor: Mapping[str, Any] = field(default_factory=dict)
    """Of the last step that was written down; empty in the first go."""
    rate: int | None = None
    """Units a second at most. The runner waits between steps: keep each to about ``batch`` units."""
    unsure: bool = False
    """A former go may have done something after the cursor and was gone before it could write it down."""

    def batch(self, most: int) -> int:
        """How many units one step should be, so that a rate limit is kept evenly; ``most`` without one."""
        return most if not self.rate else max(1, min(most, self.rate // 4))


class LongKind(Kind):
    """An operation whose ``steps`` are run by a worker, watched, limited, paused, cancelled and resumed."""

    unit: ClassVar[str] = "messages"
    """What is counted."""

    @abstractmethod
    def steps(self, cluster: Cluster, job: Job) -> Generator[Step, None, dict[str, Any]]:
        """Do it from ``job.cursor`` on: yield after each step, at least every few seconds, return the result.

        What a step did is written down before the next one begins. The generator is closed
        (``GeneratorExit``) when the operation is paused, cancelled or moves to another process, so what it
        holds belongs into ``with`` or ``finally``. ``ClusterUnavailable``, ``OutcomeUnknown`` and ``NotNow``
        make the runner begin again from the last step after a pause; any other ``ClusterError`` ends it.
        """

    def so_far(self, cursor: Mapping[str, Any]) -> dict[str, Any]:
        """The result of an operation that ends early (cancelled, failed), from its last cursor."""
        return dict(cursor)

    def run(self, cluster: Cluster, params: Mapping[str, Any], report: Report) -> dict[str, Any]:
        """All steps in a row, without rests and without being written down."""
        steps = self.steps(cluster, Job(0, params))
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                result: dict[str, Any] = end.value
                return result
            report(percent(step.done, step.total), step.note)


def percent(done: int, total: int | None) -> int:
    """Of a run that is not over: 0 to 99."""
    return min(99, 100 * done // total) if total else 0
