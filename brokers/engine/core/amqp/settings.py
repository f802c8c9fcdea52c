"""What a connection may use; the defaults are RabbitMQ's where it has any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """Limits and times of a connection. Sizes in octets, times in seconds."""

    token: Callable[[], str]
    """Makes an unguessable string; for the consumer tags the server chooses."""
    frame_max: int = 131072
    """The largest frame offered to clients, 0 for no limit."""
    channel_max: int = 2047
    """How many channels a client may have open at once, 0 for no limit."""
    heartbeat: int = 60
    """The interval suggested to clients, which have the last word; 0 suggests none."""
    handshake_timeout: float = 10.0
    close_timeout: float = 10.0
    """How long the client's ``close-ok`` is waited for."""
    silent_close_delay: float = 3.0
    """How long a connection that sent no valid frames, or a wrong password, is kept before it is closed."""
    max_message_size: int = 128 * 1024 * 1024
    max_assembling: int = 512 * 1024 * 1024
    """Message bodies half received, over all channels of the connection."""
    max_consumers: int = 10_000
    """Consumers a channel may have."""
    max_waiting: int = 1024 * 1024
    """Frames waiting behind unanswered methods before the connection pauses."""
