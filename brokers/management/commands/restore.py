"""``manage.py restore NAME``: put a backup back, whole or in part, under the same or other names."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from brokers.adapters.base import ClusterError
from brokers.management.progress import finish
from brokers.models import Cluster
from brokers.operations import runner
from brokers.operations.restore import Restore


class Command(BaseCommand):
    """The backup may be of this console or any other with the same MQ_BACKUP_KEY; exits 1 on failure."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the backup's name: its folder in MQ_BACKUPS")
        parser.add_argument(
            "--cluster", default="local", help="the short name of the cluster to restore into"
        )
        parser.add_argument("--no-definitions", action="store_true", help="only queues and their messages")
        parser.add_argument("--no-messages", action="store_true", help="only definitions")
        parser.add_argument(
            "--queue",
            action="append",
            nargs=2,
            metavar=("VHOST", "NAME"),
            help="only the messages of this queue; may be given again",
        )
        parser.add_argument("--prefix", default="", help="put before the names of the restored queues")
        parser.add_argument("--plan", action="store_true", help="only say what would happen")
        parser.add_argument("--json", action="store_true", help="the result for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        cluster = Cluster.objects.filter(slug=options["cluster"]).first()
        if cluster is None:
            raise CommandError(f"there is no cluster {options['cluster']!r}")
        params = {
            "backup": options["name"],
            "definitions": not options["no_definitions"],
            "queues": [] if options["no_messages"] else options["queue"],
            "prefix": options["prefix"],
        }
        try:
            plan = Restore().plan(cluster, cluster.adapter(), params)
        except ClusterError as error:
            raise CommandError(str(error)) from error
        if plan.refusal:
            raise CommandError(plan.refusal)
        if options["plan"]:
            for line in (*plan.lines, *plan.warnings):
                self.stdout.write(line)
            return
        operation = runner.confirm(Restore.name, cluster, f"backup {options['name']}", plan, who=None)
        finish(self, operation, options["json"])
