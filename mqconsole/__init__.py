"""The Django project: settings, people, the web and task applications, the supervisor of the local stack."""

from mqconsole.celery import app as celery_app

__all__ = ["celery_app"]
"""Every process of the project, not only the workers, sends its tasks by this application."""
