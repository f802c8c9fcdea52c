"""Addresses of the console's pages. A cluster's slug comes first, names are one segment each."""

from django.urls import include, path, register_converter

from brokers.naming import NameConverter
from brokers.views.backups import (
    BackupsView,
    BackupView,
    DefinitionsView,
    NewBackupView,
    RestoreView,
    ScheduleView,
    VerifyView,
)
from brokers.views.dead_letter_messages import DeadLetterMessagesView, DeadLetterMessageView, ExportView
from brokers.views.dead_letters import DeadLetterQueueView, DeadLettersView
from brokers.views.drill import DrillsView, DrillView
from brokers.views.failover import FailoverView
from brokers.views.history import QueueHistoryView, RetainedMessageView
from brokers.views.home import home
from brokers.views.nodes import NodesView
from brokers.views.operation_control import OperationControlView
from brokers.views.operations import OperationsView, OperationView
from brokers.views.overview import OverviewView
from brokers.views.queue import QueueView
from brokers.views.queues import QueuesView
from brokers.views.redrive import DiscardView, RedriveView
from brokers.views.replay import ReplayView

register_converter(NameConverter, "name")

_DEAD = "dead-letters/<name:vhost>/<name:name>"

_cluster_pages = [
    path("", OverviewView.as_view(), name="overview"),
    path("queues/", QueuesView.as_view(), name="queues"),
    path("queues/<name:vhost>/<name:name>/", QueueView.as_view(), name="queue"),
    path("queues/<name:vhost>/<name:name>/failover/", FailoverView.as_view(), name="failover"),
    path("queues/<name:vhost>/<name:name>/history/", QueueHistoryView.as_view(), name="queue-history"),
    path(
        "queues/<name:vhost>/<name:name>/history/<int:position>/",
        RetainedMessageView.as_view(),
        name="retained-message",
    ),
    path("queues/<name:vhost>/<name:name>/drill/", DrillView.as_view(), name="drill"),
    path("queues/<name:vhost>/<name:name>/replay/", ReplayView.as_view(), name="replay"),
    path("drills/", DrillsView.as_view(), name="drills"),
    path("nodes/", NodesView.as_view(), name="nodes"),
    path("backups/", BackupsView.as_view(), name="backups"),
    path("backups/new/", NewBackupView.as_view(), name="backup-new"),
    path("backups/schedule/", ScheduleView.as_view(), name="backup-schedule"),
    path("backups/definitions/", DefinitionsView.as_view(), name="definitions"),
    path("backups/of/<slug:name>/", BackupView.as_view(), name="backup"),
    path("backups/of/<slug:name>/restore/", RestoreView.as_view(), name="backup-restore"),
    path("backups/of/<slug:name>/verify/", VerifyView.as_view(), name="backup-verify"),
    path("operations/", OperationsView.as_view(), name="operations"),
    path("operations/<int:pk>/", OperationView.as_view(), name="operation"),
    path("operations/<int:pk>/control/", OperationControlView.as_view(), name="operation-control"),
    path("dead-letters/", DeadLettersView.as_view(), name="dead-letters"),
    path(f"{_DEAD}/", DeadLetterQueueView.as_view(), name="dead-letter-queue"),
    path(f"{_DEAD}/messages/", DeadLetterMessagesView.as_view(), name="dead-letter-messages"),
    path(f"{_DEAD}/messages/<int:position>/", DeadLetterMessageView.as_view(), name="dead-letter-message"),
    path(f"{_DEAD}/redrive/", RedriveView.as_view(), name="redrive"),
    path(f"{_DEAD}/discard/", DiscardView.as_view(), name="discard"),
    path(f"{_DEAD}/export/", ExportView.as_view(), name="export"),
]

urlpatterns = [
    path("", home, name="home"),
    path("clusters/<slug:cluster>/", include(_cluster_pages)),
]
