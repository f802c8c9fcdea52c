"""What operators do to clusters, one module an operation. Each is planned, confirmed, run and recorded."""

from __future__ import annotations

from brokers.operations.backup import BackUp
from brokers.operations.base import Kind
from brokers.operations.discard import Discard
from brokers.operations.drill import Drill
from brokers.operations.failover import Failover
from brokers.operations.redrive import Redrive
from brokers.operations.replay import ReplayKind
from brokers.operations.restore import Restore
from brokers.operations.verify import Verify

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (Failover(), Drill(), ReplayKind(), BackUp(), Restore(), Verify(), Redrive(), Discard())
}
"""Name -> operation, as ``Operation.kind`` has it."""
