"""What the console itself keeps: which clusters there are, what was done to them, what happened to them.

Queues, messages and nodes are not here: the cluster has them, ``brokers.live`` shows them.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from brokers import adapters


class Cluster(models.Model):
    """A broker cluster that this console operates."""

    class Kind(models.TextChoices):
        EMBEDDED = "embedded", "embedded"
        RABBITMQ = "rabbitmq", "RabbitMQ"

    slug = models.SlugField(unique=True, help_text="Its part of the pages' addresses.")
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=20, choices=Kind.choices, default=Kind.EMBEDDED)
    settings = models.JSONField(
        default=dict, blank=True, help_text="How to reach it. Nothing for the embedded one."
    )
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)
        permissions = (("operate_cluster", "Can operate clusters: fail over, drain, replay, back up ..."),)

    def __str__(self) -> str:
        return self.name

    def adapter(self) -> adapters.base.Cluster:
        """The port to the cluster itself."""
        return adapters.connect(self.kind, self.settings)


class Operation(models.Model):
    """One act of an operator: what was planned, who confirmed it, how it went. Never edited by hand."""

    class State(models.TextChoices):
        PLANNED = "planned"
        CONFIRMED = "confirmed"
        RUNNING = "running"
        PAUSED = "paused"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    class Wish(models.TextChoices):
        """What an operator wants of a long operation that is under way; it is done before the next step."""

        PAUSE = "pause"
        CANCEL = "cancel"

    OPEN = (State.PLANNED, State.CONFIRMED, State.RUNNING, State.PAUSED)
    """States in which there is still something to come."""

    kind = models.CharField(max_length=40)
    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="operations")
    target = models.CharField(max_length=600, help_text="What it was done to, as people read it.")
    params = models.JSONField(default=dict)
    plan = models.JSONField(default=dict, help_text="What the operator was told would happen.")
    state = models.CharField(max_length=10, choices=State.choices, default=State.PLANNED)
    progress = models.PositiveSmallIntegerField(default=0, help_text="Percent.")
    step = models.CharField(max_length=300, blank=True, help_text="What it is doing, or last did.")
    result = models.JSONField(default=dict)
    error = models.TextField(blank=True)
    reason = models.CharField(max_length=300, blank=True, help_text="Why, in the operator's words.")
    who = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="operations"
    )
    cursor = models.JSONField(default=dict, help_text="From where a long operation goes on.")
    wish = models.CharField(max_length=10, choices=Wish.choices, blank=True)
    rate = models.PositiveIntegerField(null=True, help_text="At most so many a second; none is no limit.")
    finished_units = models.PositiveBigIntegerField(default=0, help_text="Messages or bytes that are done.")
    total_units = models.PositiveBigIntegerField(null=True, help_text="All there are to do, if known.")
    lease = models.CharField(max_length=32, blank=True, help_text="Who runs it now: a random word.")
    leased_until = models.DateTimeField(null=True, help_text="When whoever runs it counts as gone.")
    attempts = models.PositiveIntegerField(
        default=0, help_text="Goes at it since the last that ended in order."
    )
    created = models.DateTimeField(default=timezone.now, db_index=True)
    started = models.DateTimeField(null=True)
    finished = models.DateTimeField(null=True)
    changed = models.DateTimeField(auto_now=True, db_index=True)

    class Meta:
        ordering = ("-created", "-pk")
        indexes = (models.Index(fields=("cluster", "-created")),)
        constraints = (
            models.UniqueConstraint(
                fields=("cluster", "kind", "target"),
                condition=Q(state__in=("running", "paused")),
                name="one_running_operation_a_target",
            ),
        )

    def __str__(self) -> str:
        return self.title

    @property
    def title(self) -> str:
        """What it is, for people: kind and target."""
        return f"{self.kind.replace('-', ' ').capitalize()} of {self.target}"

    @property
    def seconds(self) -> float | None:
        """How long it ran, None while it hasn't ended."""
        if self.started is None or self.finished is None:
            return None
        return (self.finished - self.started).total_seconds()


