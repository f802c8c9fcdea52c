"""Where the replicas of a new queue go, and which of them should lead.

Pure: everybody who counts the same way places the same way; no state is kept between calls.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

DEFAULT_REPLICAS = 3


def group_size(wanted: object, nodes: int) -> int:
    """How many replicas a new queue gets: ``wanted`` (x-quorum-initial-group-size, or None for
    ``DEFAULT_REPLICAS``), at least 1 and at most the number of ``nodes``."""
    size = wanted if isinstance(wanted, int) and not isinstance(wanted, bool) else DEFAULT_REPLICAS
    return max(1, min(size, nodes))


def place(
    size: int,
    nodes: Collection[int],
    replicas: Mapping[int, int],
    leaders: Mapping[int, int],
    local: int | None = None,
) -> tuple[int, ...]:
    """Choose ``size`` of ``nodes`` for a new group, the preferred leader first.

    ``nodes`` are those that can take replicas now; ``replicas`` and ``leaders`` count what each node has.
    Nodes with the fewest replicas are taken, among them the one that leads the fewest groups leads; at a
    tie the ``local`` node (the client's) wins, then the one with the lower id. Raises ``ValueError``
    without nodes.
    """
    if not nodes:
        raise ValueError("no node can take a replica now: is any node of the cluster up?")

    def by_load(node: int) -> tuple[int, int, bool, int]:
        return (replicas.get(node, 0), leaders.get(node, 0), node != local, node)

    def by_leaders(node: int) -> tuple[int, bool, int]:
        return (leaders.get(node, 0), node != local, node)

    chosen = sorted(nodes, key=by_load)[: max(1, size)]
    leader = min(chosen, key=by_leaders)
    return (leader, *(node for node in sorted(chosen) if node != leader))
