"""What a replica's state amounts to, in a few words: equal on all replicas at the same log index."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from brokers.engine.node.hosts import Host


def digest(host: Host) -> dict[str, Any]:
    """The applied index and a hash of the replicated state; where the queue is led, what is handed out."""
    state = host.state
    state.keep_from()  # what is settled for good is forgotten by and by: here, by all alike
    row: dict[str, Any] = {
        "applied": state.applied,
        "hash": sha256(state.dump()).hexdigest(),
        "messages": state.messages,
        "leads": host.leader is not None,
    }
    if host.leader is not None:
        dispatcher = host.leader.dispatcher
        row["hand_out"] = {
            "ready": dispatcher.ready,
            "unsettled": dispatcher.unsettled,
            "settling": dispatcher.settling,
            "limbo": len(dispatcher.limbo),
            "consumers": len(dispatcher.slots),
        }
    return row
