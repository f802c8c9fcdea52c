"""Backups: the list with the recovery point, one backup, and the forms that make, restore and prove them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone

from brokers.adapters.base import ClusterError
from brokers.backups import schedule
from brokers.backups.store import Store
from brokers.live.page import Context, Page, Part, Rows
from brokers.live.state import Delta, State
from brokers.models import Backup, BackupSchedule
from brokers.operations import runner, worker
from brokers.operations.backup import BackUp
from brokers.operations.restore import Restore
from brokers.operations.verify import Verify
from brokers.views.base import ClusterView, PageView

LISTED: Final = 100
QUEUES_SHOWN: Final = 200
REASON_LENGTH: Final = 300


class BackupsPage(Page):
    """All backups of a cluster, newest first."""

    template = "backups/page.html"
    section = "backups"

    def affected(self, delta: Delta) -> bool:
        return delta.feed or delta.everything

    def context(self, state: State) -> dict[str, Any]:
        return {
            "backups": list(self.cluster.backups.select_related("operation")[:LISTED]),
            "point": schedule.recovery_point(self.cluster),
            "schedule": self.cluster.backup_schedules.first(),
            "store": Store().url,
            "verified": self.cluster.backups.filter(verified__isnull=False).order_by("-verified").first(),
        }

    def parts(self, context: Context) -> Iterator[Part | Rows]:
        yield Part("backups/_point.html")
        yield Part("backups/_rows.html")


class BackupsView(PageView):
    """The list of backups."""

    page_class = BackupsPage


class BackupPage(Page):
    """One backup: what is in it, when it was proven, what was done with it."""

    template = "backups/backup.html"
    section = "backups"

    def affected(self, delta: Delta) -> bool:
        return delta.feed or delta.everything

    def context(self, state: State) -> dict[str, Any]:
        name = self.names["name"]
        backup = self.cluster.backups.select_related("operation").filter(name=name).first()
        queues = list(backup.queues.defer("runs", "parts")[: QUEUES_SHOWN + 1]) if backup else []
        used = self.cluster.operations.filter(kind__in=(Restore.name, Verify.name), params__backup=name)
        return {
            "backup": backup,
            "missing": backup is None,
            "queues": queues[:QUEUES_SHOWN],
            "more": len(queues) > QUEUES_SHOWN,
            "operations": list(used.select_related("who")[:10]),
        }

    def parts(self, context: Context) -> Iterator[Part | Rows]:
        yield Part("backups/_backup.html")


class BackupView(PageView):
    """One backup."""

    page_class = BackupPage


class OperatorView(ClusterView):
    """What only operators may do. Trouble with the cluster or the store is shown in the form."""

    permission_required = "brokers.operate_cluster"
    http_method_names = ["get", "head", "post", "options"]  # noqa: RUF012  as Django declares it

    def show(self, request: HttpRequest, template: str, trouble: str = "", **context: Any) -> HttpResponse:
        context |= {"cluster": self.cluster, "trouble": trouble, "reason": self.reason}
        return render(request, template, context, status=409 if trouble else 200)

    @property
    def reason(self) -> str:
        """Why, in the operator's words."""
        return self.request.POST.get("reason", "").strip()[:REASON_LENGTH]

    def backup(self) -> Backup:
        """The complete backup that the address names."""
        found = self.cluster.backups.filter(completed__isnull=False)
        return get_object_or_404(found, name=self.names["name"])


