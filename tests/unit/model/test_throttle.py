"""Guessing gets slow, for everybody else nothing changes."""

from __future__ import annotations

from brokers.engine.core.model import throttle
from brokers.engine.core.model.throttle import FREE, LONGEST, PATIENCE, LoginThrottle


def fail(subject: LoginThrottle, times: int, user: str = "u", address: str = "a", now: float = 0.0) -> float:
    """Guess again and again, each time after the wait; when the last guess was made."""
    for _ in range(times):
        wait = subject.begin(user, address, now)
        assert wait is not None
        now += wait
        subject.failed(user, address, now)
    return now


def test_a_few_failures_are_free() -> None:
    subject = LoginThrottle()
    assert fail(subject, FREE) == 0.0


def test_the_delay_grows_and_is_capped() -> None:
    subject = LoginThrottle()
    now = fail(subject, FREE)
    waits = []
    for _ in range(10):
        wait = subject.begin("u", "a", now)
        assert wait is not None
        waits.append(wait)
        now += wait
        subject.failed("u", "a", now)
    assert waits == sorted(waits)
    assert waits[0] > 0
    assert waits[-1] == LONGEST


def test_guessing_in_parallel_is_no_faster() -> None:
    subject = LoginThrottle()
    now = fail(subject, FREE + 6)
    waits = [subject.begin("u", "a", now) for _ in range(100)]
    admitted = [wait for wait in waits if wait is not None]
    assert len(admitted) <= PATIENCE / LONGEST + 1
    assert waits[-1] is None


def test_from_many_addresses_at_one_user_and_from_one_address_at_many_users() -> None:
    for by_user in (True, False):
        subject = LoginThrottle()
        for i in range(FREE + 1):
            subject.failed("u" if by_user else f"u{i}", f"a{i}" if by_user else "a", 0.0)
        other = ("u", "new") if by_user else ("new", "a")
        assert subject.begin(*other, 0.0)
        assert subject.begin("somebody", "else", 0.0) == 0.0


def test_success_ends_it() -> None:
    subject = LoginThrottle()
    now = fail(subject, FREE + 2)
    subject.succeeded("u", "a")
    assert subject.begin("u", "a", now) == 0.0


def test_who_is_known_at_an_address_is_not_held_up_by_guesses_made_elsewhere() -> None:
    subject = LoginThrottle()
    subject.succeeded("u", "home")
    now = fail(subject, FREE + 5, "u", "elsewhere")
    assert subject.begin("u", "home", now) == 0.0
    assert subject.begin("u", "third", now)


def test_success_of_a_known_user_does_not_help_who_guesses() -> None:
    subject = LoginThrottle()
    subject.succeeded("u", "home")
    now = fail(subject, FREE + 5, "u", "elsewhere")
    subject.succeeded("u", "home")
    assert subject.begin("u", "elsewhere", now)


def test_failures_are_forgotten() -> None:
    subject = LoginThrottle()
    now = fail(subject, FREE + 5)
    assert subject.begin("u", "a", now + throttle.FORGET + 1) == 0.0


def test_memory_is_bounded() -> None:
    subject = LoginThrottle()
    for i in range(throttle.MAX_KEYS + 100):
        subject.failed(f"user{i}", f"address{i}", 0.0)
        subject.succeeded(f"other{i}", f"address{i}")
    assert len(subject._failures) <= throttle.MAX_KEYS
    assert len(subject._good) <= throttle.MAX_KEYS
