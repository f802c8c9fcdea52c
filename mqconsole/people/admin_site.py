"""Django's admin, open to those who may manage people; its own sign-in form is the console's."""

from __future__ import annotations

from django.contrib.admin import AdminSite
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from mqconsole.people.roles import MANAGE


class ConsoleAdminSite(AdminSite):
    """The admin site of this project."""

    site_header = "mqconsole administration"
    site_title = "mqconsole"
    index_title = "People, clusters and checks"

    def has_permission(self, request: HttpRequest) -> bool:
        """By permission, not by the staff flag: who has the admin role gets in, whoever loses it is out."""
        return request.user.is_active and request.user.has_perm(MANAGE)

    def login(
        self, request: HttpRequest, extra_context: dict[str, object] | None = None
    ) -> HttpResponse | HttpResponseRedirect:
        """One sign-in form for the whole console (and so one place to throttle)."""
        if request.user.is_authenticated:
            raise PermissionDenied
        return redirect_to_login(request.GET.get("next", request.get_full_path()))
