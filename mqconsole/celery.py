"""The Celery application. Its broker is, by default, the embedded cluster: all nodes in one URL."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mqconsole.settings")

app = Celery("mqconsole")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
