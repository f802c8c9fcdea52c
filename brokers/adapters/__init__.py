"""Kinds of clusters that the console operates, behind one port (``base.Cluster``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings

from brokers.adapters.base import Cluster
from brokers.adapters.embedded import EmbeddedCluster

EMBEDDED = "embedded"

KINDS: dict[str, Callable[[Mapping[str, Any]], Cluster]] = {
    EMBEDDED: lambda options: EmbeddedCluster(settings.MQ_HOME),
}
"""Kind -> how to make an adapter from a cluster's settings."""


def connect(kind: str, options: Mapping[str, Any]) -> Cluster:
    """An adapter for a cluster of ``kind``. Raises LookupError for a kind that isn't known."""
    try:
        make = KINDS[kind]
    except KeyError:
        raise LookupError(f"no adapter for clusters of kind {kind!r}; there are {', '.join(KINDS)}") from None
    return make(options)
