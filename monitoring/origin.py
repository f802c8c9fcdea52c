"""Websockets are opened by this console's own pages only: browsers let any site try."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from channels.security.websocket import WebsocketDenier
from django.conf import settings
from django.http.request import split_domain_port, validate_host

Application = Callable[[dict[str, Any], Any, Any], Awaitable[Any]]


class SameOrigin:
    """Denies a handshake whose Origin is not the host it was sent to (or a trusted origin of the settings).

    A missing Origin, "null" and everything unparseable are denied as well: browsers always send one.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        if self._allowed(scope):
            return await self.application(scope, receive, send)
        return await WebsocketDenier()(scope, receive, send)

    @staticmethod
    def _allowed(scope: dict[str, Any]) -> bool:
        origins = [value for name, value in scope["headers"] if name == b"origin"]
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(origins) != 1 or len(hosts) != 1:
            return False
        origin, host = origins[0].decode("latin1").lower(), hosts[0].decode("latin1").lower()
        if origin in (trusted.lower() for trusted in settings.CSRF_TRUSTED_ORIGINS):
            return True
        domain, _ = split_domain_port(host)
        if not domain or not validate_host(domain, settings.ALLOWED_HOSTS):
            return False
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        schemes = ("https",) if settings.MQ_HTTPS else ("http", "https")
        return parts.scheme in schemes and parts.netloc == host
