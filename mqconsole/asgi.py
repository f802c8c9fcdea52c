"""The ASGI application: pages over HTTP, live updates over websockets."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mqconsole.settings")
_http = get_asgi_application()  # sets Django up; what follows may import models

from monitoring.origin import SameOrigin  # noqa: E402  models can't be imported before the line above
from monitoring.routing import websocket_urlpatterns  # noqa: E402  the same
from monitoring.warmup import WatchFromTheStart  # noqa: E402  the same

application = WatchFromTheStart(
    ProtocolTypeRouter(
        {
            "http": _http,
            "websocket": SameOrigin(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
        }
    )
)
