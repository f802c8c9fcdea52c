"""The Django app of clusters and of what operators do to them."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class BrokersConfig(AppConfig):
    """Clusters, operations, events; their pages."""

    name = "brokers"
    verbose_name = "Clusters"

    def ready(self) -> None:
        post_migrate.connect(enter_embedded, sender=self, dispatch_uid="brokers.enter_embedded")


def enter_embedded(sender: AppConfig, using: str = "default", **kwargs: Any) -> None:
    """A console that knows no cluster yet gets the embedded one (a receiver of ``post_migrate``)."""
    from brokers.models import Cluster

    clusters = Cluster.objects.using(using)
    if not clusters.exists():
        clusters.create(slug="local", name="Local cluster", kind=Cluster.Kind.EMBEDDED)
