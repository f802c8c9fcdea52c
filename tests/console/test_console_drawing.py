"""Numbers, times, names and charts: how they are written and drawn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.adapters.base import Change
from brokers.live import charts
from brokers.live.history import SPAN, STEP, History, Sample
from brokers.live.state import State
from brokers.naming import NameConverter, dom_id
from brokers.templatetags import mq
from tests.console.fake import queue


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (950, "950"),
        (9_999, "9,999"),
        (10_000, "10.0k"),
        (99_990, "100k"),
        (1_250_000, "1.2M"),
        (None, mq.UNKNOWN),
    ],
)
def test_short(value: float | None, text: str) -> None:
    assert mq.short(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.01, "0"), (0.4, "0.4"), (9.94, "9.9"), (9.99, "10"), (51_300, "51.3k")]
)
def test_rate(value: float, text: str) -> None:
    assert mq.rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (150 * 1024**2, "150 MiB"), (2**50, "1024.0 TiB")],
)
def test_size(value: float, text: str) -> None:
    assert mq.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 s"),
        (0.5, "500 ms"),
        (59.4, "59 s"),
        (60, "1 min"),
        (75, "1 min 15 s"),
        (3600, "1 h"),
        (90_061, "1 d 1 h"),
    ],
)
def test_duration(value: float, text: str) -> None:
    assert mq.duration(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.44, "0.4 ms"), (12.4, "12 ms"), (1204, "1.20 s")])
def test_millis(value: float, text: str) -> None:
    assert mq.millis(value) == text


def test_every_state_has_a_mark_and_a_word() -> None:
    for state in (
        "running",
        "electing",
        "no-quorum",
        "down",
        "starting",
        "draining",
        "leader",
        "follower",
        "learner",
    ):
        html = mq.status(state)
        assert 'aria-hidden="true"' in html
        assert html.rsplit("</span>", 2)[1].strip()
    assert "&lt;b&gt;" in mq.status("<b>")


@given(st.text(min_size=1))
def test_any_name_survives_its_address(name: str) -> None:
    segment = NameConverter().to_url(name)
    assert "/" not in segment
    assert segment not in (".", "..")
    assert NameConverter().to_python(segment) == name


@given(st.text(), st.text())
def test_element_ids_are_safe(one: str, other: str) -> None:
    assert dom_id(one).isalnum()
    assert (dom_id(one) == dom_id(other)) == (one == other)


def sample(at: float, ready: float) -> Sample:
    return Sample(at, ready, 0.0, 0.0, 0.0)


def test_an_idle_queue_keeps_one_sample_and_a_busy_one_a_bounded_number() -> None:
    idle, busy = History(), History()
    for number in range(1000):
        idle.add(sample(number * STEP, 7))
        busy.add(sample(number * STEP, number))
    assert len(idle) == 1
    assert len(busy) <= SPAN / STEP + 2


def points(line: charts.Line) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.points.split())]


def test_a_chart_runs_from_left_to_right_within_its_frame() -> None:
    history = History()
    for number in range(400):
        history.add(sample(number * STEP, 40 + number % 60))
    drawn = charts.chart("t", "", charts.DEPTH, history, now=400 * STEP)
    assert drawn.top == 100
    xs, ys = zip(*points(drawn.lines[0]), strict=True)
    assert list(xs) == sorted(xs)
    assert xs[0] == pytest.approx(0, abs=5)
    assert xs[-1] == charts.WIDTH
    assert min(ys) >= 0
    assert max(ys) <= charts.HEIGHT


def test_a_value_holds_until_the_next_sample() -> None:
    history = History()
    history.add(sample(0, 10))
    history.add(sample(100, 0))
    (_, first), (before, still), (at, fallen), (_, last) = points(
        charts.chart("t", "", charts.DEPTH, history, now=150).lines[0]
    )
    assert (first, still, fallen, last) == (0, 0, 100, 100)
    assert 0 < at - before < charts.WIDTH * 2 * STEP / SPAN


def test_a_value_from_before_the_chart_holds_from_its_left_edge() -> None:
    history = History()
    history.add(sample(0, 10))
    history.add(sample(2 * SPAN, 0))
    drawn = points(charts.chart("t", "", charts.DEPTH, history, now=2 * SPAN + 100).lines[0])
    assert drawn[0] == (0, 0)
    assert [y for _, y in drawn] == [0, 0, 100, 100]


def test_a_chart_of_nothing() -> None:
    for history in (None, History()):
        drawn = charts.chart("t", "", charts.RATES, history, now=10)
        assert [line.points for line in drawn.lines] == ["", ""]
        assert drawn.top == 10


def test_a_flat_line_reaches_over_the_whole_chart() -> None:
    history = History()
    history.add(sample(0, 5))
    (left, _), (right, _) = points(charts.chart("t", "", charts.DEPTH, history, now=10 * SPAN).lines[0])
    assert (left, right) == (0, charts.WIDTH)


def test_a_state_forgets_queues_that_are_gone() -> None:
    state = State(clock=lambda: 0.0)
    state.apply(Change(full=True, queues=[queue("a"), queue("b")]))
    state.sample()
    state.apply(Change(removed_queues=[("/", "a")]))
    assert set(state.histories) == {("/", "b")}
    state.apply(Change(full=True, queues=[queue("c")]))
    state.sample()
    assert set(state.histories) == {("/", "c")}


def test_a_short_silence_is_not_yet_a_lost_cluster() -> None:
    now = [0.0]
    state = State(clock=lambda: now[0])
    assert state.lost is not None  # nothing has been heard at all
    state.apply(Change(full=True, nodes=[]))
    state.nodes["node1"] = None  # type: ignore[assignment]  # any node will do
    state.apply(Change(lost="gone"))
    assert state.lost is None
    now[0] = 10.0
    assert state.lost == "gone"
    state.apply(Change(full=True))
    assert state.lost is None
