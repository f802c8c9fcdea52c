"""Which backups may go."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from brokers.backups.retention import expired

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Made:
    created: datetime
    verified: datetime | None = None


def kept(backups: list[Made], daily: int, weekly: int, monthly: int) -> list[Made]:
    gone = expired(backups, daily, weekly, monthly)
    return [backup for backup in backups if backup not in gone]


def test_the_newest_of_each_day_week_and_month() -> None:
    hourly = [Made(NOON - timedelta(hours=hour)) for hour in range(24 * 90)]
    stay = kept(hourly, 3, 2, 2)
    assert [backup.created.strftime("%m-%d %H") for backup in stay] == [
        "03-31 12",
        "03-30 23",
        "03-29 23",
        "02-28 23",
    ]


def test_the_last_and_the_last_proven_always_stay() -> None:
    proven = Made(NOON - timedelta(days=300), verified=NOON)
    older = Made(NOON - timedelta(days=301), verified=NOON)
    newest = Made(NOON)
    assert kept([newest, proven, older, Made(NOON - timedelta(days=1))], 0, 0, 0) == [newest, proven]


def test_none_to_delete() -> None:
    assert expired([], 1, 1, 1) == []
