"""Keeps sockets from outliving the right to them: after sign-out, disabling or a change of role they close.

A socket is authorised when it opens. From then on the guard compares, for all sockets of the process at once,
what that right rested on with what the database says now.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db import close_old_connections
from django.utils import timezone

logger = logging.getLogger(__name__)

PAUSE: Final = 2.0
"""Seconds between two comparisons."""


@dataclass(eq=False, slots=True)
class Ticket:
    """What one socket's right rests on. ``revoke`` is called once, in the guard's thread; must not wait."""

    user: int
    session: str
    rights: Hashable
    revoke: Callable[[], None]


def rights_of(users: set[int]) -> dict[int, Hashable]:
    """For each active user what their permissions come from; a change of any of it closes their sockets."""
    people = get_user_model().objects.filter(pk__in=users, is_active=True)
    base = {
        pk: (password, superuser)
        for pk, password, superuser in people.values_list("pk", "password", "is_superuser")
    }
    groups: dict[int, set[Any]] = {pk: set() for pk in base}
    through = get_user_model().groups.through
    for pk, group in through.objects.filter(user_id__in=base).values_list("user_id", "group_id"):
        groups[pk].add(group)
    return {pk: (base[pk], frozenset(groups[pk])) for pk in base}


class Guard:
    """All open sockets of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._tickets: set[Ticket] = set()
        self._thread: threading.Thread | None = None

    def admit(self, ticket: Ticket) -> None:
        """Watch over one more socket."""
        with self._lock:
            self._tickets.add(ticket)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="socket guard", daemon=True)
                self._thread.start()

    def dismiss(self, ticket: Ticket) -> None:
        """The socket is closed."""
        with self._lock:
            self._tickets.discard(ticket)

    def recheck(self) -> None:
        """Somebody signed out or was changed: compare now."""
        self._wake.set()

    def compare(self) -> None:
        """Revoke every ticket that the database does not bear out any more."""
        with self._lock:
            tickets = tuple(self._tickets)
        if not tickets:
            return
        close_old_connections()
        sessions = set(
            Session.objects.filter(
                pk__in={ticket.session for ticket in tickets}, expire_date__gt=timezone.now()
            ).values_list("pk", flat=True)
        )
        rights = rights_of({ticket.user for ticket in tickets})
        for ticket in tickets:
            if ticket.session not in sessions or rights.get(ticket.user) != ticket.rights:
                self._revoke(ticket)

    def _revoke(self, ticket: Ticket) -> None:
        with self._lock:
            if ticket not in self._tickets:
                return
            self._tickets.discard(ticket)
        ticket.revoke()

    def _run(self) -> None:
        while True:
            self._wake.wait(PAUSE)
            self._wake.clear()
            try:
                self.compare()
            except Exception:
                # What can't be borne out is not let stand. Browsers connect again when the database is back.
                logger.exception("sockets could not be checked and are closed")
                with self._lock:
                    tickets = tuple(self._tickets)
                for ticket in tickets:
                    self._revoke(ticket)
            time.sleep(0.2)


guard = Guard()
"""This process's guard."""
