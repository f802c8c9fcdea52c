"""Commands applied once."""

from __future__ import annotations

import json

import pytest

from brokers.engine.core.model import sessions as module
from brokers.engine.core.model.sessions import Answer, Sessions, StaleCommand


def answer(value: object) -> Answer:
    return (None, value)


def test_an_answer_is_remembered_per_boot_and_serial() -> None:
    sessions = Sessions()
    assert sessions.find(1, 1) is None
    sessions.record(1, 1, answer("one"))
    sessions.record(2, 1, answer("two"))
    assert sessions.find(1, 1) == answer("one")
    assert sessions.find(2, 1) == answer("two")
    assert sessions.find(1, 2) is None


def test_serials_may_come_out_of_order() -> None:
    """Under two leaders, the second of two commands may be committed without the first."""
    sessions = Sessions()
    sessions.record(1, 6, answer("six"))
    assert sessions.find(1, 5) is None
    sessions.record(1, 5, answer("five"))
    assert sessions.find(1, 6) == answer("six")


def test_what_nobody_waits_for_is_forgotten_and_not_applied_again() -> None:
    sessions = Sessions()
    for serial in range(1, 6):
        sessions.record(1, serial, answer(serial), low=serial - 1)
    assert sessions.find(1, 5) == answer(5)
    assert sessions.find(1, 4) == answer(4)
    with pytest.raises(StaleCommand, match=r"\[1, 3\] is older"):
        sessions.find(1, 3)


def test_answers_are_bounded_without_low(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWERS", 3)
    sessions = Sessions()
    for serial in range(10):
        sessions.record(1, serial, answer(serial))
    assert sessions.find(1, 7) == answer(7)
    with pytest.raises(StaleCommand):
        sessions.find(1, 6)


def test_the_session_least_recently_heard_of_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 2)
    sessions = Sessions()
    for boot in (1, 2, 1, 3):
        sessions.record(boot, boot + sessions_count(sessions), answer(boot))
    assert [entry[0] for entry in sessions.to_json()["open"]] == [1, 3]  # type: ignore[attr-defined]  # a list


def sessions_count(sessions: Sessions) -> int:
    return len(sessions.to_json()["open"])  # type: ignore[arg-type]  # a list


def test_nothing_is_applied_for_a_process_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENDED", 2)
    sessions = Sessions()
    sessions.record(1, 1, answer("one"))
    sessions.end(1)
    with pytest.raises(StaleCommand, match="process that is over"):
        sessions.find(1, 2)
    sessions.record(1, 2, answer("late"))
    assert sessions_count(sessions) == 0
    sessions.end(2)
    sessions.end(3)
    assert sessions.find(1, 2) is None, "the oldest of too many is forgotten"


def test_json_round_trip() -> None:
    sessions = Sessions()
    sessions.record(5, 2, ([404, "NOT_FOUND - no", "channel"], None), low=1)
    sessions.record(4, 1, answer({"created": True}))
    sessions.end(9)
    value = json.loads(json.dumps(sessions.to_json()))
    back = Sessions.from_json(value)
    assert back.to_json() == sessions.to_json()
    assert back.find(5, 2) == ([404, "NOT_FOUND - no", "channel"], None)
    with pytest.raises(StaleCommand):
        back.find(9, 1)
