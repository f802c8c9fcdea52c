"""The people who use the console, and what each may do."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class PeopleConfig(AppConfig):
    """Users and roles."""

    name = "mqconsole.people"
    label = "people"
    verbose_name = "People"

    def ready(self) -> None:
        from mqconsole.people.roles import create_roles

        post_migrate.connect(create_roles, dispatch_uid="people.create_roles")
