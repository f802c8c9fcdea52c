"""Which backups are kept: the last ones of days, weeks and months, and always the last that was proven."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from datetime import datetime
from typing import Protocol, TypeVar


class Dated(Protocol):
    """What retention needs to know of a backup."""

    @property
    def created(self) -> datetime: ...

    @property
    def verified(self) -> datetime | None: ...


B = TypeVar("B", bound=Dated)


def expired(backups: Iterable[B], daily: int, weekly: int, monthly: int) -> list[B]:
    """Those of the completed ``backups`` that may go.

    Of the last ``daily`` days, ``weekly`` weeks and ``monthly`` months that have any, the newest is kept; so
    are the newest of all and the newest that was verified.
    """
    newest_first = sorted(backups, key=lambda backup: backup.created, reverse=True)
    kept = {id(backup) for backup in newest_first[:1]}
    kept |= {id(backup) for backup in [b for b in newest_first if b.verified is not None][:1]}
    for count, period in ((daily, "%Y-%m-%d"), (weekly, "%G-%V"), (monthly, "%Y-%m")):
        seen: dict[Hashable, B] = {}
        for backup in newest_first:
            seen.setdefault(backup.created.strftime(period), backup)
        kept |= {id(backup) for backup in list(seen.values())[:count]}
    return [backup for backup in newest_first if id(backup) not in kept]
