"""Changes to the cluster's metadata, from this node to the metadata leader and back as applied state.

Commands are numbered by the node's boot, so that one sent again after a change of leader is applied once.
A command is answered when *this* node has applied it: what a client was told exists is there when it sends
its next method.
"""

from __future__ import annotations

from collections.abc import Callable

from brokers.engine.core.model.commands import Command, decode_command, encode_command, stamp
from brokers.engine.core.model.events import Event
from brokers.engine.core.model.metadata import Metadata, Result

METADATA_GROUP = 0
RESEND = 1.0
"""Seconds after which an unanswered command is sent again (its leader may have been deposed)."""

Answered = Callable[[Result], None]


class MetadataService:
    """``forward(payload)`` hands a command to the metadata leader, if one is known, wherever it is."""

    def __init__(
        self,
        metadata: Metadata,
        boot: int,
        *,
        forward: Callable[[bytes], None],
        on_event: Callable[[Event], None],
    ) -> None:
        self.metadata = metadata
        self._boot = boot
        self._forward = forward
        self._on_event = on_event
        self._serial = 0
        self._pending: dict[int, tuple[bytes, Answered, float]] = {}
        """By serial, ascending: payload, who waits, when it is to be sent again."""

    def submit(self, command: Command, answered: Answered, now: float) -> None:
        """Have ``command`` applied by the whole cluster; ``answered`` is called once this node has."""
        self._serial += 1
        low = next(iter(self._pending), self._serial)
        payload = encode_command(stamp(command, self._boot, self._serial, low))
        self._pending[self._serial] = (payload, answered, now + RESEND)
        self._forward(payload)

    def leader_changed(self, now: float) -> None:
        """There is a new metadata leader: it may not have what was sent to the former."""
        self._resend(list(self._pending), now)

    def tick(self, now: float) -> None:
        """Send again what was not answered for long."""
        self._resend([serial for serial, (_, _, due) in self._pending.items() if due <= now], now)

    def _resend(self, serials: list[int], now: float) -> None:
        for serial in serials:
            payload, answered, _ = self._pending[serial]
            self._pending[serial] = (payload, answered, now + RESEND)
            self._forward(payload)

    def apply(self, payload: bytes) -> None:
        """A committed command, this node's or another's."""
        command = decode_command(payload)
        result = self.metadata.apply(command)
        for event in result.events:
            self._on_event(event)
        match command.get("id"):
            case [self._boot, int(serial)] if serial in self._pending:
                _, answered, _ = self._pending.pop(serial)
                answered(result)
