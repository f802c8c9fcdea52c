"""``manage.py redrive``: dead letters sent on, discarded or listed, for cron and scripts."""

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
from brokers.operations.discard import Discard
from brokers.operations.long import LongKind
from brokers.operations.redrive import Redrive


class Command(BaseCommand):
    """Does what the pages of dead letters do; each run is an operation and is listed with the others."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The queue, what of it, where to."""
        parser.add_argument("queue", nargs="?", help="the dead-letter queue; without one, all are listed")
        parser.add_argument("--cluster", default="local", metavar="SLUG", help="the cluster (local)")
        parser.add_argument("--vhost", default="/")
        parser.add_argument("--group", action="append", default=[], metavar="ID", help="only this cause")
        parser.add_argument("--position", action="append", type=int, metavar="N", help="only this message")
        parser.add_argument("--list", action="store_true", help="only show the causes and how many there are")
        parser.add_argument("--exchange", help="publish to this exchange (default: back to where they died)")
        parser.add_argument(
            "--routing-key", help="with --exchange: under this key (default: the one they had)"
        )
        parser.add_argument("--rate", type=int, metavar="N", help="at most N messages a second")
        parser.add_argument(
            "--stop-after",
            type=int,
            default=10,
            metavar="N",
            help="stop when more than N come back dead (10)",
        )
        parser.add_argument("--discard", metavar="QUEUE", help="throw them away; the queue's name once more")
        parser.add_argument("--reason", default="", help="kept with the operation")
        parser.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        cluster = Cluster.objects.filter(slug=options["cluster"]).first()
        if cluster is None:
            known = ", ".join(Cluster.objects.values_list("slug", flat=True)) or "none"
            raise CommandError(f"there is no cluster {options['cluster']!r}; there are: {known}")
        try:
            if options["queue"] is None:
                self._show_queues(cluster, options["json"])
            elif options["list"]:
                self._show_groups(cluster, options)
            else:
                self._run(cluster, options)
        except ClusterError as error:
            raise CommandError(str(error)) from error

    def _show_queues(self, cluster: Cluster, as_json: bool) -> None:
        rows = []
        for found in cluster.adapter().dead_letters().queues():
            queue = cluster.adapter().queue(*found.key)
            rows.append({"vhost": found.vhost, "name": found.name, "messages": queue.messages})
        if as_json:
            self.stdout.write(json.dumps({"queues": rows}))
            return
        for row in rows:
            self.stdout.write(f"{row['messages']:>10,}  {row['vhost']} {row['name']}")

    def _show_groups(self, cluster: Cluster, options: dict[str, Any]) -> None:
        found = cluster.adapter().dead_letters().groups((options["vhost"], options["queue"]))
        rows = [
            {
                "id": group.id,
                "count": group.count,
                "reason": group.reason,
                "queue": group.queue,
                "routing_key": group.routing_key,
                "exception": group.exception,
                "shape": group.shape,
            }
            for group in found.groups
        ]
        if options["json"]:
            self.stdout.write(json.dumps({"messages": found.messages, "groups": rows}))
            return
        for row in rows:
            words = [
                row[name] for name in ("reason", "queue", "routing_key", "exception", "shape") if row[name]
            ]
            self.stdout.write(f"{row['count']:>10,}  {row['id']}  {' · '.join(map(str, words))}")

    def _run(self, cluster: Cluster, options: dict[str, Any]) -> None:
        params: dict[str, Any] = {
            "vhost": options["vhost"],
            "name": options["queue"],
            "positions": options["position"],
            "groups": options["group"],
        }
        kind: LongKind
        if options["discard"] is not None:
            if options["discard"] != options["queue"]:
                raise CommandError(
                    f"--discard needs the queue's name, {options['queue']!r}; nothing was done"
                )
            kind = Discard()
        else:
            kind = Redrive()
            params |= {
                "exchange": options["exchange"],
                "routing_key": options["routing_key"],
                "stop_after": options["stop_after"],
                "edit": None,
            }
        plan = kind.plan(cluster, cluster.adapter(), params)
        if plan.refusal:
            raise CommandError(plan.refusal)
        target = queue_name(Queue(options["vhost"], options["queue"]))
        operation = runner.confirm(kind.name, cluster, target, plan, who=None, reason=options["reason"])
        if options["rate"]:
            worker.set_rate(operation, options["rate"])
        finish(self, operation, options["json"])
