"""Addresses of the whole project."""

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path

from monitoring.views import health

urlpatterns = [
    path("", include("brokers.urls")),
    path("login/", LoginView.as_view(template_name="login/page.html"), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path("healthz", login_not_required(health.alive), name="healthz"),
    path("readyz", login_not_required(health.ready), name="readyz"),
]
