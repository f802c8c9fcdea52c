"""``manage.py backup create|list|verify|delete|definitions``: backups for cron and scripts."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from brokers.adapters.base import ClusterError
from brokers.backups import schedule
from brokers.management.progress import finish, report
from brokers.models import Backup, Cluster, Operation
from brokers.operations import runner
from brokers.operations.verify import Verify


class Command(BaseCommand):
    """Exits 1 when what was asked for was not done."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["create", "list", "verify", "delete", "definitions"])
        parser.add_argument("name", nargs="?", help="which backup (verify, delete)")
        parser.add_argument("--cluster", default="local", help="the cluster's short name")
        parser.add_argument(
            "--queue",
            action="append",
            nargs=2,
            metavar=("VHOST", "NAME"),
            help="only this queue; may be given again",
        )
        parser.add_argument("--json", action="store_true", help="the result for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        cluster = Cluster.objects.filter(slug=options["cluster"]).first()
        if cluster is None:
            raise CommandError(f"there is no cluster {options['cluster']!r}")
        try:
            match options["action"]:
                case "create":
                    operation = schedule.start(cluster, options["queue"], begin=False)
                    finish(self, operation, options["json"])
                case "list":
                    self._list(cluster, options["json"])
                case "definitions":
                    self.stdout.write(json.dumps(cluster.adapter().content().definitions()[1], indent=2))
                case "verify":
                    self._verify(cluster, self._backup(cluster, options["name"]), options["json"])
                case "delete":
                    schedule.delete(self._backup(cluster, options["name"]))
        except (ClusterError, runner.Busy) as error:
            raise CommandError(str(error)) from error

    def _backup(self, cluster: Cluster, name: str | None) -> Backup:
        found = cluster.backups.filter(name=name).first()
        if found is None:
            raise CommandError(f"there is no backup {name!r}; see: manage.py backup list")
        return found

    def _list(self, cluster: Cluster, as_json: bool) -> None:
        rows = [
            {
                "name": backup.name,
                "cut": backup.cut and backup.cut.isoformat(),
                "complete": backup.completed is not None,
                "messages": backup.messages,
                "bytes": backup.size,
                "stored": backup.stored,
                "verified": backup.verified and backup.verified.isoformat(),
                "problem": backup.problem,
            }
            for backup in cluster.backups.all()
        ]
        if as_json:
            self.stdout.write(json.dumps(rows))
            return
        for row in rows:
            state = "complete" if row["complete"] else "incomplete"
            proven = f"proven {row['verified']}" if row["verified"] else "never proven"
            self.stdout.write(f"{row['name']}  {state}  {row['messages']} messages  {row['cut']}  {proven}")

    def _verify(self, cluster: Cluster, backup: Backup, as_json: bool) -> None:
        plan = Verify().plan(cluster, cluster.adapter(), {"backup": backup.name})
        operation: Operation = runner.confirm(Verify.name, cluster, f"backup {backup.name}", plan, who=None)
        runner.run(operation)
        report(self, operation, as_json)
