"""Tells every web process at once when something was written that live pages or open sockets depend on.

The channel layer carries it: between processes when it is Redis, within one otherwise. Hub and guard look
for themselves every few seconds as well, so this makes them quick, not right.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_out
from django.db import transaction
from django.db.models.signals import m2m_changed, post_save

from brokers.models import Event, Operation

logger = logging.getLogger(__name__)

GROUP: Final = "live"
FEED: Final = {"type": "live.feed"}
RIGHTS: Final = {"type": "live.rights"}


def connect() -> None:
    """Connect the receivers (once, when the app is ready)."""
    user = get_user_model()
    for model in (Operation, Event):
        post_save.connect(_feed_changed, sender=model, dispatch_uid=f"live.feed.{model.__name__}")
    post_save.connect(_rights_changed, sender=user, dispatch_uid="live.rights.user")
    m2m_changed.connect(_rights_changed, sender=user.groups.through, dispatch_uid="live.rights.groups")
    user_logged_out.connect(_rights_changed, dispatch_uid="live.rights.logout")


def _feed_changed(**kwargs: Any) -> None:
    transaction.on_commit(lambda: _tell(FEED))


def _rights_changed(**kwargs: Any) -> None:
    transaction.on_commit(lambda: _tell(RIGHTS))


def _tell(message: dict[str, str]) -> None:
    layer = get_channel_layer()
    if layer is None:
        return
    try:
        async_to_sync(layer.group_send)(GROUP, message)
    except (OSError, RuntimeError):
        # The layer is a short cut; without it the same is noticed a little later.
        logger.warning("the channel layer did not take %s", message["type"], exc_info=True)
