"""Clusters of real processes for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness import Cluster

_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Remember a failure, so that the fixtures below show the nodes' logs with it."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.fixture
def make_cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Cluster]]:
    """``make_cluster(nodes=3, env=None, home=None, base=None)``: not started yet; killed after the test."""
    made: list[Cluster] = []
    with ExitStack() as stack:

        def make(
            nodes: int = 3,
            env: dict[str, str] | None = None,
            home: Path | None = None,
            base: int | None = None,
        ) -> Cluster:
            cluster = Cluster(home or tmp_path / f"cluster{len(made) + 1}", nodes, env, base)
            made.append(stack.enter_context(cluster))
            return cluster

        yield make
        if request.node.stash.get(_FAILED, False):
            for cluster in made:
                print(cluster.log_tails())


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """Three nodes that run and agree."""
    return make_cluster().start()
