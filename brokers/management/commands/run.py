"""``manage.py run``: cluster, web, worker and beat in the foreground."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from brokers.engine.config import ConfigError
from mqconsole.supervisor.home import HomeError
from mqconsole.supervisor.stack import Options, run_stack
from mqconsole.supervisor.supervisor import StartFailed


class Command(BaseCommand):
    """Runs the cluster and the console until Ctrl-C. Set by the environment: see docs/install.md."""

    help = __doc__
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = Options(
            home=settings.MQ_HOME,
            nodes=settings.MQ_NODES if os.environ.get("MQ_NODES") else None,
            amqp_port=settings.MQ_AMQP_PORT if os.environ.get("MQ_AMQP_PORT") else None,
            http_host=os.environ.get("MQ_HTTP_HOST") or "127.0.0.1",
            http_port=settings.MQ_HTTP_PORT,
        )
        try:
            run_stack(wanted, self._say)
        except (ConfigError, HomeError, StartFailed) as error:
            raise CommandError(str(error)) from error

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()
