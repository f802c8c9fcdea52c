"""How Django's admin is installed here. Apart from ``admin_site``, which needs the apps to be loaded."""

from django.contrib.admin.apps import AdminConfig


class ConsoleAdminConfig(AdminConfig):
    """Puts ``ConsoleAdminSite`` in the place of Django's own."""

    default_site = "mqconsole.people.admin_site.ConsoleAdminSite"
