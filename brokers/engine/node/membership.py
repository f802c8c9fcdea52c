"""Brings groups' members in line with what is wanted: the metadata group with the cluster's nodes, a queue's
group with its replicas. One step at a time: a newcomer first learns, then votes; then who is to go goes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from brokers.engine.core.model import commands
from brokers.engine.core.model.topology import QueueInfo
from brokers.engine.core.raft.types import Membership, Refused, Status
from brokers.engine.node.metadata_service import METADATA_GROUP

if TYPE_CHECKING:
    from brokers.engine.node.node import Node

CAUGHT_UP = 64
"""Entries that a learner may be behind when it is given a vote."""

_log = logging.getLogger(__name__)


def founders(node: Node) -> Membership:
    """The membership with which this node takes up the metadata group when its disk knows of none.

    A node that joined the cluster after its founding waits as a learner until the leader lets it in.
    """
    config = node.config
    if node.me.id in config.founders:
        return Membership.of(list(config.founders))
    return Membership.of([], [node.me.id])


class Memberships:
    """What the leaders on this node still have to change."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._unsettled: set[int] = {METADATA_GROUP}
        self._leaving: set[int] = set()
        """Queues that are to have no replica here any more."""
        self._adding = False

    def queue_changed(self, before: QueueInfo, after: QueueInfo) -> None:
        """The wanted replicas of a queue are others now."""
        me = self._node.me.id
        if me in after.replicas and me not in before.replicas and after.group not in self._node.queues.hosts:
            self._node.found_replica(after, Membership.of([], [me]))
        if me in before.replicas and me not in after.replicas:
            self._leaving.add(after.group)
        self._unsettled.add(after.group)

    def check(self) -> None:
        """Take the next step of every change under way that is this node's to make."""
        multi = self._node.replication.multi
        for group in list(self._unsettled):
            wanted = self._wanted(group)
            done = wanted is None or (multi.is_leader(group) and self._step(group, wanted))
            if done and group != METADATA_GROUP:
                self._unsettled.discard(group)
        if multi.is_leader(METADATA_GROUP):
            self._add_nodes()
        self._drop_left()

    def _wanted(self, group: int) -> set[int] | None:
        if group == METADATA_GROUP:
            known = set(self._node.service.metadata.state.nodes)
            return known | set(self._node.config.founders)
        info = self._node.service.metadata.state.by_group.get(group)
        return set(info.replicas) if info is not None and info.replicas else None

    def _step(self, group: int, wanted: set[int]) -> bool:
        """One step towards ``wanted``; True when that is reached."""
        status = self._node.replication.multi.status(group)
        target = next_membership(status, wanted, self._node.me.id)
        if target is None:
            return set(status.membership.voters) == wanted and not status.membership.learners
        try:
            if self._node.me.id not in target.voters:
                heir = max((f for f in status.followers if f.node in wanted), key=lambda f: f.match)
                self._node.replication.multi.transfer(group, heir.node)
            else:
                self._node.replication.multi.change_membership(group, target)
                _log.info("group %d: members become %s", group, target)
        except Refused as refused:
            _log.debug("group %d: not now: %s", group, refused)
        return False

    def _add_nodes(self) -> None:
        """Enter nodes of the configuration that the cluster does not know yet."""
        state = self._node.service.metadata.state
        if not state.cluster or self._adding:
            return
        for node in self._node.config.nodes:
            if node.id not in state.nodes and node.id in self._node.peers.links:
                self._adding = True
                command = commands.add_node(node.name, {"amqp": f"{node.host}:{node.amqp}"}, node.id)
                self._node.service.submit(command, self._added, self._node.now())
                return

    def _added(self, result: object) -> None:
        self._adding = False

    def _drop_left(self) -> None:
        """Forget replicas of queues that were moved away and whose group has let this node go."""
        node = self._node
        by_group = node.service.metadata.state.by_group
        for group in self._leaving & set(node.queues.hosts):
            info = by_group.get(group)
            if info is None or node.me.id in info.replicas:
                self._leaving.discard(group)
                continue
            members = node.replication.multi.status(info.group).membership.members
            leader = node.queues.leaders.get(info.group)
            if node.me.id not in members and leader is not None and leader[0] != node.me.id:
                self._leaving.discard(group)
                node.queues.hosts.pop(info.group)
                node.replication.multi.remove_group(info.group)


def next_membership(status: Status, wanted: set[int], me: int) -> Membership | None:
    """The next single step from a leader's present membership to ``wanted``; None when there is none now."""
    voters, learners = set(status.membership.voters), set(status.membership.learners)
    behind = {follower.node: follower.lag for follower in status.followers if follower.reachable}
    for node in sorted(wanted - voters - learners):
        return Membership.of(sorted(voters), sorted(learners | {node}))
    for node in sorted(wanted & learners):
        if behind.get(node, CAUGHT_UP + 1) <= CAUGHT_UP:
            return Membership.of(sorted(voters | {node}), sorted(learners - {node}))
    if wanted <= voters:
        for node in sorted(voters - wanted, key=lambda n: (n == me, n)):
            return Membership.of(sorted(voters - {node}), sorted(learners))
        for node in sorted(learners - wanted):
            return Membership.of(sorted(voters), sorted(learners - {node}))
    return None
