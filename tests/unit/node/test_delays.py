"""Due times in bounded memory; answers of several queues gathered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brokers.engine.node.delays import Schedule
from brokers.engine.node.targets import Gather


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 8))
def test_everything_comes_in_order_however_little_is_kept(dues: list[int], limit: int) -> None:
    """Looking through the log again whenever the schedule says so, as a releaser does."""
    waiting = dict(enumerate(dues))
    released = []
    rounds = 0
    schedule: Schedule | None = None
    for now in range(51):
        while True:
            if schedule is None or schedule.exhausted(now):
                rounds += 1
                schedule = Schedule(limit)
                for position, due in waiting.items():
                    schedule.add(due, position)
                    assert len(schedule) <= limit
            position_due = schedule.take(now)
            if position_due is None and not schedule.exhausted(now):
                break
            if position_due is not None:
                released.append((waiting.pop(position_due), position_due))
    assert not waiting
    assert released == sorted((due, position) for position, due in enumerate(dues))
    assert rounds <= 1 + 2 * len(dues) / max(1, limit // 2)


class Publisher:
    def __init__(self) -> None:
        self.safe: list[int] = []
        self.lost: list[int] = []

    def confirmed(self, first: int, last: int) -> None:
        self.safe += range(first, last + 1)

    def refused(self, first: int, last: int) -> None:
        self.lost += range(first, last + 1)


def test_a_message_is_safe_when_all_queues_have_it() -> None:
    publisher = Publisher()
    gather = Gather(publisher)
    for tag, queues in ((1, 1), (2, 2), (3, 1), (4, 2)):
        gather.expect(tag, queues)
    gather.confirmed(1, 4)
    assert publisher.safe == [1, 3]
    gather.confirmed(4, 4)
    gather.confirmed(2, 2)
    assert publisher.safe == [1, 3, 4, 2]


def test_a_message_that_one_queue_refused_is_refused_once() -> None:
    publisher = Publisher()
    gather = Gather(publisher)
    for tag in (1, 2, 3):
        gather.expect(tag, 2)
    gather.refused(1, 2)
    assert publisher.lost == []
    gather.confirmed(1, 3)
    assert publisher.lost == [1, 2]
    gather.confirmed(3, 3)
    assert publisher.safe == [3]
