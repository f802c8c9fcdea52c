"""``manage.py replay``: publish again what a queue has had, for cron and scripts."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from brokers.adapters.base import ClusterError, Queue
from brokers.live.problems import queue_name
from brokers.management.progress import finish
from brokers.models import Cluster
from brokers.operations import runner, worker
from brokers.operations.replay import ReplayKind, read_headers
from brokers.views.history import read_moment


class Command(BaseCommand):
    """Does what the page "Replay" does; each run is an operation and is listed with the others."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The queue, what of it, where to."""
        parser.add_argument("queue")
        parser.add_argument("--cluster", default="local", metavar="SLUG", help="the cluster (local)")
        parser.add_argument("--vhost", default="/")
        parser.add_argument(
            "--since", default="", metavar="TIME", help="published then or later (ISO 8601, UTC)"
        )
        parser.add_argument("--until", default="", metavar="TIME", help="published before")
        parser.add_argument("--first", type=int, metavar="N", help="from this position on")
        parser.add_argument("--end", type=int, metavar="N", help="up to before this position")
        parser.add_argument(
            "--key", default="", metavar="PATTERN", help="routing keys like this (*, # as in topics)"
        )
        parser.add_argument(
            "--header", action="append", default=[], metavar="NAME=VALUE", help="all must match"
        )
        parser.add_argument("--to-queue", metavar="QUEUE", help="into this queue (default: the same)")
        parser.add_argument("--to-exchange", metavar="EXCHANGE", help="to this exchange")
        parser.add_argument(
            "--to-key", metavar="KEY", help="with --to-exchange: under this key (default: their own)"
        )
        parser.add_argument("--to-vhost", metavar="VHOST", help="the target's vhost (default: the queue's)")
        parser.add_argument("--rate", type=int, metavar="N", help="at most N messages a second")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be replayed")
        parser.add_argument("--reason", default="", help="kept with the operation")
        parser.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        cluster = Cluster.objects.filter(slug=options["cluster"]).first()
        if cluster is None:
            known = ", ".join(Cluster.objects.values_list("slug", flat=True)) or "none"
            raise CommandError(f"there is no cluster {options['cluster']!r}; there are: {known}")
        if options["to_queue"] is not None and options["to_exchange"] is not None:
            raise CommandError("--to-queue and --to-exchange exclude each other")
        if any((options[name] or 0) < 0 for name in ("first", "end", "rate")):
            raise CommandError("--first, --end and --rate are not below 0")
        try:
            params = _params(options)
            plan = ReplayKind().plan(cluster, cluster.adapter(), params)
        except (ValueError, ClusterError) as error:
            raise CommandError(str(error)) from error
        if plan.refusal:
            raise CommandError(plan.refusal)
        if options["dry_run"]:
            found = {name: plan.params[name] for name in ("first", "end", "count")}
            self.stdout.write(
                json.dumps(found) if options["json"] else "\n".join((*plan.lines, *plan.warnings))
            )
            return
        target = queue_name(Queue(options["vhost"], options["queue"]))
        operation = runner.confirm(ReplayKind.name, cluster, target, plan, who=None, reason=options["reason"])
        if options["rate"]:
            worker.set_rate(operation, options["rate"])
        finish(self, operation, options["json"])


def _params(options: dict[str, Any]) -> dict[str, Any]:
    return {
        "vhost": options["vhost"],
        "name": options["queue"],
        "first": options["first"],
        "end": options["end"],
        "since": read_moment(options["since"]),
        "until": read_moment(options["until"]),
        "key": options["key"],
        "headers": read_headers("\n".join(options["header"])),
        "to_vhost": options["to_vhost"],
        "to_queue": options["to_queue"],
        "to_exchange": options["to_exchange"],
        "to_key": options["to_key"],
    }
