"""The Django app that watches clusters: samples, checks, live updates."""

from django.apps import AppConfig


class MonitoringConfig(AppConfig):
    """Checks by Celery, live pages by websockets."""

    name = "monitoring"
    verbose_name = "Monitoring"

    def ready(self) -> None:
        from monitoring import signals

        signals.connect()
