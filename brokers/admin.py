"""Clusters, and the record of what was done to them and what happened, in Django's admin."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest

from brokers.models import Cluster, Event, Operation


class ReadOnlyAdmin(admin.ModelAdmin):
    """A record: looked at, searched and filtered, never changed by hand."""

    list_per_page = 50
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Cluster)
class ClusterAdmin(admin.ModelAdmin):
    """Which clusters the console operates."""

    list_display = ("name", "kind", "slug", "created")
    list_filter = ("kind",)
    search_fields = ("name", "slug")
    prepopulated_fields: ClassVar = {"slug": ("name",)}


@admin.register(Operation)
class OperationAdmin(ReadOnlyAdmin):
    """What operators did."""

    list_display = ("created", "kind", "target", "cluster", "state", "who", "reason")
    list_filter = ("state", "kind", "cluster", "created")
    search_fields = ("target", "reason", "error", "who__username")
    date_hierarchy = "created"
    list_select_related = ("cluster", "who")


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    """What happened by itself."""

    list_display = ("began", "ended", "severity", "kind", "subject", "cluster", "text")
    list_filter = ("severity", "kind", "cluster", "began")
    search_fields = ("subject", "text")
    date_hierarchy = "began"
    list_select_related = ("cluster",)
