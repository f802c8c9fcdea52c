from __future__ import annotations

import pytest

from tests.unit.model.topology.support import Client, Cluster


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def client(cluster: Cluster) -> Client:
    return cluster.client()
