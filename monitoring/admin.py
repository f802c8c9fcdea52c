"""Samples in Django's admin."""

from django.contrib import admin

from brokers.admin import ReadOnlyAdmin
from monitoring.models import Sample


@admin.register(Sample)
class SampleAdmin(ReadOnlyAdmin):
    """Figures of past checks."""

    list_display = ("at", "cluster", "answered", "nodes_running", "nodes", "queues", "queues_stuck", "ready")
    list_filter = ("cluster", "answered", "at")
    date_hierarchy = "at"
    list_select_related = ("cluster",)
