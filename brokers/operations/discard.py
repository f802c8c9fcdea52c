"""Discard: dead letters that nobody wants any more are thrown away."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, ClassVar, Final

from brokers import models
from brokers.adapters.base import Cluster
from brokers.operations.base import Plan
from brokers.operations.long import Job, LongKind, Step
from brokers.operations.redrive import Tally, chosen_of, fix, how_many, kept_words, refuse

BATCH: Final = 500
"""Messages of one step at most."""


class Discard(LongKind):
    """Parameters: vhost, name; positions (None: all) or groups; until."""

    name: ClassVar[str] = "discard"
    title: ClassVar[str] = "Discard"

    def plan(self, row: models.Cluster, cluster: Cluster, params: Mapping[str, Any]) -> Plan:
        found = cluster.dead_letters().groups((params["vhost"], params["name"]))
        fixed = fix(params, found)
        if refusal := refuse(params, fixed, found):
            return Plan(refusal=refusal, params=fixed)
        return Plan(
            (
                f"{how_many(fixed, found)} in {params['name']} will be thrown away.",
                "What comes into the queue from now on is left alone.",
            ),
            ("Programs will never get them. Export them first if they may still be needed.",),
            "",
            {"until": fixed["until"]},
            fixed,
        )

    def steps(self, cluster: Cluster, job: Job) -> Generator[Step, None, dict[str, Any]]:
        params = job.params
        queue, letters = (params["vhost"], params["name"]), cluster.dead_letters()
        tally = Tally(job.cursor, params["until"])
        while tally.at is not None:
            done = letters.discard(queue, params["run"], chosen_of(params), tally.at, job.batch(BATCH))
            tally.add(done.onward, done.count, done.kept)
            note = f"{tally.done:,} thrown away"
            yield Step(tally.as_json(), tally.handled, params["count"], done.count, note)
        return self.so_far(tally.as_json())

    def so_far(self, cursor: Mapping[str, Any]) -> dict[str, Any]:
        return {name: cursor[name] for name in ("done", "kept") if name in cursor}

    def summary(self, result: Mapping[str, Any]) -> str:
        done = result.get("done", 0)
        words = f"{done:,} {'message was' if done == 1 else 'messages were'} thrown away."
        return words + kept_words(result)
