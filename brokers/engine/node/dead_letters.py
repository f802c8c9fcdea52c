"""Dead letters: messages that died in queues led here are published to their dead-letter exchange.

They go through this node's own links, as a client's publishes do, and the queue lets go of a message when
all the queues that its dead letter reaches have committed it. A fail-over in between repeats dead letters,
it loses none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from brokers.engine.core.amqp.properties import decode_properties
from brokers.engine.core.model.death import REASONS, DeadLetter, bury, is_cycle
from brokers.engine.core.model.hashing import MessageHeaders
from brokers.engine.core.model.metadata import Metadata
from brokers.engine.core.model.queue_settings import QueueSettings
from brokers.engine.core.model.routing import route
from brokers.engine.core.model.topology import QueueInfo
from brokers.engine.core.session.leader import QueueLeader
from brokers.engine.core.session.link import QueueLink
from brokers.engine.core.session.upkeep import Letter
from brokers.engine.node.targets import Gather

RETRY = 1_000
"""Milliseconds after which a dead letter that found no room (or no queue) is tried again, where it is to."""

_log = logging.getLogger(__name__)


class DeadLetters:
    """Publishes the dead letters of all queues led here. ``mark(leader)`` asks for a turn of that queue."""

    def __init__(
        self, metadata: Metadata, link: Callable[[QueueInfo], QueueLink], mark: Callable[[QueueLeader], None]
    ) -> None:
        self._metadata = metadata
        self._link = link
        self._mark = mark
        self._senders: dict[int, Sender] = {}
        self._cycles: set[tuple[int, str]] = set()

    def send(self, leader: QueueLeader) -> None:
        """Publish what the leader's queue has to let go."""
        letters = leader.upkeep.take_letters()
        info = self._metadata.state.by_group.get(leader.group)
        if not letters or info is None:
            return
        sender = self._senders.get(leader.group)
        if sender is None or sender.leader is not leader:
            sender = self._senders[leader.group] = Sender(leader, self._mark)
        for letter in letters:
            self._publish(sender, info, leader.upkeep.settings, letter)

    def forget(self, group: int) -> None:
        """The queue was deleted."""
        self._senders.pop(group, None)

    def _publish(self, sender: Sender, info: QueueInfo, settings: QueueSettings, letter: Letter) -> None:
        dead = bury(
            letter.route,
            letter.header,
            queue=info.name,
            reason=REASONS[letter.outcome],
            seconds=letter.stamp // 1000,
            exchange=settings.dead_letter_exchange or "",
            key=settings.dead_letter_key,
        )
        queues = self._find(info.vhost, settings.dead_letter_exchange or "", dead)
        reached = [queue for queue in queues if not is_cycle(queue.name, dead.deaths)]
        if len(reached) < len(queues):
            self._note_cycle(info, dead)
        sender.keeps = settings.keeps_unroutable
        tag = sender.open(letter.position)
        if not reached:
            if queues:
                sender.confirmed(tag, tag)
            else:
                sender.refused(tag, tag)
            return
        sender.gather.expect(tag, len(reached))
        for queue in reached:
            self._link(queue).add(sender.gather, tag, dead.route, dead.header, letter.body)

    def _find(self, vhost: str, exchange: str, dead: DeadLetter) -> tuple[QueueInfo, ...]:
        known = self._metadata.state.vhosts.get(vhost)
        if known is None or (exchange and exchange not in known.exchanges):
            return ()
        properties = decode_properties(dead.header)

        def headers() -> Mapping[str, object]:
            return MessageHeaders(properties, dict(properties.headers or {}))

        return route(known, exchange, dead.keys[0], headers, dead.keys[1:])

    def _note_cycle(self, info: QueueInfo, dead: DeadLetter) -> None:
        cycle = (info.group, dead.deaths[0][1])
        if cycle not in self._cycles:
            self._cycles.add(cycle)
            way = " from ".join(f"'{queue}' ({reason})" for queue, reason in dead.deaths[:10])
            _log.warning("dead letters of vhost %s go in a circle and are dropped: %s", info.vhost, way)


class Sender:
    """The dead letters of one leader's queue that are under way: a ``Sink``."""

    def __init__(self, leader: QueueLeader, mark: Callable[[QueueLeader], None]) -> None:
        self.leader = leader
        self.keeps = False
        """Letters that a queue refuses are sent again; otherwise they are dropped."""
        self.gather = Gather(self)
        self._mark = mark
        self._tag = 0
        self._under_way: dict[int, int | None] = {}

    def open(self, position: int | None) -> int:
        """A tag for the dead letter of the message at ``position``."""
        self._tag += 1
        self._under_way[self._tag] = position
        return self._tag

    def confirmed(self, first: int, last: int) -> None:
        """These letters are safe, or lead nowhere."""
        self.leader.upkeep.buried(self._close(first, last))
        self._mark(self.leader)

    def refused(self, first: int, last: int) -> None:
        """A queue had no room for these letters."""
        if not self.keeps:
            self.confirmed(first, last)
            return
        self.leader.upkeep.put_off(self._close(first, last), RETRY)
        self._mark(self.leader)

    def _close(self, first: int, last: int) -> list[int]:
        found = [self._under_way.pop(tag) for tag in range(first, last + 1)]
        return [position for position in found if position is not None]
