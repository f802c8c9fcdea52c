"""The live hub: renders what changed once for all who watch the same view, and hands it to their sockets.

One thread a process does all the rendering. It wakes when a watcher tells that something changed (or the
database has new operations or events), renders the views that are affected, at most ``RATE`` times a second
and for at most a quarter of the time, and passes the same text to every subscriber of a view.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from django.db import close_old_connections
from django.db.models import Max

from brokers.live.page import Page, Renderer
from brokers.live.state import Delta
from brokers.live.watcher import watcher_of
from brokers.models import Event, Operation

logger = logging.getLogger(__name__)

RATE: Final = 4.0
"""Renderings of one view per second, at most."""
IDLE_SHARE: Final = 3.0
"""After rendering for t seconds of processor time the hub pauses for at least this many times t."""
FEED_PAUSE: Final = 1.5
"""Seconds between two looks for operations and events that another process wrote."""
WINDOW: Final = 8
"""Messages a browser may have that it hasn't shown yet; one that is further behind waits for a resync."""


@dataclass(eq=False, slots=True)
class Subscription:
    """One socket that watches a view. ``deliver`` is called in the hub's thread and must not wait."""

    deliver: Callable[[str], None]
    unseen: int = 0
    stale: bool = True
    """Missed something (at first: everything), so the next message has to be the whole view."""


@dataclass(eq=False, slots=True)
class View:
    """A page that somebody watches."""

    renderer: Renderer
    subscriptions: set[Subscription] = field(default_factory=set)
    pending: Delta = field(default_factory=lambda: Delta(everything=True))


class Hub:
    """All live views of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._views: dict[tuple[int, str], View] = {}
        self._watched: set[int] = set()
        self._thread: threading.Thread | None = None
        self._feed_mark: object = None
        self._feed_due = 0.0

    # --- called from sockets' threads

    def subscribe(self, page: Page, deliver: Callable[[str], None]) -> tuple[View, Subscription]:
        """Begin to deliver ``page``: the whole of it soon, then what changes. Returns what unsubscribes."""
        subscription = Subscription(deliver)
        with self._lock:
            view = self._views.setdefault((page.cluster.pk, page.address), View(Renderer(page)))
            view.subscriptions.add(subscription)
            self._watch(page)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="live hub", daemon=True)
                self._thread.start()
        self._wake.set()
        return view, subscription

    def unsubscribe(self, view: View, subscription: Subscription) -> None:
        """Stop delivering. A view that nobody watches any more is forgotten."""
        with self._lock:
            view.subscriptions.discard(subscription)
            page = view.renderer.page
            if not view.subscriptions:
                self._views.pop((page.cluster.pk, page.address), None)

    def seen(self, subscription: Subscription) -> None:
        """The browser has shown one more message."""
        subscription.unseen = max(0, subscription.unseen - 1)
        if subscription.stale and subscription.unseen == 0:
            self._wake.set()

    def touch(self) -> None:
        """Operations or events were written: look now."""
        self._feed_due = 0.0
        self._wake.set()

    def _watch(self, page: Page) -> None:
        cluster = page.cluster
        if cluster.pk in self._watched:
            return
        self._watched.add(cluster.pk)
        pk = cluster.pk
        watcher_of(pk, cluster.slug, cluster.adapter).listen(lambda delta: self._changed(pk, delta))

    # --- called from watchers' threads

    def _changed(self, cluster: int | None, delta: Delta) -> None:
        with self._lock:
            for (pk, _), view in self._views.items():
                if cluster is None or pk == cluster:
                    view.pending |= delta
        self._wake.set()

    # --- the hub's own thread

    def _run(self) -> None:
        while True:
            self._wake.wait(FEED_PAUSE)
            self._wake.clear()
            began, worked = time.monotonic(), time.thread_time()
            try:
                self._look_at_feed(began)
                self._render()
            except Exception:
                # Whatever it was must not freeze every page for ever.
                logger.exception("live updates failed once; they go on")
            took, worked = time.monotonic() - began, time.thread_time() - worked
            time.sleep(max(0.0, 1 / RATE - took, IDLE_SHARE * worked))

    def _look_at_feed(self, now: float) -> None:
        if now < self._feed_due or not self._views:
            return
        self._feed_due = now + FEED_PAUSE
        close_old_connections()
        mark = (
            Operation.objects.aggregate(last=Max("changed"))["last"],
            Event.objects.aggregate(last=Max("changed"))["last"],
        )
        if mark != self._feed_mark:
            self._feed_mark = mark
            self._changed(None, Delta(feed=True))

    def _render(self) -> None:
        with self._lock:
            work = [(view, view.pending, tuple(view.subscriptions)) for view in self._views.values()]
            for view, _, _ in work:
                view.pending = Delta()
        for view, delta, subscriptions in work:
            try:
                _update(view.renderer, delta, subscriptions)
            except Exception:
                logger.exception("rendering %s failed", view.renderer.page.address)


def _update(renderer: Renderer, delta: Delta, subscriptions: tuple[Subscription, ...]) -> None:
    page = renderer.page
    changes: list[str] = []
    if page.affected(delta):
        page.forget(delta)
        changes = renderer.changes()
    joining = [s for s in subscriptions if s.stale and s.unseen == 0]
    for subscription in subscriptions:
        if not subscription.stale:
            _send(subscription, changes)
    if joining:
        whole = renderer.everything()
        for subscription in joining:
            subscription.stale = False
            _send(subscription, whole)


def _send(subscription: Subscription, texts: list[str]) -> None:
    if subscription.unseen >= WINDOW:
        subscription.stale = subscription.stale or bool(texts)
        return
    for text in texts:
        subscription.unseen += 1
        subscription.deliver(text)


hub = Hub()
"""This process's hub."""
