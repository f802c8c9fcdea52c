"""Fail-over drill: a fault on purpose, while probes measure what clients would notice of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Final, TypeVar

from amqp.exceptions import AMQPError

from brokers import models
from brokers.adapters.base import Cluster, ClusterError, Node, Queue, QueueKey, Refused, Replica
from brokers.operations.base import Kind, Plan, Report
from brokers.operations.failover import candidates_of
from brokers.operations.probes import Probes
from brokers.templatetags.mq import duration, millis

FAULTS: Final = {
    "transfer": "Hand over leadership",
    "kill": "Kill the leader's node",
    "pause": "Pause the leader's node",
}
VHOST: Final = "/"
"""Where the probes' queue is made."""
BASELINE: Final = 1.5
"""Seconds of probes before the fault."""
AFTERWARDS: Final = 1.5
"""Seconds of probes after everything is well again."""
PAUSE: Final = 4.0
"""Seconds that a paused node stands still."""
RECOVER: Final = 45.0
"""Seconds to serve again, and as many for all replicas to catch up."""
DRAIN: Final = 15.0
EXPIRES: Final = 600.0
"""Seconds after which a probes' queue that was left behind goes by itself."""
KEEPS_UP: Final = 50
"""Log entries that a replica may be behind at any moment while there is traffic, and counts as caught up."""
LOOK: Final = 0.05

T = TypeVar("T")


class Drill(Kind):
    """Parameters: vhost, name, fault (transfer, kill, pause); node, which a plan fills in: the leader's."""

    name: ClassVar[str] = "drill"
    title: ClassVar[str] = "Fail-over drill"

    def plan(self, row: models.Cluster, cluster: Cluster, params: Mapping[str, Any]) -> Plan:
        queue = cluster.queue(params["vhost"], params["name"])
        fault = params["fault"]
        refusal = _refusal(queue, fault)
        basis = {"leader": queue.leader, "term": queue.term}
        if refusal:
            return Plan(refusal=refusal, basis=basis, params=dict(params))
        leads = sum(other.leader == queue.leader for other in cluster.snapshot().queues)
        what = {
            "transfer": f"{queue.leader} hands the leadership of both queues to another node.",
            "kill": f"The process of {queue.leader} is killed (SIGKILL), as if its machine had lost it.",
            "pause": f"The process of {queue.leader} stands still for {PAUSE:g} s (SIGSTOP), then goes on.",
        }
        lines = [
            "A temporary durable queue is made that the same node leads; probes go through it all the time.",
            what[fault],
            "Measured: how long nothing was confirmed, what was lost or came twice, how long catching up took.",
            "The queue's own messages are not touched, and the temporary queue is removed.",
        ]
        warnings = []
        if fault != "transfer":
            warnings.append(
                f"This happens for real: {leads:,} queues that {queue.leader} leads change their leader, and "
                f"clients connected to it {'lose their connection' if fault == 'kill' else 'wait'}."
            )
        if down := [replica.node for replica in queue.replicas if replica.role == "down"]:
            warnings.append(f"{', '.join(down)} is down already.")
        return Plan(tuple(lines), tuple(warnings), "", basis, {**params, "node": queue.leader})

    def run(self, cluster: Cluster, params: Mapping[str, Any], report: Report) -> dict[str, Any]:
        key, fault, node = (params["vhost"], params["name"]), params["fault"], params["node"]
        others = [found for found in cluster.snapshot().nodes if found.running and found.name != node]
        if not others:
            raise Refused(f"no node but {node} runs, so that there is none to probe from")
        probed = (VHOST, f"mqconsole.drill.{secrets.token_hex(6)}")
        probes = Probes([other.amqp for other in others], probed[1])
        try:
            report(5, "making the probes' queue")
            probes.declare(EXPIRES)
            try:
                return self._measure(cluster, (key, probed), (fault, node), probes, report)
            finally:
                probes.finish(DRAIN)
                probes.delete()
        except (AMQPError, OSError) as error:
            raise Refused(f"the probes could not be sent: {error}") from error

    def summary(self, result: Mapping[str, Any]) -> str:
        caught_up = result["catch_up_s"]
        return (
            f"Unavailable for {millis(result['unavailable_ms'])}; {result['lost']:,} of {result['confirmed']:,} "
            f"confirmed probes lost, {result['duplicated']:,} came twice; "
            + ("all replicas had" if caught_up is not None else "not all replicas have")
            + " caught up"
            + (f" after {duration(caught_up)}." if caught_up is not None else f" within {RECOVER:g} s.")
        )

    def _measure(
        self,
        cluster: Cluster,
        queues: tuple[QueueKey, QueueKey],
        fault: tuple[str, str],
        probes: Probes,
        report: Report,
    ) -> dict[str, Any]:
        key, probed = queues
        what, node = fault
        _lead_from(cluster, probed, node)
        probes.start()
        report(15, "probing before the fault")
        _wait(lambda: probes.confirms() > 0, RECOVER, "the first probe is confirmed")
        time.sleep(BASELINE)
        report(30, f"{FAULTS[what]}: {node}")
        before = probes.confirms()
        victim = next(found for found in cluster.snapshot().nodes if found.name == node)
        at = time.monotonic()
        well_from = at
        if what == "transfer":
            cluster.transfer_leadership(*probed, None)
            cluster.transfer_leadership(*key, None)
        elif what == "kill":
            cluster.signal(victim, "kill")
        else:
            cluster.signal(victim, "pause")
            try:
                time.sleep(PAUSE)
            finally:
                cluster.signal(victim, "resume")
            well_from = time.monotonic()
        report(50, "waiting until probes are confirmed again")
        _wait(
            lambda: probes.confirms() > before and probes.quiet_for() < 0.5,
            RECOVER,
            "probes are confirmed again",
        )
        report(65, "waiting until all replicas have caught up")
        caught_up = _caught_up(cluster, queues, victim if what == "kill" else None, well_from)
        time.sleep(AFTERWARDS)
        report(85, "collecting the probes")
        probes.finish(DRAIN)
        found = probes.findings(at)
        leader = _or_none(lambda: cluster.queue(*key).leader)
        return {**asdict(found), "catch_up_s": caught_up, "fault": what, "node": node, "leader": leader}


