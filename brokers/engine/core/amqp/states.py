"""The states of a connection."""

from __future__ import annotations

from enum import Enum


class ConnectionState(Enum):
    """Named as RabbitMQ's texts and management interface name them."""

    HEADER = "header"
    """Nothing but the protocol header may come."""
    STARTING = "starting"
    TUNING = "tuning"
    OPENING = "opening"
    RUNNING = "running"
    CLOSING = "closing"
    """The server wants to close; only the client's ``close-ok`` is of interest."""
    CLOSED = "closed"
