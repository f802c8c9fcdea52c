"""Transient queues of nodes out of reach: their names are given free, so that clients can declare them anew."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from brokers.engine.core.model import commands
from brokers.engine.core.model.metadata import Result
from brokers.engine.core.model.state import State
from brokers.engine.core.model.topology import QueueInfo
from brokers.engine.node.metadata_service import METADATA_GROUP

if TYPE_CHECKING:
    from brokers.engine.node.node import Node

LOST_AFTER = 2.0
"""Seconds without a link after which a node's transient queues go, whether anybody asks for them or not."""

_log = logging.getLogger(__name__)


def lost(state: State, info: QueueInfo) -> commands.Command | None:
    """The command that gives ``info``, a queue in the memory of a node out of reach, up with its like."""
    node = state.nodes.get(info.home or 0)
    return None if node is None else commands.node_lost(node.id, node.boot)


class LostNodes:
    """Watches, on the node that leads the metadata, who is out of reach."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._asked: set[int] = set()

    def check(self, now: float) -> None:
        """Give up the transient queues of nodes that have been out of reach for too long."""
        node = self._node
        if not node.replication.multi.is_leader(METADATA_GROUP):
            return
        state = node.service.metadata.state
        for other in list(state.nodes.values()):
            silent = now - node.last_heard(other.id) > LOST_AFTER
            away = other.id != node.me.id and other.id not in node.peers.links
            if away and silent and state.queues_at(other.id) and other.boot not in self._asked:
                self._asked.add(other.boot)
                _log.warning("%s is out of reach: its transient queues are given up", other.name)
                command = commands.node_lost(other.id, other.boot)
                node.service.submit(command, partial(self._given_up, other.boot), now)

    def _given_up(self, boot: int, result: Result) -> None:
        self._asked.discard(boot)
