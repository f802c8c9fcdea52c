"""``manage.py ensure_admin``: there is a way in, from the first start on."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from django.db import transaction

from mqconsole import environment

NAME: Final = "admin"


class Command(BaseCommand):
    """Creates the user ``admin`` if there is none.

    The password is MQ_ADMIN_PASSWORD, or else one generated once and kept in MQ_HOME/admin-password (mode
    600). An admin who exists already is left alone: a changed password stays changed.
    """

    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        users = get_user_model().objects
        if users.filter(username=NAME).exists():
            self.stdout.write(f"the user {NAME} exists")
            return
        password = environment.kept_secret("MQ_ADMIN_PASSWORD", settings.MQ_HOME / "admin-password", 18)
        with transaction.atomic():
            users.create_superuser(NAME, "", password)
        self.stdout.write(f"created the user {NAME}")
