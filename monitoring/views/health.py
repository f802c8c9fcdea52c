"""Health, for supervisors and load balancers. Says which part fails, and nothing else: strangers may ask."""

from __future__ import annotations

import logging

from django.db import Error, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from brokers.live.watcher import state_of
from brokers.models import Cluster

logger = logging.getLogger(__name__)


@require_safe
def alive(request: HttpRequest) -> HttpResponse:
    """The process answers. Restart it when it doesn't."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """200 when the database answers and every cluster has a quorum, else 503; which of them fails as JSON."""
    answer: dict[str, object] = {"database": "ok", "clusters": {}}
    well = True
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        clusters = list(Cluster.objects.all())
    except Error:
        logger.exception("the database does not answer")
        return JsonResponse({"database": "failed"}, status=503)
    words = {}
    for cluster in clusters:
        state = state_of(cluster.pk, cluster.slug, cluster.adapter)
        if state.lost is not None:
            words[cluster.slug] = "unreachable"
        elif not state.has_quorum:
            words[cluster.slug] = "no quorum"
        else:
            words[cluster.slug] = "ok"
        well = well and words[cluster.slug] == "ok"
    answer["clusters"] = words
    return JsonResponse(answer, status=200 if well else 503)