class Event(models.Model):
    """Something that happened to a cluster by itself. A problem is open (no ``ended``) until it is over."""

    class Kind(models.TextChoices):
        UNREACHABLE = "unreachable", "cluster does not answer"
        NODE_DOWN = "node-down", "node down"
        NO_LEADER = "no-leader", "queue without a leader"
        FAILOVER = "failover", "leader changed"
        NO_BACKUP = "no-backup", "backup missed"

    class Severity(models.TextChoices):
        INFO = "info"
        WARNING = "warning"
        CRITICAL = "critical"

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=20, choices=Kind.choices)
    severity = models.CharField(max_length=10, choices=Severity.choices)
    subject = models.CharField(max_length=600, help_text="The node's or queue's name.")
    text = models.TextField()
    began = models.DateTimeField(default=timezone.now, db_index=True)
    ended = models.DateTimeField(null=True, blank=True, help_text="Empty while the problem lasts.")
    changed = models.DateTimeField(auto_now=True, db_index=True)

    class Meta:
        ordering = ("-began", "-pk")
        constraints = (
            # Two checks at the same time can't both open the same problem.
            models.UniqueConstraint(
                fields=("cluster", "kind", "subject"),
                condition=Q(ended__isnull=True),
                name="one_open_event_a_subject",
            ),
        )

    def __str__(self) -> str:
        return self.text

    @property
    def open(self) -> bool:
        """Whether the problem lasts."""
        return self.ended is None

    @property
    def seconds(self) -> float | None:
        """How long it lasted, None while it does."""
        return None if self.ended is None else (self.ended - self.began).total_seconds()


class BackupSchedule(models.Model):
    """When backups are made by themselves, and how many of them are kept."""

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="backup_schedules")
    every = models.PositiveIntegerField(default=1440, help_text="Minutes from one backup to the next.")
    keep_daily = models.PositiveSmallIntegerField(default=7)
    keep_weekly = models.PositiveSmallIntegerField(default=4)
    keep_monthly = models.PositiveSmallIntegerField(default=6)
    enabled = models.BooleanField(default=True)
    due = models.DateTimeField(default=timezone.now, help_text="When the next one is to begin.")
    created = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("cluster",), name="one_backup_schedule_a_cluster"),)

    def __str__(self) -> str:
        return f"backup of {self.cluster} every {self.every} minutes"


class Backup(models.Model):
    """A backup that this console made. What it holds stands in its manifest, in the store."""

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="backups")
    operation = models.OneToOneField(
        Operation,
        on_delete=models.PROTECT,
        null=True,
        related_name="backup",
        help_text="That makes or made it.",
    )
    name = models.CharField(max_length=80, unique=True, help_text="Its folder in the store.")
    scheduled = models.BooleanField(default=False)
    created = models.DateTimeField(default=timezone.now, db_index=True)
    cut = models.DateTimeField(null=True, help_text="The moment it shows.")
    completed = models.DateTimeField(null=True, help_text="Empty while it is being made, or failed.")
    definitions = models.JSONField(default=dict, help_text="The manifest's entry of the definitions file.")
    cluster_uid = models.CharField(max_length=64, blank=True)
    messages = models.PositiveBigIntegerField(default=0)
    size = models.PositiveBigIntegerField(default=0, help_text="Bytes of messages.")
    stored = models.PositiveBigIntegerField(default=0, help_text="Bytes of files.")
    gone = models.PositiveBigIntegerField(
        default=0, help_text="Messages settled and let go before they were read."
    )
    encrypted = models.BooleanField(default=False)
    verified = models.DateTimeField(null=True, help_text="When it was last proven by restoring it.")
    problem = models.TextField(blank=True, help_text="What the last proof found wrong.")

    class Meta:
        ordering = ("-created", "-pk")

    def __str__(self) -> str:
        return self.name


class BackupQueue(models.Model):
    """One queue of a backup: what is to be read, and what has been written so far."""

    backup = models.ForeignKey(Backup, on_delete=models.CASCADE, related_name="queues")
    number = models.PositiveIntegerField()
    vhost = models.CharField(max_length=255)
    name = models.CharField(max_length=255)
    arguments = models.JSONField(default=dict)
    group = models.PositiveBigIntegerField()
    nodes = models.JSONField(default=list)
    runs = models.BinaryField(default=bytes, help_text="Positions yet to be read, as pairs of u64.")
    parts = models.JSONField(default=list)
    messages = models.PositiveBigIntegerField(default=0)
    size = models.PositiveBigIntegerField(default=0)
    gone = models.PositiveBigIntegerField(default=0)
    done = models.BooleanField(default=False)

    class Meta:
        ordering = ("number",)
        constraints = (models.UniqueConstraint(fields=("backup", "number"), name="one_queue_a_number"),)

    def __str__(self) -> str:
        return f"{self.name} in {self.vhost}"
