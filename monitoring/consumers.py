"""One websocket a browser page: it says at which address it is, and gets what changes there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.core.exceptions import PermissionDenied
from django.http import Http404

from brokers.live.page import Page
from brokers.views.base import page_at
from monitoring.guard import Ticket, guard, rights_of
from monitoring.hub import Subscription, View, hub
from monitoring.signals import GROUP

logger = logging.getLogger(__name__)

SIGNED_OUT: Final = 4401
FORBIDDEN: Final = 4403
NOT_FOUND: Final = 4404
"""Close codes after which the browser does not try again by itself (HTTP's codes plus 4000)."""
MAX_ADDRESS: Final = 4000


async def _unless_gone(sending: Coroutine[Any, Any, None]) -> None:
    try:
        await sending
    except Exception:
        # Each server has its own error for a browser that left in this very moment. ``disconnect`` follows.
        logger.debug("a live update found nobody", exc_info=True)


class LiveConsumer(AsyncWebsocketConsumer):
    """Authorises a socket for the view in its query (``?view=/clusters/.../``) and feeds it.

    The browser answers each message with one byte when it has shown it; nothing else it sends is looked at.
    """

    groups: ClassVar = [GROUP]

    async def connect(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ticket: Ticket | None = None
        self._view: tuple[View, Subscription] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # Accepted first: a refused handshake looks to the browser like a lost server, and it would try again.
        await self.accept()
        user = self.scope["user"]
        if not user.is_authenticated:
            await self.close(SIGNED_OUT)
            return
        try:
            page, ticket = await self._authorise(user)
        except PermissionDenied:
            await self.close(FORBIDDEN)
            return
        except Http404:
            await self.close(NOT_FOUND)
            return
        self._ticket = ticket
        guard.admit(ticket)
        self._view = hub.subscribe(page, self._deliver)

    async def disconnect(self, code: int) -> None:
        if self._ticket is not None:
            guard.dismiss(self._ticket)
        if self._view is not None:
            hub.unsubscribe(*self._view)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self._view is not None:
            hub.seen(self._view[1])

    async def live_feed(self, event: dict[str, Any]) -> None:
        """Some process wrote operations or events."""
        hub.touch()

    async def live_rights(self, event: dict[str, Any]) -> None:
        """Somebody signed out, or what somebody may do was changed."""
        guard.recheck()

    @database_sync_to_async
    def _authorise(self, user: Any) -> tuple[Page, Ticket]:
        address = parse_qs(self.scope["query_string"].decode("latin1")).get("view", [""])[0]
        if not address.startswith("/") or len(address) > MAX_ADDRESS:
            raise Http404("no page at this address")
        page = page_at(address, user)
        rights = rights_of({user.pk}).get(user.pk)
        return page, Ticket(user.pk, self.scope["session"].session_key or "", rights, self._revoke)

    # The hub and the guard call these in their own threads.

    def _deliver(self, html: str) -> None:
        self._loop.call_soon_threadsafe(self._start, self.send(text_data=html))

    def _revoke(self) -> None:
        self._loop.call_soon_threadsafe(self._start, self.close(SIGNED_OUT))

    def _start(self, sending: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(_unless_gone(sending))
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)
