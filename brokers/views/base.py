"""What all pages of a cluster have in common: who may see them, how they are made and rendered."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.auth.mixins import PermissionRequiredMixin
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, render
from django.urls import Resolver404, resolve
from django.views import View

from brokers.live.page import Page
from brokers.models import Cluster


class ClusterView(PermissionRequiredMixin, View):
    """A view of one cluster, named by the address's first part. All of it needs ``permission_required``."""

    permission_required: str = "brokers.view_cluster"
    raise_exception = True
    """Who is signed in and not allowed gets 403; who isn't signed in never comes this far."""
    cluster: Cluster

    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().setup(request, *args, **kwargs)
        self.names: dict[str, str] = {name: value for name, value in kwargs.items() if name != "cluster"}

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        # Permission first: whether a cluster exists is already something to know.
        if not self.has_permission():
            return self.handle_no_permission()
        self.cluster = get_object_or_404(Cluster, slug=kwargs["cluster"])
        return super().dispatch(request, *args, **kwargs)


class PageView(ClusterView):
    """A page that changes by itself: renders ``page_class``, which the live hub renders as well."""

    page_class: ClassVar[type[Page]]
    http_method_names = ["get", "head", "options"]  # noqa: RUF012  as Django declares it

    def get(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        page = make_page(self.page_class, self.cluster, request.path, self.names, request.GET)
        state = page.state
        context = page.full_context(state)
        status = 404 if context.get("missing") else 200
        return render(request, page.template, context, status=status)


def make_page(kind: type[Page], cluster: Cluster, path: str, names: dict[str, str], query: QueryDict) -> Page:
    """The page at an address. A query that can't be understood is a 404, as any other wrong address."""
    try:
        return kind(cluster, path, names, query)
    except ValueError as error:
        raise Http404(str(error)) from error


def page_at(address: str, user: Any) -> Page:
    """The live page at ``address`` (path and query), for a websocket of ``user``.

    Raises ``PermissionDenied`` when the user may not see it, ``Http404`` when there is no such page.
    """
    path, _, query = address.partition("?")
    try:
        match = resolve(path)
    except Resolver404:
        raise Http404("no page at this address") from None
    view = getattr(match.func, "view_class", None)
    if view is None or not issubclass(view, PageView):
        raise Http404("no live page at this address")
    if isinstance(user, AnonymousUser) or not user.is_active or not user.has_perm(view.permission_required):
        raise PermissionDenied
    names = dict(match.kwargs)
    cluster = get_object_or_404(Cluster, slug=names.pop("cluster"))
    return make_page(view.page_class, cluster, path, names, QueryDict(query))
