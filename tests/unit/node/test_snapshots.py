"""What a snapshot refers to is what the log still holds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from brokers.engine.core.model import entries
from brokers.engine.core.model.entries import Settled
from brokers.engine.core.model.metadata import Metadata
from brokers.engine.core.model.queue_settings import QueueSettings
from brokers.engine.core.model.queue_state import QueueState
from brokers.engine.node.hosts import ReplicaHost
from brokers.engine.node.queues import Queues
from brokers.engine.node.replication import Replication
from brokers.engine.node.snapshots import Snapshots


class FakeReplication:
    """Remembers the snapshots."""

    def __init__(self) -> None:
        self.made: list[tuple[bytes, int]] = []
        self.log = SimpleNamespace(stats=lambda: SimpleNamespace(bytes=0), free_bytes=lambda: 1 << 40)

    def snapshot(self, group: int, index: int, state: bytes, keep_from: int) -> None:
        self.made.append((state, keep_from))


def test_a_restarted_replica_does_not_count_on_what_its_snapshot_let_go() -> None:
    state = QueueState()
    for serial in range(1, 4):
        batch = entries.encode_batch(1, serial, [7], [b"\0\0", b"\0\0\0\0", b"", b"x"])
        state.apply(serial, entries.encode_publish(0, batch))
    state.apply(4, entries.encode_settle(Settled.ACK, [(0, 2)]))
    replication = FakeReplication()
    host = ReplicaHost(5, state, cast("Replication", replication).log, cast("Replication", replication))
    queues = SimpleNamespace(hosts={5: host}, settings=lambda group: QueueSettings(retention_bytes=0))
    host.snapshot_index = 0
    snapshots = Snapshots(cast(Replication, replication), cast(Queues, queues), Metadata())

    snapshots.check(1000.0)

    (dumped, keep_from), restarted = replication.made[0], QueueState.load(replication.made[0][0])
    assert keep_from == 3
    restarted.applied = 4
    restarted.retain_from = 0
    assert QueueState.load(dumped).kept == 2
    assert restarted.keep_from() >= keep_from