def _refusal(queue: Queue, fault: str) -> str:
    if fault not in FAULTS:
        return f"A fault is one of {', '.join(FAULTS)}, not {fault}."
    if not queue.replicated:
        return "The queue lives in the memory of one node; only durable queues have replicas to fail over to."
    if queue.leader is None:
        return "The queue has no leader now. It elects one by itself."
    if not candidates_of(queue):
        return "No other replica of the queue runs, so there is none to fail over to. Start a node first."
    if fault != "transfer" and 2 * (queue.present - 1) <= len(queue.replicas):
        running = f"{queue.present} of {len(queue.replicas)} replicas run"
        return f"Without {queue.leader} the queue has no majority: {running}."
    return ""


def _lead_from(cluster: Cluster, queue: QueueKey, node: str) -> None:
    """Make ``node`` the leader of the probes' queue."""

    def leads() -> bool:
        found = _or_none(lambda: cluster.queue(*queue))
        if found is None or found.leader is None:
            return False
        if found.leader != node and any(replica.node == node for replica in found.replicas):
            cluster.transfer_leadership(*queue, node)
        return found.leader == node

    _wait(leads, RECOVER, f"{node} leads the probes' queue")


def _caught_up(cluster: Cluster, keys: Sequence[QueueKey], killed: Node | None, since: float) -> float | None:
    """Seconds from ``since`` until all replicas run and keep up; None when that took too long.

    A node that was ``killed`` has to be seen to run as another process first.
    """
    deadline = time.monotonic() + RECOVER
    while time.monotonic() < deadline:
        snapshot = _or_none(cluster.snapshot)
        if snapshot is not None and (killed is None or _is_back(snapshot.nodes, killed)):
            queues = [queue for queue in snapshot.queues if queue.key in keys]
            if all(_keeps_up(replica) for queue in queues for replica in queue.replicas):
                return round(time.monotonic() - since, 2)
        time.sleep(LOOK)
    return None


def _is_back(nodes: Sequence[Node], killed: Node) -> bool:
    return any(node.name == killed.name and node.running and node.pid != killed.pid for node in nodes)


def _keeps_up(replica: Replica) -> bool:
    if replica.role in ("down", "learner"):
        return False
    return replica.role == "leader" or (replica.lag is not None and replica.lag <= KEEPS_UP)


def _wait(true: Callable[[], bool], within: float, what: str) -> None:
    deadline = time.monotonic() + within
    while not true():
        if time.monotonic() > deadline:
            raise Refused(f"it did not come true within {within:g} s that {what}")
        time.sleep(LOOK)


def _or_none(ask: Callable[[], T]) -> T | None:
    """What the cluster answers, None while it does not: in a drill that is to be expected."""
    try:
        return ask()
    except ClusterError:
        return None