class NewBackupView(OperatorView):
    """GET plans a backup of the whole cluster, POST begins it."""

    def get(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        try:
            plan = BackUp().plan(self.cluster, self.cluster.adapter(), {"queues": None})
        except ClusterError as error:
            return self.show(request, "backups/new.html", str(error))
        return self.show(request, "backups/new.html", plan=plan)

    def post(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        try:
            operation = schedule.start(self.cluster, who=request.user, reason=self.reason)
        except ClusterError as error:
            return self.show(request, "backups/new.html", str(error))
        return redirect("operation", self.cluster.slug, operation.pk)


class RestoreForm(forms.Form):
    """What is restored, and under which names."""

    definitions = forms.BooleanField(required=False, initial=True)
    what = forms.ChoiceField(
        choices=[("all", "all queues"), ("some", "these queues"), ("none", "no messages")]
    )
    queues = forms.TypedMultipleChoiceField(required=False, coerce=int)
    before = forms.CharField(required=False, max_length=100, strip=False)

    def __init__(self, backup: Backup, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rows = {row.number: row for row in backup.queues.defer("runs", "parts")}
        self.fields["queues"].choices = [(n, str(row)) for n, row in self._rows.items()]  # type: ignore[attr-defined]  # a choice field

    def params(self, backup: Backup) -> dict[str, Any]:
        """As the operation has them."""
        data = self.cleaned_data
        chosen = {"all": None, "none": []}.get(
            data["what"], [[self._rows[n].vhost, self._rows[n].name] for n in data["queues"]]
        )
        return {
            "backup": backup.name,
            "definitions": data["definitions"],
            "queues": chosen,
            "prefix": data["before"],
        }


class RestoreView(OperatorView):
    """GET asks what to restore; POST shows the plan, and does it when the cluster's name was typed."""

    template = "backups/restore.html"

    def get(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        backup = self.backup()
        form = RestoreForm(backup, initial={"definitions": True, "what": "all"})
        return self.show(request, self.template, backup=backup, form=form, queues=self._queues(backup))

    def post(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        backup = self.backup()
        form = RestoreForm(backup, request.POST)
        context: dict[str, Any] = {"backup": backup, "form": form, "queues": self._queues(backup)}
        if not form.is_valid():
            return self.show(
                request, self.template, "Something in the form makes no sense; look again.", **context
            )
        context["chosen"] = set(form.cleaned_data["queues"])
        try:
            plan = Restore().plan(self.cluster, self.cluster.adapter(), form.params(backup))
        except ClusterError as error:
            return self.show(request, self.template, str(error), **context)
        if plan.refusal:
            return self.show(request, self.template, plan.refusal, **context)
        context["plan"] = plan
        typed = request.POST.get("typed")
        if typed is None:
            return self.show(request, self.template, **context)
        if typed != self.cluster.name:
            trouble = f"Nothing was done: type the cluster's name, {self.cluster.name}, to confirm."
            return self.show(request, self.template, trouble, **context)
        target = f"backup {backup.name}"
        operation = runner.confirm(
            Restore.name, self.cluster, target, plan, who=request.user, reason=self.reason
        )
        worker.start(operation)
        return redirect("operation", self.cluster.slug, operation.pk)

    @staticmethod
    def _queues(backup: Backup) -> list[Any]:
        return list(backup.queues.defer("runs", "parts")[:QUEUES_SHOWN])


class VerifyView(OperatorView):
    """GET plans the proof, POST has a worker make it."""

    def get(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        backup = self.backup()
        try:
            plan = Verify().plan(self.cluster, self.cluster.adapter(), {"backup": backup.name})
        except ClusterError as error:
            return self.show(request, "backups/verify.html", str(error), backup=backup)
        return self.show(request, "backups/verify.html", backup=backup, plan=plan)

    def post(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        backup = self.backup()
        try:
            plan = Verify().plan(self.cluster, self.cluster.adapter(), {"backup": backup.name})
        except ClusterError as error:
            return self.show(request, "backups/verify.html", str(error), backup=backup)
        target = f"backup {backup.name}"
        operation = runner.confirm(
            Verify.name, self.cluster, target, plan, who=request.user, reason=self.reason
        )
        schedule.prove(operation)
        return redirect("operation", self.cluster.slug, operation.pk)


class ScheduleForm(forms.ModelForm):
    """When backups are made by themselves, and how many are kept."""

    every = forms.IntegerField(min_value=5, max_value=60 * 24 * 31, label="Minutes from one to the next")
    due = forms.DateTimeField(label="Next one at (UTC)")
    keep_daily = forms.IntegerField(min_value=0, max_value=3650, label="Days to keep one of each")
    keep_weekly = forms.IntegerField(min_value=0, max_value=520, label="Weeks to keep one of each")
    keep_monthly = forms.IntegerField(min_value=0, max_value=120, label="Months to keep one of each")

    class Meta:
        model = BackupSchedule
        fields = ("enabled", "every", "due", "keep_daily", "keep_weekly", "keep_monthly")


class ScheduleView(OperatorView):
    """The schedule of a cluster."""

    def get(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        return self.show(request, "backups/schedule.html", form=ScheduleForm(instance=self._row()))

    def post(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        form = ScheduleForm(request.POST, instance=self._row())
        if not form.is_valid():
            return self.show(request, "backups/schedule.html", "This schedule makes no sense.", form=form)
        form.save()
        messages.success(request, "The schedule is set.")
        return redirect("backups", self.cluster.slug)

    def _row(self) -> BackupSchedule:
        found = self.cluster.backup_schedules.first()
        return found or BackupSchedule(
            cluster=self.cluster, due=timezone.now().replace(second=0, microsecond=0)
        )


class DefinitionsView(OperatorView):
    """The definitions as they are now, in RabbitMQ's layout, to download. Password hashes are in them."""

    http_method_names = ["get", "head", "options"]  # noqa: RUF012  as Django declares it

    def get(self, request: HttpRequest, **kwargs: str) -> HttpResponse:
        try:
            _, found = self.cluster.adapter().content().definitions()
        except ClusterError as error:
            raise Http404(str(error)) from error
        response = HttpResponse(json.dumps(found, indent=2), content_type="application/json")
        response["Content-Disposition"] = f'attachment; filename="definitions-{self.cluster.slug}.json"'
        return response
