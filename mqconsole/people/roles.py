"""Roles are Django groups with permissions: viewer sees, operator acts, admin also manages people, clusters.

They are brought up to date after each migration, so that a new release's permissions reach existing roles.
What an organisation adds to a role, or a group of its own, is left alone.
"""

from __future__ import annotations

from typing import Any, Final

from django.apps import AppConfig
from django.apps import apps as installed

VIEWER: Final = "viewer"
OPERATOR: Final = "operator"
ADMIN: Final = "admin"

_SEES: Final = (
    "brokers.view_cluster",
    "brokers.view_operation",
    "brokers.view_event",
)
_ACTS: Final = ("brokers.operate_cluster",)
_MANAGED_APPS: Final = ("people", "brokers", "monitoring", "django_celery_beat")

SEE: Final = "brokers.view_cluster"
"""Asked for by every page and every websocket."""
OPERATE: Final = "brokers.operate_cluster"
"""Asked for by everything that changes a cluster."""
MANAGE: Final = "people.change_user"
"""Asked for by Django's admin as a whole."""


def create_roles(sender: AppConfig, using: str = "default", **kwargs: Any) -> None:
    """Make the roles' groups and give them their permissions (a receiver of ``post_migrate``)."""
    # Permissions are made by the same signal, app by app: only after the last app are all of them there.
    last = [config for config in installed.get_app_configs() if config.models_module][-1]
    if sender.label != last.label:
        return
    from django.contrib.auth.management import create_permissions
    from django.contrib.auth.models import Group, Permission

    for config in installed.get_app_configs():
        create_permissions(config, verbosity=0, using=using)
    by_name = {
        f"{permission.content_type.app_label}.{permission.codename}": permission
        for permission in Permission.objects.using(using).select_related("content_type")
    }
    sees = [by_name[name] for name in _SEES]
    acts = [by_name[name] for name in _ACTS]
    manages = [
        permission
        for name, permission in by_name.items()
        if name.partition(".")[0] in _MANAGED_APPS or name == "auth.view_group"
        # What was done is a record: nobody edits it, not even an admin.
        if not name.endswith(("_operation", "_event", "_sample")) or ".view_" in name
    ]
    for role, permissions in ((VIEWER, sees), (OPERATOR, sees + acts), (ADMIN, sees + acts + manages)):
        group, _ = Group.objects.using(using).get_or_create(name=role)
        group.permissions.add(*permissions)
