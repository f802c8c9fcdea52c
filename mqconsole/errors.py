"""Error pages that say what to do next."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """The form's token did not fit: mostly a page left open across a sign-in."""
    return render(request, "errors/403_csrf.html", {"reason": reason}, status=403)
