"""What is remembered about clusters over time."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from brokers.models import Cluster


class Sample(models.Model):
    """A cluster's figures at one check. Kept for a week."""

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="samples")
    at = models.DateTimeField(default=timezone.now, db_index=True)
    answered = models.BooleanField(help_text="Whether any node answered; if not, the figures are empty.")
    nodes = models.PositiveSmallIntegerField(null=True)
    nodes_running = models.PositiveSmallIntegerField(null=True)
    queues = models.PositiveIntegerField(null=True)
    queues_stuck = models.PositiveIntegerField(null=True, help_text="Queues without a leader.")
    ready = models.PositiveBigIntegerField(null=True)
    unacked = models.PositiveBigIntegerField(null=True)
    publish_rate = models.FloatField(null=True)
    deliver_rate = models.FloatField(null=True)

    class Meta:
        ordering = ("-at",)
        indexes = (models.Index(fields=("cluster", "-at")),)

    def __str__(self) -> str:
        return f"{self.cluster} at {self.at:%Y-%m-%d %H:%M:%S}"
