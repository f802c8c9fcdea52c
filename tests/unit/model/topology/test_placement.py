"""Where replicas go."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.engine.core.model.placement import group_size, place


@pytest.mark.parametrize(
    ("wanted", "nodes", "size"),
    [(None, 3, 3), (None, 5, 3), (None, 1, 1), (5, 3, 3), (1, 3, 1), (5, 7, 5), (0, 3, 1), (True, 5, 3)],
)
def test_group_size(wanted: object, nodes: int, size: int) -> None:
    assert group_size(wanted, nodes) == size


@settings(deadline=None)
@given(st.integers(1, 7), st.integers(1, 5), st.integers(1, 60))
def test_both_are_spread_evenly(nodes: int, size: int, queues: int) -> None:
    replicas: Counter[int] = Counter()
    leaders: Counter[int] = Counter()
    for _ in range(queues):
        chosen = place(size, range(1, nodes + 1), replicas, leaders)
        assert len(set(chosen)) == len(chosen) == min(size, nodes)
        replicas.update(chosen)
        leaders[chosen[0]] += 1
    loads = [replicas[node] for node in range(1, nodes + 1)]
    assert max(loads) - min(loads) <= 1
    led = [leaders[node] for node in range(1, nodes + 1)]
    assert max(led) - min(led) <= 2


def test_the_client_s_node_leads_when_nothing_speaks_against_it() -> None:
    assert place(3, [1, 2, 3], {}, {}, local=2) == (2, 1, 3)
    assert place(3, [1, 2, 3], {}, {2: 1}, local=2) == (1, 2, 3)
    assert place(1, [1, 2, 3], {}, {}, local=3) == (3,)


def test_the_order_of_the_nodes_does_not_matter() -> None:
    assert place(2, [3, 1, 2], {1: 5}, {}) == place(2, {1, 2, 3}, {1: 5}, {}) == (2, 3)


def test_without_nodes_there_is_no_place() -> None:
    with pytest.raises(ValueError, match="no node can take a replica"):
        place(3, [], {}, {})
