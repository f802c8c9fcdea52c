"""The cut of several queues: nothing that is moved between them meanwhile may be missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from brokers.adapters.base import Change, Cluster, Queue, QueueKey, Refused, Replica
from brokers.adapters.content import Content, Opened
from brokers.backups import cut as module
from brokers.backups.cut import cut
from brokers.backups.errors import BackupError

REPLICAS = (Replica("n1", "leader", 0), Replica("n2", "follower", 0), Replica("n3", "down"))


class Broker:
    """Queues a and b; before every call, a program moves one message from b to a, which is opened first."""

    def __init__(self) -> None:
        self.unsettled: dict[str, set[int]] = {"b": set(range(20)), "a": set()}
        self.next = {"b": 20, "a": 0}
        self.asked: list[tuple[str, str]] = []
        self.refusals = 0

    def snapshot(self) -> Change:
        rows = [Queue("/", name, leader="n1", replicas=REPLICAS) for name in ("a", "b")]
        return Change(full=True, queues=[*rows, Queue("/", "other", leader="n1", replicas=REPLICAS)])

    def move(self) -> None:
        self.unsettled["b"].discard(min(self.unsettled["b"]))
        self.unsettled["a"].add(self.next["a"])
        self.next["a"] += 1

    def open(self, node: str, queues: Sequence[QueueKey]) -> list[Opened]:
        found = []
        for _, name in queues:
            self.move()
            self.asked.append(("open", node))
            runs = [(position, position + 1) for position in sorted(self.unsettled[name])]
            found.append(Opened(1, runs, self.next[name]))
        return found

    def ends(self, node: str, queues: Sequence[QueueKey]) -> dict[QueueKey, tuple[int, int]]:
        if self.refusals:
            self.refusals -= 1
            raise Refused("not the leader any more")
        found = {}
        for key in queues:
            self.move()
            self.asked.append(("end", node))
            found[key] = (1, self.next[key[1]])
        return found


def make(broker: Broker) -> dict[str, set[int]]:
    found, _ = cut(cast(Cluster, broker), cast(Content, broker), lambda queue: queue.name in ("a", "b"))
    return {item.queue.name: {p for first, end in item.runs for p in range(first, end)} for item in found}


def test_a_message_on_its_way_is_in_both_rather_than_in_neither() -> None:
    broker = Broker()
    saved = make(broker)
    # What had left b when it was opened is in a: the n-th message of a is the n-th of b.
    assert saved["a"] | saved["b"] == set(range(20))
    assert [what for what, _ in broker.asked] == ["open", "open", "end", "end"]


def test_followers_are_read_and_leaders_say_the_end() -> None:
    broker = Broker()
    make(broker)
    assert broker.asked == [("open", "n2"), ("open", "n2"), ("end", "n1"), ("end", "n1")]


def test_a_change_of_leader_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    broker = Broker()
    broker.refusals = 3
    assert set(make(broker)) == {"a", "b"}
    broker.refusals = 1000
    with pytest.raises(BackupError, match="no leader"):
        make(broker)


@pytest.mark.parametrize(
    ("runs", "known", "end", "expected"),
    [
        ([(0, 3)], 3, 5, [(0, 5)]),
        ([(0, 2)], 3, 5, [(0, 2), (3, 5)]),
        ([], 3, 3, []),
        ([(1, 2), (4, 9)], 9, 6, [(1, 2), (4, 6)]),
    ],
)
def test_runs_and_what_came_since(runs: Any, known: int, end: int, expected: Any) -> None:
    assert module._extend(runs, known, end) == expected
