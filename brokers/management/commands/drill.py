"""``manage.py drill``: a fail-over drill on a queue, for cron and scripts."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from brokers.adapters.base import ClusterError, Queue
from brokers.live.problems import queue_name
from brokers.management.progress import report
from brokers.models import Cluster
from brokers.operations import runner
from brokers.operations.drill import FAULTS, Drill


class Command(BaseCommand):
    """Does what the page "Drill" does, at once: who calls it has confirmed. Fails when a probe was lost."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The queue and the fault."""
        parser.add_argument("queue")
        parser.add_argument("--fault", choices=list(FAULTS), default="transfer")
        parser.add_argument("--cluster", default="local", metavar="SLUG", help="the cluster (local)")
        parser.add_argument("--vhost", default="/")
        parser.add_argument("--reason", default="", help="kept with the drill")
        parser.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        cluster = Cluster.objects.filter(slug=options["cluster"]).first()
        if cluster is None:
            known = ", ".join(Cluster.objects.values_list("slug", flat=True)) or "none"
            raise CommandError(f"there is no cluster {options['cluster']!r}; there are: {known}")
        params = {"vhost": options["vhost"], "name": options["queue"], "fault": options["fault"]}
        try:
            plan = Drill().plan(cluster, cluster.adapter(), params)
        except ClusterError as error:
            raise CommandError(str(error)) from error
        if plan.refusal:
            raise CommandError(plan.refusal)
        target = queue_name(Queue(options["vhost"], options["queue"]))
        operation = runner.confirm(Drill.name, cluster, target, plan, who=None, reason=options["reason"])
        try:
            operation = runner.run(operation)
        except runner.Busy as error:
            raise CommandError(str(error)) from error
        report(self, operation, options["json"])
        if operation.result["lost"]:
            raise CommandError(f"{operation.result['lost']} confirmed probes were lost")
