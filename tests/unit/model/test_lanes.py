"""Lanes of a priority queue, seen keys of a deduplicating one, marks of a retaining one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brokers.engine.core.amqp.properties import BasicProperties, encode_header
from brokers.engine.core.model.deduplication import SeenKeys
from brokers.engine.core.model.intervals import IntervalSet
from brokers.engine.core.model.lanes import LaneCursors, Lanes, priority_of
from brokers.engine.core.model.retention import MARK_BYTES, MARK_MILLISECONDS, Marks


@given(
    st.one_of(st.none(), st.integers(0, 255)),
    st.one_of(st.none(), st.text(max_size=20)),
    st.booleans(),
    st.one_of(st.none(), st.integers(1, 2)),
    st.one_of(st.none(), st.text(max_size=20)),
)
def test_priority_is_read_past_whatever_stands_before_it(
    priority: int | None, content_type: str | None, headers: bool, mode: int | None, encoding: str | None
) -> None:
    properties = BasicProperties(
        content_type=content_type,
        content_encoding=encoding,
        headers={"key": "value", "n": 5} if headers else None,
        delivery_mode=mode,
        priority=priority,
        correlation_id="behind",
    )
    assert priority_of(encode_header(properties, 10), 9) == min(priority or 0, 9)


@given(st.lists(st.integers(0, 3), max_size=40), st.sets(st.integers(0, 39)), st.integers(1, 5))
def test_highest_lane_first_in_order_without_the_settled(
    priorities: list[int], settled: set[int], limit: int
) -> None:
    lanes = Lanes(3)
    lanes.publish(0, priorities)
    gone = IntervalSet()
    for position in settled:
        if position < len(priorities):
            gone.add(position, position + 1)
    cursors = LaneCursors(Lanes.load(lanes.flat()), 0)
    taken: list[int] = []
    while (run := cursors.take(limit, len(priorities), gone.next_gap, set())) is not None:
        assert run[1] - run[0] <= limit
        taken += range(*run)
    expected = [
        position
        for wanted in (3, 2, 1, 0)
        for position, priority in enumerate(priorities)
        if priority == wanted and position not in gone
    ]
    assert taken == expected


def test_later_urgent_message_overtakes() -> None:
    lanes = Lanes(5)
    lanes.publish(0, [0, 0, 0])
    cursors = LaneCursors(lanes, 0)
    nothing = IntervalSet()
    assert cursors.take(1, 3, nothing.next_gap, set()) == (0, 1)
    lanes.publish(3, [5])
    assert cursors.take(1, 4, nothing.next_gap, set()) == (3, 4)
    assert cursors.take(9, 4, nothing.next_gap, set()) == (1, 3)
    assert lanes.priority_at(3) == 5
    assert lanes.priority_at(1) == 0


def test_repeated_key_within_the_window_only() -> None:
    seen = SeenKeys(size=3, ttl=100)
    assert not seen.repeated("a", 0)
    assert seen.repeated("a", 99)
    assert not seen.repeated("a", 100)
    for key in "bcd":
        assert not seen.repeated(key, 101)
    assert not seen.repeated("a", 102)
    again = SeenKeys(size=3, ttl=100)
    again.restore(seen.items())
    assert again.items() == seen.items()


def test_retention_by_size_and_age() -> None:
    marks = Marks()
    for n in range(100):
        marks.publish(n * 10, MARK_BYTES, n * MARK_MILLISECONDS)
    now = 99 * MARK_MILLISECONDS
    assert marks.keep_from(5 * MARK_BYTES, 1 << 60, now) == 950
    assert marks.keep_from(1 << 60, 3 * MARK_MILLISECONDS, now) == 960
    assert marks.keep_from(5 * MARK_BYTES, 3 * MARK_MILLISECONDS, now) == 960
    assert marks.keep_from(1 << 60, 1 << 60, now) == 0
    assert marks.keep_from(0, 1 << 60, now) is None
    assert marks.keep_from(1 << 60, MARK_MILLISECONDS, now + 5 * MARK_MILLISECONDS) is None
    copy = Marks.load(marks.flat(), marks.total)
    assert copy.flat() == marks.flat()
    at = copy.at_time(50 * MARK_MILLISECONDS + 1)
    assert at is not None
    assert at.position == 500
    copy.forget_below(505)
    assert copy.at_time(0) == at
