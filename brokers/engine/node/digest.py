"""What a replica's state amounts to, in a few words: equal on all replicas at the same log index."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from brokers.engine.core.model.queue_state import QueueState
from brokers.engine.node.hosts import Host


def digest(host: Host) -> dict[str, Any]:
    """The applied index and a hash of the replicated state; where the queue is led, what is handed out."""
    parts = replicated(host.state)
    row: dict[str, Any] = {
        "applied": host.state.applied,
        "hash": sha256(json.dumps(parts).encode()).hexdigest(),
        "messages": host.state.messages,
        "leads": host.leader is not None,
    }
    if len(parts["settled"]) < 100:
        row["state"] = parts
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


def replicated(state: QueueState) -> dict[str, Any]:
    """What is a function of the log alone. What is retained of settled messages is each replica's own."""
    gaps = list(state.settled.gaps(state.settled.floor, state.next_position))
    if state.lanes is not None:
        state.lanes.forget(state.settled)
    return {
        "next_position": state.next_position,
        "messages": state.messages,
        "bytes": state.bytes,
        "watermark": state.watermark,
        "redelivered_below": state.redelivered_below,
        "published": state.published,
        "settled_total": state.settled_total,
        "settled": [state.settled.floor, *state.settled.stretches()],
        "entries": [state.index.find(first) for first, _ in gaps],
        "origins": list(state.origins.items()),
        "flags": state.flags,
        "refusals": [[origin, list(found.items())] for origin, found in state.refusals.items()],
        "counts": sorted(state.counts.items()),
        "dying": sorted(state.dying.items()),
        "retries": sorted(state.retries.items()),
        "marked": state.marks.total,
        "lanes": None if state.lanes is None else state.lanes.flat(),
        "seen": None if state.seen is None else list(state.seen.items()),
    }
