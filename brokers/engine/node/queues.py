"""All queues as this node sees them: links for its clients, hosts for the replicas it keeps.

The two meet in session messages, which stay inside the node when it leads the queue itself.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush

from brokers.engine.core.amqp.consumer import Consumer
from brokers.engine.core.model.queue_settings import QueueSettings
from brokers.engine.core.model.queue_state import QueueState
from brokers.engine.core.model.topology import QueueInfo
from brokers.engine.core.raft.records import KIND_NOOP, Entry, Snapshot
from brokers.engine.core.raft.types import Role, RoleChange
from brokers.engine.core.session import messages as m
from brokers.engine.core.session.codec import decode, encode
from brokers.engine.core.session.leader import QueueLeader
from brokers.engine.core.session.link import Load, QueueLink
from brokers.engine.core.session.upkeep import NEVER
from brokers.engine.node.hosts import Failover, Host, ReplicaHost, TransientHost, wall_clock_ms
from brokers.engine.node.peers import SESSION, Peers
from brokers.engine.node.replication import Replication

_to_leader = tuple(QueueLeader.handlers)
_log = logging.getLogger(__name__)


class Queues:
    """Routes session messages between links and leaders, on this node and others."""

    def __init__(
        self,
        me: int,
        boot: int,
        names: Callable[[int], str],
        replication: Replication,
        peers: Peers,
        *,
        wake: Callable[[], None],
        congested: Callable[[Consumer], bool],
        on_deserted: Callable[[int], None],
        on_outlived: Callable[[int], None],
    ) -> None:
        self.load = Load()
        self.hosts: dict[int, Host] = {}
        self.links: dict[int, QueueLink] = {}
        self.leaders: dict[int, tuple[int, int]] = {}
        """Node and term of the latest leader that said hello, by group."""
        self.on_hello: dict[int, Callable[[int, int], object]] = {}
        """Who waits for a new leader (node, term) of a group."""
        self._me = me
        self._boot = boot
        self._names = names
        self._replication = replication
        self._peers = peers
        self._wake = wake
        self._congested = congested
        self._on_deserted = on_deserted
        self._on_outlived = on_outlived
        self.on_letters: Callable[[QueueLeader], None] = lambda leader: None
        """Publishes the dead letters of a queue led here."""
        self._settings: dict[int, QueueSettings] = {}
        self._timers: list[tuple[int, int]] = []
        """Heap of (wall clock milliseconds, group): when a queue has to be looked at."""
        self._timed: dict[int, int] = {}
        """The earliest time in the heap for each group."""
        self._inbox: deque[tuple[int, m.Message]] = deque()
        self._dirty_links: list[QueueLink] = []
        self._dirty_hosts: list[Host] = []
        self._heard: dict[int, tuple[int, float]] = {}
        """When a group's leader was last known to serve, for measuring fail-overs: (node, loop time)."""
        self._electing: dict[int, tuple[int, float]] = {}
        self._suspended: set[int] = set()
        """Groups that this node may still lead after a hand-over that failed."""
        self._greeting: set[int] = set()
        """Groups led here whose leader waits for nodes to say what their consumers hold."""

    # -- links ----------------------------------------------------------------------------------------

    def link(self, info: QueueInfo) -> QueueLink:
        """This node's link to a queue."""
        link = self.links.get(info.group)
        if link is None:
            link = QueueLink(
                info.group,
                info.name,
                self._boot,
                self.load,
                send=self.send,
                mark=self._mark_link,
                congested=self._congested,
            )
            self.links[info.group] = link
            leader = self.leaders.get(info.group)
            if leader is not None and (leader[0] == self._me or leader[0] in self._peers.links):
                link.leader, link.term = leader
        return link

    def _mark_link(self, link: QueueLink) -> None:
        self._dirty_links.append(link)
        self._wake()

    def touch(self, link: QueueLink) -> None:
        """Have the link flush in this turn (its consumers' sockets have drained)."""
        self._mark_link(link)

    def send(self, node: int, message: m.Message) -> None:
        """Hand a session message to ``node``, in order."""
        if node == self._me:
            self._inbox.append((self._me, message))
            self._wake()
        else:
            self._peers.send(node, SESSION, encode(message))

    def receive(self, node: int, frame: bytes) -> None:
        """A session message from a peer. Raises ``ValueError`` when it is malformed."""
        self._dispatch(node, decode(frame))

    def _dispatch(self, node: int, message: m.Message) -> None:
        group = message.group
        if isinstance(message, _to_leader):
            host = self.hosts.get(group)
            if host is not None and host.leader is not None:
                host.leader.receive(node, message)
                self.mark(host)
            return
        if isinstance(message, m.Hello):
            if message.term < self.leaders.get(group, (0, 0))[1]:
                return  # it does not know yet that it was deposed
            self.leaders[group] = (node, message.term)
            if group in self.on_hello:
                self.on_hello[group](node, message.term)
        link = self.links.get(group)
        if link is not None:
            link.receive(node, message)
        elif isinstance(message, m.Hello):
            self.send(node, m.Resuming(group, message.number))
            self.send(node, m.Resumed(group, message.term))

    # -- hosts ----------------------------------------------------------------------------------------

    def add_replica(self, group: int, state: QueueState) -> None:
        """Keep a replica of ``group``, whose log goes on from ``state``."""
        self.hosts[group] = ReplicaHost(group, state, self._replication.log, self._replication)

    def add_transient(self, info: QueueInfo) -> None:
        """Keep a queue in this node's memory; it is led from here at once."""
        host = TransientHost(info.group, info.arguments)
        self.hosts[info.group] = host
        self._lead(host, 1)

    def announce(self, info: QueueInfo) -> None:
        """A queue exists. Where a transient one is led from needs no hello."""
        if info.home is not None and info.home != self._me:
            self.leaders[info.group] = (info.home, 1)

    def touch_group(self, group: int) -> None:
        """Let the leader of a group, if it is here, work in this turn."""
        host = self.hosts.get(group)
        if host is not None and host.leader is not None:
            self.mark(host)

    def configure(self, group: int, settings: QueueSettings) -> None:
        """What is known of the queue's settings now. It is not led from here before that."""
        self._settings[group] = settings
        host = self.hosts.get(group)
        if host is not None and host.leader is not None:
            host.leader.upkeep.configure(settings)
            self.mark(host)

    def settings(self, group: int) -> QueueSettings | None:
        """The settings in force of a queue, None before they are known."""
        return self._settings.get(group)

    def remove(self, group: int) -> list[Consumer]:
        """The queue was deleted; its consumers on this node that are to be told."""
        self._settings.pop(group, None)
        self._timed.pop(group, None)
        self.hosts.pop(group, None)
        self.leaders.pop(group, None)
        self._heard.pop(group, None)
        self._electing.pop(group, None)
        self._suspended.discard(group)
        link = self.links.pop(group, None)
        return link.closed() if link is not None else []

    def mark(self, host: Host) -> None:
        """Let the host's leader work in this turn."""
        if not host.dirty:
            host.dirty = True
            self._dirty_hosts.append(host)
            self._wake()

    def _lead(self, host: Host, term: int) -> None:
        settings = self._settings.get(host.group)
        if settings is None:
            # The metadata log lags behind the queue's: ``resume`` leads as soon as the queue is known.
            self._suspended.add(host.group)
            return
        host.lead(term, [self._me, *self._peers.links], settings)
        self._greeting.add(host.group)
        self.mark(host)

    # -- consensus ------------------------------------------------------------------------------------

    def on_role(self, change: RoleChange, now: float) -> None:
        """This node's part in a group is another now."""
        host = self.hosts.get(change.group)
        if host is None:
            return
        if change.role is Role.LEADER:
            host.term = change.term
            return
        self._suspended.discard(change.group)
        if host.leader is not None:
            host.leader = None
            link = self.links.get(change.group)
            if link is not None:
                link.leader_lost(self._me)
        if change.leader:
            self._heard[change.group] = (change.leader, now)
            self._electing.pop(change.group, None)
        elif change.group in self._heard and change.group not in self._electing:
            self._electing[change.group] = (self._heard[change.group][0], now)

    def on_entries(self, group: int, entries: list[Entry], now: float, heard: Callable[[int], float]) -> None:
        """Committed entries of a group."""
        host = self.hosts.get(group)
        if not isinstance(host, ReplicaHost):
            return
        multi = self._replication.multi
        for entry in entries:
            host.apply_entry(entry)
            if entry.kind == KIND_NOOP and entry.term == host.term and multi.is_leader(group):
                self._note_failover(host, now, heard)
                self._lead(host, entry.term)
        if host.leader is not None:
            self.mark(host)

    def _note_failover(self, host: Host, now: float, heard: Callable[[int], float]) -> None:
        former = self.leaders.get(host.group)
        if former is None or former[0] == self._me:
            return
        node = former[0]
        since, reason = heard(node), "crash"
        if node in self._peers.links:
            _, since = self._electing.get(host.group, (node, now))
            reason = "transfer"
        host.failover = Failover(
            wall_clock_ms() / 1000,
            self._names(node),
            self._names(self._me),
            round(max(0.0, now - since) * 1000, 1),
            reason,
        )

    def on_installed(self, snapshot: Snapshot) -> None:
        """A group's state was replaced by a snapshot of its leader's."""
        host = self.hosts.get(snapshot.group)
        if isinstance(host, ReplicaHost):
            host.restore(snapshot)

    # -- peers ----------------------------------------------------------------------------------------

    def peer_up(self, node: int) -> None:
        """A node came into reach: tell it what is led here."""
        for host in self.led():
            assert host.leader is not None  # noqa: S101  # led() says so
            host.leader.greet(node)
            self.mark(host)

    def peer_down(self, node: int) -> None:
        """A node is out of reach: its consumers hold nothing, its leaderships are void."""
        for host in self.led():
            assert host.leader is not None  # noqa: S101  # led() says so
            host.leader.node_down(node)
            self.mark(host)
        for link in self.links.values():
            link.leader_lost(node)

    def led(self) -> Iterator[Host]:
        """The hosts whose queues are led from this node."""
        return (host for host in list(self.hosts.values()) if host.leader is not None)

    # -- the turn -------------------------------------------------------------------------------------

    def turn(self) -> bool:
        """Move everything that can move now; whether anything did."""
        moved = False
        if self._dirty_links:
            links, self._dirty_links = self._dirty_links, []
            for link in links:
                link.flush()
            moved = True
        while self._inbox:
            node, message = self._inbox.popleft()
            self._dispatch(node, message)
            moved = True
        if self._dirty_hosts:
            hosts, self._dirty_hosts = self._dirty_hosts, []
            for host in hosts:
                host.dirty = False
                self._work(host)
            moved = True
        return moved

    def _work(self, host: Host) -> None:
        leader = host.leader
        if leader is None:
            return
        now = wall_clock_ms()
        more = leader.pump(now)
        if leader.upkeep.letters:
            self.on_letters(leader)
        for payload, answers in leader.take_proposals(now):
            index = host.propose(payload)
            if index is None:
                self._suspend(host)
                return
            leader.proposed(index, answers)
        if isinstance(host, TransientHost) and host.commit():
            more = True
        out, leader.out = leader.out, []
        for node, message in out:
            self.send(node, message)
        if leader.deserted:
            leader.deserted = False
            self._on_deserted(host.group)
        if leader.upkeep.outlived:
            leader.upkeep.outlived = False
            self._on_outlived(host.group)
        if leader.upkeep.due < NEVER:
            self._call_at(leader.upkeep.due, host.group)
        if more:
            self.mark(host)

    def _suspend(self, host: Host) -> None:
        # Leadership is being handed over (or is lost): links say everything again to whoever leads next,
        # which may be this node (see ``resume``).
        self._suspended.add(host.group)
        host.leader = None
        link = self.links.get(host.group)
        if link is not None:
            link.leader_lost(self._me)

    def _call_at(self, due: int, group: int) -> None:
        if due < self._timed.get(group, NEVER):
            self._timed[group] = due
            heappush(self._timers, (due, group))

    def ring(self) -> None:
        """Look at the queues where something is due now. Called every few milliseconds."""
        timers = self._timers
        now = wall_clock_ms()
        while timers and timers[0][0] <= now:
            due, group = heappop(timers)
            if self._timed.get(group) == due:
                del self._timed[group]
                host = self.hosts.get(group)
                if host is not None and host.leader is not None:
                    self.mark(host)

    def resume(self) -> None:
        """Lead again where a hand-over was given up."""
        multi = self._replication.multi
        for group in list(self._suspended):
            host = self.hosts.get(group)
            if host is None or not multi.is_leader(group):
                self._suspended.discard(group)
                continue
            status = multi.status(group)
            # What was proposed before the hand-over has to be applied: the next leader must know of it.
            if not status.transferring and host.state.applied >= status.last:
                self._suspended.discard(group)
                self._lead(host, host.term)

    def wait_for_the_living(self) -> None:
        """Leaders wait for what nodes' consumers hold only as long as these nodes are heard of."""
        for group in list(self._greeting):
            host = self.hosts.get(group)
            leader = host.leader if host is not None else None
            if host is None or leader is None or not leader.awaited:
                self._greeting.discard(group)
                continue
            for node in leader.awaited:
                if node != self._me and not self._replication.multi.hears(node):
                    leader.give_up(node)
                    self.mark(host)
