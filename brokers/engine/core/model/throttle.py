"""Failed logins slow further ones down: per user and per address, longer with every failure, up to a limit.

A few failures are free (people mistype, programs start with old settings). After those the next attempt has
to wait, and attempts made meanwhile queue up behind it, so that guessing in parallel is no faster. Who would
wait too long is refused at once. A user known to log in from an address is not held up there by what others
do to the user's name elsewhere.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

FREE = 5
"""Failures without consequences."""
FIRST = 0.25
"""Seconds to wait after the first failure that has some; each further one doubles it."""
LONGEST = 4.0
PATIENCE = 8.0
"""Seconds of waiting above which an attempt is refused at once; a handshake may take 10."""
FORGET = 300.0
"""Seconds after which a failure is forgotten."""
MAX_KEYS = 10_000
"""Users and addresses remembered; the ones unheard of for longest go first."""


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last: float = 0.0
    free_at: float = 0.0
    """When the next attempt may be made."""

    @property
    def penalty(self) -> float:
        over = self.count - FREE
        return 0.0 if over < 0 else min(LONGEST, FIRST * 2.0 ** min(over, 16))


class LoginThrottle:
    """``now`` is monotonic seconds throughout."""

    def __init__(self) -> None:
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()
        self._good: OrderedDict[tuple[str, str], None] = OrderedDict()

    def begin(self, user: str, address: str, now: float) -> float | None:
        """Somebody at ``address`` wants to log in as ``user``: seconds to wait before the password is looked
        at, or None for a refusal without a look."""
        held = [
            found
            for key in self._keys(user, address)
            if (found := self._known(key, now)) is not None and found.penalty
        ]
        wait = max((max(0.0, found.free_at - now) for found in held), default=0.0)
        if wait > PATIENCE:
            return None
        for found in held:
            found.free_at = now + wait + found.penalty
        return wait

    def failed(self, user: str, address: str, now: float) -> None:
        """The password was wrong."""
        for key in (("user", user), ("address", address)):
            found = self._known(key, now) or _Failures()
            self._failures[key] = found
            self._failures.move_to_end(key)
            found.count += 1
            found.last = now
            found.free_at = max(found.free_at, now + found.penalty)
        while len(self._failures) > MAX_KEYS:
            self._failures.popitem(last=False)

    def succeeded(self, user: str, address: str) -> None:
        """The password was right."""
        self._failures.pop(("address", address), None)
        if (user, address) not in self._good:
            self._failures.pop(("user", user), None)
        self._good[user, address] = None
        self._good.move_to_end((user, address))
        while len(self._good) > MAX_KEYS:
            self._good.popitem(last=False)

    def _keys(self, user: str, address: str) -> list[tuple[str, str]]:
        known = (user, address) in self._good
        return [("address", address)] if known else [("address", address), ("user", user)]

    def _known(self, key: tuple[str, str], now: float) -> _Failures | None:
        found = self._failures.get(key)
        if found is not None and now - found.last > FORGET:
            del self._failures[key]
            return None
        return found
