"""What operators do to clusters, one module an operation. Each is planned, confirmed, run and recorded."""

from __future__ import annotations

from brokers.operations.base import Kind
from brokers.operations.failover import Failover

KINDS: dict[str, Kind] = {kind.name: kind for kind in (Failover(),)}
"""Name -> operation, as ``Operation.kind`` has it."""
