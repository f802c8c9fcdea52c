"""Export: a queue's messages as JSON lines, read without taking anything out; who took them is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.utils import timezone

from brokers.adapters.base import ClusterError
from brokers.adapters.dead_letters import Chosen
from brokers.models import Cluster, Operation

NAME: Final = "export"
PAGE: Final = 200
"""Messages read at a time; the node sends fewer where they are large."""
WHOLE: Final = 1 << 40
"""More bytes than any body has."""


def begin(cluster: Cluster, params: Mapping[str, Any], who: Any) -> Operation:
    """Write down that ``who`` takes messages out to a file. Parameters as those of a discard."""
    return Operation.objects.create(
        kind=NAME,
        cluster=cluster,
        target=params["name"],
        params=dict(params),
        plan={"lines": ["Messages are read and written to a file as JSON lines. None leaves the queue."]},
        state=Operation.State.RUNNING,
        started=timezone.now(),
        who=who,
    )


def lines(operation: Operation) -> Iterator[bytes]:
    """The messages, one JSON object a line; at the end the operation says how it went.

    A cluster that is lost in the middle ends it with a line that has only ``error``: a file without one is
    whole.
    """
    params = operation.params
    letters = operation.cluster.adapter().dead_letters()
    queue = (params["vhost"], params["name"])
    positions = params.get("positions")
    chosen = Chosen(
        params["until"], None if positions is None else tuple(positions), tuple(params.get("groups") or ())
    )
    at: int | None = 0
    count, state, error = 0, Operation.State.CANCELLED, "The reader went away before the end."
    try:
        while at is not None:
            page = letters.page(queue, chosen, at, PAGE, WHOLE)
            for message in page.messages:
                yield json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
            count += len(page.messages)
            at = page.onward
            Operation.objects.filter(pk=operation.pk).update(
                finished_units=count, step=f"{count:,} messages read", changed=timezone.now()
            )
        state, error = Operation.State.DONE, ""
    except ClusterError as lost:
        state, error = Operation.State.FAILED, str(lost)
        yield json.dumps({"error": str(lost)}).encode() + b"\n"
    finally:
        now = timezone.now()
        Operation.objects.filter(pk=operation.pk).update(
            state=state,
            error=error,
            result={"done": count},
            progress=100,
            step=f"{count:,} messages were exported.",
            finished=now,
            changed=now,
        )
