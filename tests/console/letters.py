"""Dead letters in memory, behind the port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brokers.adapters.base import NotFound, QueueKey
from brokers.adapters.dead_letters import (
    Bucket,
    Chosen,
    DeadLetterQueue,
    DeadLetters,
    Done,
    Group,
    Groups,
    Onward,
    Page,
)

KEY = ("/", "orders.dead")


def letter(position: int, group: str = "aa", body: str = '{"id": 1}', **headers: Any) -> dict[str, Any]:
    """A message of the port."""
    return {
        "position": position,
        "at": 1_700_000_000.0 + position,
        "state": "ready",
        "exchange": "",
        "routing_key": "orders.dead",
        "properties": {"message_id": str(position)},
        "headers": {"x-death": [{"queue": "orders", "reason": "rejected"}], **headers},
        "payload": body,
        "payload_encoding": "string",
        "payload_bytes": len(body),
        "truncated": False,
        "group": group,
        "cause": {"reason": "rejected", "queue": "orders", "routing_key": "order.new", "exception": group},
    }


class FakeLetters(DeadLetters):
    """One queue of messages. ``dies_again`` of those sent on are said to have come back."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = {message["position"]: message for message in messages}
        self.calls: list[dict[str, Any]] = []
        self.dies_again = 0
        self.fails: list[Exception] = []

    def queues(self) -> tuple[DeadLetterQueue, ...]:
        return (DeadLetterQueue(*KEY, ("orders",), 1, True),)

    def groups(self, queue: QueueKey) -> Groups:
        if queue != KEY:
            raise NotFound(f"there is no queue {queue[1]!r}")
        found: dict[str, list[dict[str, Any]]] = {}
        for message in self.messages.values():
            found.setdefault(message["group"], []).append(message)
        rows = tuple(
            Group(
                name,
                "rejected",
                "orders",
                "order.new",
                f"<b>{name}</b>",
                "JSON {id}",
                len(messages),
                messages[0]["position"],
                messages[0]["at"],
                messages[-1]["at"],
            )
            for name, messages in found.items()
        )
        end = max(self.messages, default=0) + 1
        count = len(self.messages)
        return Groups(rows, len(rows), count, count, end, (Bucket(1_700_000_000.0, 60.0, count),))

    def page(self, queue: QueueKey, chosen: Chosen, first: int, count: int, max_bytes: int) -> Page:
        found = self._chosen(chosen, first)
        onward = found[count]["position"] if len(found) > count else None
        return Page(found[:count], onward, max(self.messages, default=0) + 1)

    def redrive(
        self,
        queue: QueueKey,
        run: str,
        chosen: Chosen,
        first: int,
        count: int,
        onward: Onward,
        *,
        watch: int,
        unsure: bool = False,
        edit: Mapping[str, Any] | None = None,
    ) -> Done:
        self.calls.append({"first": first, "onward": onward, "unsure": unsure, "edit": edit, "watch": watch})
        done = self._take(chosen, first, min(count, 2))
        back, self.dies_again = self.dies_again, 0
        originals = done if edit else []
        next_ = done[-1]["position"] + 1 if done else None
        return Done(next_, len(done), {}, originals, back, watch + back)

    def discard(self, queue: QueueKey, run: str, chosen: Chosen, first: int, count: int) -> Done:
        done = self._take(chosen, first, count)
        return Done(None, len(done), {"held by consumers": 1})

    def _take(self, chosen: Chosen, first: int, count: int) -> list[dict[str, Any]]:
        if self.fails:
            raise self.fails.pop()
        taken = self._chosen(chosen, first)[:count]
        for message in taken:
            del self.messages[message["position"]]
        return taken

    def _chosen(self, chosen: Chosen, first: int) -> list[dict[str, Any]]:
        return [
            message
            for position, message in sorted(self.messages.items())
            if first <= position < chosen.until
            and (chosen.positions is None or position in chosen.positions)
            and (not chosen.groups or message["group"] in chosen.groups)
        ]
