"""The front door: leads to the first cluster's overview."""

from __future__ import annotations

from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from brokers.models import Cluster


@require_safe
@permission_required("brokers.view_cluster", raise_exception=True)
def home(request: HttpRequest) -> HttpResponse:
    """To the overview; a word of advice when no cluster is entered."""
    cluster = Cluster.objects.order_by("created").first()
    if cluster is None:
        return render(request, "overview/no_cluster.html")
    return redirect("overview", cluster.slug)
