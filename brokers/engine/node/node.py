"""A node: one event loop that owns the sockets, the links and the log, and turns.

Whatever happens (a read, a frame of a peer, a finished sync) only changes state and asks for a *turn*; the
turn then moves everything on and writes each socket once. So work is batched by itself: the busier the
node, the more a turn carries.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

from brokers.engine.config import ClusterConfig, NodeConfig
from brokers.engine.core.amqp.consumer import Consumer
from brokers.engine.core.model import commands, events
from brokers.engine.core.model.metadata import Metadata
from brokers.engine.core.model.passwords import SALT_BYTES, hash_password
from brokers.engine.core.model.policies import policy_definition
from brokers.engine.core.model.queue_settings import settings
from brokers.engine.core.model.queue_state import QueueState
from brokers.engine.core.model.topology import DELAY_QUEUE, NodeInfo, QueueInfo
from brokers.engine.core.raft.multi import empty_image
from brokers.engine.core.raft.records import KIND_DATA, Entry, GroupImage, Snapshot
from brokers.engine.core.raft.types import Membership, Role, RoleChange
from brokers.engine.node.barrier import Barrier
from brokers.engine.node.broker import NodeBroker
from brokers.engine.node.dead_letters import DeadLetters
from brokers.engine.node.delays import Delays
from brokers.engine.node.hosts import restored
from brokers.engine.node.listener import AmqpSocket, connection_settings, listening_hosts, max_connections
from brokers.engine.node.lost_nodes import LostNodes
from brokers.engine.node.membership import Memberships, founders
from brokers.engine.node.metadata_service import METADATA_GROUP, MetadataService
from brokers.engine.node.peers import BARRIER, JSON, METADATA, RAFT, REPLY, SESSION, Peers
from brokers.engine.node.pressure import Pressure
from brokers.engine.node.queues import Queues
from brokers.engine.node.replication import Replication
from brokers.engine.node.replies import Replies
from brokers.engine.node.snapshots import Snapshots
from brokers.engine.node.tls import HANDSHAKE_TIMEOUT, from_environment
from brokers.engine.storage.errors import LogFull

TICK = 0.02
MAX_ROUNDS = 64
"""Rounds of one turn before sockets get their turn again."""

_log = logging.getLogger(__name__)


class Node:
    """The parts of a node and how they move. ``failed`` resolves when the node cannot go on."""

    def __init__(self, config: ClusterConfig, me: NodeConfig, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.me = me
        self.boot = secrets.randbits(63) | 1
        self.started = loop.time()
        self.failed: asyncio.Future[Exception] = loop.create_future()
        self.ready = asyncio.Event()
        """Set when clients are served."""
        self.sockets: set[AmqpSocket] = set()
        self.connection_settings = connection_settings()
        self.max_connections = max_connections()
        self.tls = from_environment(config, me)
        if self.tls is not None:
            self.tls.context()  # what is wrong with its files is to be known now
        self._servers: list[asyncio.Server] = []
        self.turned = 0
        self.draining = False
        self._loop = loop
        self._scheduled = False
        self._dirty_sockets: set[AmqpSocket] = set()
        self._last_heard: dict[int, float] = {}
        self._owners: dict[object, AmqpSocket] = {}
        self._bootstrapping = False
        self.on_json: Callable[[int, bytes], None] = lambda node, data: None
        self.replication = Replication(
            me.id,
            self.boot,
            config.data_dir(me.name) / "log",
            loop,
            wake=self.wake,
            on_failure=self._on_log_failure,
        )
        self.peers = Peers(
            me,
            self.boot,
            config.cluster_id,
            config.secret(),
            on_up=self._on_peer_up,
            on_down=self._on_peer_down,
            on_frame=self._on_frame,
        )
        self.service = MetadataService(
            Metadata(), self.boot, forward=self._forward_metadata, on_event=self._on_event
        )
        self.queues = Queues(
            me.id,
            self.boot,
            self.node_name,
            self.replication,
            self.peers,
            wake=self.wake,
            congested=self._congested,
            on_deserted=self._on_deserted,
            on_outlived=self._on_outlived,
        )
        self.delays = Delays(self.service.metadata, self.queues, loop)
        self.dead_letters = DeadLetters(
            self.service.metadata, self.queues.link, lambda leader: self.queues.touch_group(leader.group)
        )
        self.queues.on_letters = self.dead_letters.send
        self.barrier = Barrier(
            lambda node, parts: self.peers.send(node, BARRIER, parts), lambda: self.peers.links, loop
        )
        self.replies = Replies(me.id, lambda node, parts: self.peers.send(node, REPLY, parts))
        self.broker = NodeBroker(
            *(me.id, me.name, self.boot, config.name, loop),
            *(self.service, self.queues, self.live_nodes, self.replies, self.barrier),
        )
        self.snapshots = Snapshots(self.replication, self.queues, self.service.metadata)
        self.pressure = Pressure(self)
        self.memberships = Memberships(self)
        self.lost_nodes = LostNodes(self)
        self._recover()

    # -- start and end --------------------------------------------------------------------------------

    def _recover(self) -> None:
        images = {image.group: image for image in self.replication.images}
        image = images.pop(METADATA_GROUP, None) or self._new_image(METADATA_GROUP)
        snapshot = self.replication.add_group(image, founders(self))
        if snapshot is not None and snapshot.state:
            self.service.metadata.restore(snapshot.state)
        self.snapshots.metadata_applied(snapshot.index if snapshot else 0)
        if image.snapshot is None:
            # Who founded the cluster is known from the log alone from now on.
            self.replication.snapshot(METADATA_GROUP, 0, b"", 1)
        for group, found in images.items():
            self.queues.add_replica(group, restored(self.replication.add_group(found)))
        for info in self.service.metadata.state.queues():
            self._queue_created(info)

    async def start(self) -> None:
        """Link with the peers, come up to date, then serve clients."""
        await self.peers.start(node for node in self.config.nodes if node.id != self.me.id)
        ticking = self._loop.create_task(self._tick())
        ticking.add_done_callback(self._on_task_done)
        self.wake()
        await self._join()
        hosts = listening_hosts(self.me.host, self.me.amqp)
        server = await self._loop.create_server(lambda: AmqpSocket(self), hosts, self.me.amqp)
        self._servers = [server]
        if self.tls is not None:
            hosts = listening_hosts(self.me.host, self.tls.port)
            self._servers.append(
                await self._loop.create_server(
                    lambda: AmqpSocket(self),
                    hosts,
                    self.tls.port,
                    ssl=self.tls.context(),
                    ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
                )
            )
            _log.info("%s serves AMQP over TLS on %s:%s", self.me.name, self.me.host, self.tls.port)
        self.ready.set()
        _log.info("%s serves AMQP on %s, port %s", self.me.name, " and ".join(hosts), self.me.amqp)

    async def _join(self) -> None:
        """Say that this process is a new one; what the former kept in memory is then gone."""
        state = self.service.metadata.state
        while self.me.id not in state.nodes:
            await asyncio.sleep(TICK)
            state = self.service.metadata.state
        joined = asyncio.Event()
        self.service.submit(
            commands.node_started(self.me.id, self.boot), lambda result: joined.set(), self.now()
        )
        await joined.wait()

    async def stop(self) -> None:
        """Hand leaderships over, close clients, stop."""
        self.draining = True
        for server in self._servers:
            server.close()
        await self.hand_over(3.0)
        for socket in list(self.sockets):
            if socket.connection is not None:
                socket.connection.close(320, "CONNECTION_FORCED - broker is shutting down")
                self.socket_dirty(socket)
        await asyncio.sleep(TICK)
        await self.peers.close()
        await asyncio.to_thread(self.replication.log.close)

    async def hand_over(self, within: float) -> None:
        """Have other nodes lead what this one leads, as far as that is possible ``within`` seconds."""
        multi = self.replication.multi
        deadline = self.now() + within
        while self.now() < deadline:
            led = [group for group in (METADATA_GROUP, *self.queues.hosts) if multi.is_leader(group)]
            waiting = [group for group in led if self._hand_over_one(group)]
            if not waiting:
                return
            self.wake()
            await asyncio.sleep(TICK)

    def _hand_over_one(self, group: int) -> bool:
        """Begin to hand over a group; whether somebody could take it."""
        status = self.replication.multi.status(group)
        if status.transferring:
            return True
        voters = [f for f in status.followers if f.reachable and f.node in status.membership.voters]
        if not voters:
            return False
        best = max(voters, key=lambda follower: follower.match)
        self.replication.multi.transfer(group, best.node)
        return True

    # -- time -----------------------------------------------------------------------------------------

    def now(self) -> float:
        """Monotonic seconds."""
        return self._loop.time()

    @staticmethod
    def wall_clock() -> float:
        """Seconds since 1970."""
        return time.time()

    async def _tick(self) -> None:
        last = self.now()
        slow = last
        while True:
            await asyncio.sleep(TICK)
            now = self.now()
            self.pressure.loop_delay(now - last - TICK)
            last = now
            self.replication.tick(now)
            self.peers.tick()
            self.queues.resume()
            self.queues.wait_for_the_living()
            self.queues.ring()
            self.delays.tick()
            self.service.tick(now)
            self._bootstrap()
            if now - slow >= 0.5:
                slow = now
                for socket in self.sockets:
                    if socket.connection is not None:
                        socket.connection.tick(now)
                        self._dirty_sockets.add(socket)
                self.pressure.check()
                self.snapshots.check(now)
                self.memberships.check()
                self.lost_nodes.check(now)
            self.wake()

    def _bootstrap(self) -> None:
        state = self.service.metadata.state
        if state.cluster or self._bootstrapping or not self.replication.multi.is_leader(METADATA_GROUP):
            return
        self._bootstrapping = True
        nodes = [
            NodeInfo(node.id, node.name, {"amqp": f"{node.host}:{node.amqp}"}) for node in self.config.nodes
        ]
        guest = hash_password("guest", secrets.token_bytes(SALT_BYTES))
        command = commands.bootstrap(self.config.cluster_id, "guest", guest, nodes)
        self.service.submit(command, self._bootstrapped, self.now())

    def _bootstrapped(self, result: object) -> None:
        self._bootstrapping = False

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.fail(task.exception() or RuntimeError("a task of the node ended"))

    def fail(self, error: BaseException) -> None:
        """The node cannot go on: end the process, and let the peers serve."""
        _log.critical("node cannot go on: %r", error, exc_info=error)
        if not self.failed.done():
            self.failed.set_result(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    def _on_log_failure(self, error: Exception) -> None:
        if isinstance(error, LogFull):
            _log.error("%s", error)
        else:
            self.fail(error)

    # -- the turn -------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Ask for a turn."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self.turned += 1
        try:
            for _ in range(MAX_ROUNDS):
                moved = self.queues.turn()
                if not (self.replication.turn(self.peers, self) or moved):
                    break
            else:
                self.wake()
            self.peers.flush()
            if self._dirty_sockets:
                sockets, self._dirty_sockets = self._dirty_sockets, set()
                for socket in sockets:
                    socket.flush()
        except Exception as error:
            self.fail(error)

    # -- consensus ------------------------------------------------------------------------------------

    def on_role(self, change: RoleChange) -> None:
        """See ``replication.StateMachines``."""
        if change.group == METADATA_GROUP:
            if change.leader or change.role is Role.LEADER:
                self.service.leader_changed(self.now())
        else:
            self.queues.on_role(change, self.now())

    def on_entries(self, group: int, entries: list[Entry]) -> None:
        """See ``replication.StateMachines``."""
        if group != METADATA_GROUP:
            self.queues.on_entries(group, entries, self.now(), self.last_heard)
            return
        for entry in entries:
            self.barrier.applying(entry.index)
            if entry.kind == KIND_DATA:
                self.service.apply(entry.payload)
            self.snapshots.metadata_applied(entry.index)
            self.barrier.applied(entry.index)

    def on_installed(self, snapshot: Snapshot) -> None:
        """See ``replication.StateMachines``."""
        if snapshot.group != METADATA_GROUP:
            self.queues.on_installed(snapshot)
            return
        for event in self.service.metadata.restore(snapshot.state):
            self._on_event(event)
        self.snapshots.metadata_applied(snapshot.index)
        self.barrier.applied(snapshot.index)

    def _forward_metadata(self, payload: bytes) -> None:
        multi = self.replication.multi
        if multi.is_leader(METADATA_GROUP):
            multi.propose(METADATA_GROUP, payload)
            self.wake()
            return
        leader = multi.leader_of(METADATA_GROUP)
        if leader:
            self.peers.send(leader, METADATA, [payload])
            self.wake()

    # -- what the metadata says -----------------------------------------------------------------------

    def _on_event(self, event: events.Event) -> None:
        self.broker.topology_changed()
        if isinstance(event, events.QueueCreated):
            self._queue_created(event.info)
        elif isinstance(event, events.QueueDeleted):
            self._queue_deleted(event.info)
        elif isinstance(event, events.NodeChanged):
            self._check_replaced(event.node)
        elif isinstance(event, events.QueueChanged):
            self.memberships.queue_changed(event.before, event.after)
        elif isinstance(event, events.PoliciesChanged):
            vhost = self.service.metadata.state.vhosts.get(event.vhost)
            for info in vhost.queues.values() if vhost is not None else ():
                self._configure(info)
        elif isinstance(event, events.UserDeleted):
            self.broker.disconnect(lambda c: c.user == event.name, f"user '{event.name}' was deleted")
        elif isinstance(event, events.UserChanged) and event.password:
            why = f"password of user '{event.name}' was changed"
            self.broker.disconnect(lambda c: c.user == event.name, why)
        elif isinstance(event, events.VHostDeleted):
            self.broker.disconnect(lambda c: c.vhost == event.name, f"vhost '{event.name}' is deleted")

    def _configure(self, info: QueueInfo) -> None:
        """Put what the queue's arguments and the policies of its vhost ask for into force."""
        vhost = self.service.metadata.state.vhosts.get(info.vhost)
        policy = policy_definition(vhost, info) if vhost is not None else {}
        self.queues.configure(info.group, settings(info.arguments, info.type, policy))

    def _queue_created(self, info: QueueInfo) -> None:
        if info.type == DELAY_QUEUE:
            self.delays.add(info.group)
        self._configure(info)
        self.queues.announce(info)
        if info.home == self.me.id:
            self.queues.add_transient(info)
        elif self.me.id in info.replicas and info.group not in self.queues.hosts:
            self.found_replica(info, Membership.of(info.replicas))
            if info.replicas[0] == self.me.id:
                self.replication.multi.campaign(info.group, self.now())

    def found_replica(self, info: QueueInfo, members: Membership) -> None:
        """Begin a replica of a queue on this node, with an empty log."""
        state = QueueState.founded(info.arguments)
        self.queues.add_replica(info.group, state)
        self.replication.add_group(self._new_image(info.group), members)
        # After a restart the log alone tells who founded the group, and what its state began with.
        self.replication.snapshot(info.group, 0, state.dump(), 1)

    def _new_image(self, group: int) -> GroupImage:
        """The image of a group of which the log has nothing: because it is new, or because that was lost.

        Where damage took records of nobody knows which group, this replica may have voted and acknowledged
        entries. It must not vote before its peers have repaired it.
        """
        lost = any(damage.group is None for damage in self.replication.log.damages)
        return empty_image(group)._replace(damaged=1 if lost else None)

    def _check_replaced(self, node: NodeInfo) -> None:
        """Two processes must not be one node: the one that started later is."""
        if node.id == self.me.id and node.boot != self.boot and self.ready.is_set():
            self.fail(RuntimeError(f"another process has started as {self.me.name}; this one ends"))

    def _queue_deleted(self, info: QueueInfo) -> None:
        self.delays.remove(info.group)
        self.dead_letters.forget(info.group)
        for consumer in self.queues.remove(info.group):
            consumer.channel.cancelled_by_broker(consumer)
            self._touch(consumer)
        if self.me.id in info.replicas:
            self.replication.multi.remove_group(info.group)

    def _on_deserted(self, group: int) -> None:
        """The last consumer of a queue left."""
        info = self.service.metadata.state.by_group.get(group)
        if info is not None and info.auto_delete:
            command = commands.delete_queue(info.vhost, info.name, info.group, events.Reason.UNUSED)
            self.service.submit(command, lambda result: None, self.now())

    def _on_outlived(self, group: int) -> None:
        """A queue was not used for as long as its ``x-expires`` allows."""
        info = self.service.metadata.state.by_group.get(group)
        if info is not None:
            command = commands.delete_queue(info.vhost, info.name, info.group, events.Reason.EXPIRED)
            self.service.submit(command, lambda result: None, self.now())

    # -- peers ----------------------------------------------------------------------------------------

    def live_nodes(self) -> list[int]:
        """This node and those in reach."""
        return sorted((self.me.id, *self.peers.links))

    def node_name(self, node: int) -> str:
        """The name of a node by its id."""
        known = self.service.metadata.state.nodes.get(node)
        return known.name if known is not None else f"node{node}"

    def last_heard(self, node: int) -> float:
        """When a peer last said anything (loop time)."""
        return self._last_heard.get(node, self.started)

    def _on_peer_up(self, node: int, boot: int) -> None:
        self.replication.multi.link_up(node, boot, self.now())
        self.queues.peer_up(node)
        self.wake()

    def _on_peer_down(self, node: int) -> None:
        self.replication.multi.link_down(node, self.now())
        self.queues.peer_down(node)
        self.barrier.peer_down(node)
        self.wake()

    def _on_frame(self, node: int, channel: int, frame: bytes) -> None:
        try:
            self._take_frame(node, channel, frame)
        except ValueError:
            raise  # the peer's fault: its link is closed
        except Exception as error:
            self.fail(error)  # ours, and whatever was under way is half done

    def _take_frame(self, node: int, channel: int, frame: bytes) -> None:
        self._last_heard[node] = self.now()
        if channel == SESSION:
            self.queues.receive(node, frame)
        elif channel == RAFT:
            self.replication.receive(node, frame)
        elif channel == METADATA:
            self.replication.propose(METADATA_GROUP, frame)
        elif channel == JSON:
            self.on_json(node, frame)
        elif channel == BARRIER:
            self.barrier.receive(node, frame)
        elif channel == REPLY:
            self.replies.receive(node, frame)
        else:
            raise ValueError(f"frame on unknown channel {channel}")
        self.wake()

    # -- clients --------------------------------------------------------------------------------------

    def socket_opened(self, socket: AmqpSocket) -> str:
        """A client connected; its connection's id."""
        assert socket.connection is not None  # noqa: S101  # made before
        self.sockets.add(socket)
        self._owners[socket.connection] = socket
        return self.broker.opened(socket.connection)

    def socket_closed(self, socket: AmqpSocket) -> None:
        """A client's socket is gone."""
        self.sockets.discard(socket)
        self._dirty_sockets.discard(socket)
        if socket.connection is not None:
            self._owners.pop(socket.connection, None)
        self.wake()

    def socket_dirty(self, socket: AmqpSocket) -> None:
        """The socket's connection has output, or read something."""
        self._dirty_sockets.add(socket)
        self.wake()

    def socket_drained(self, socket: AmqpSocket) -> None:
        """The socket takes output again: its consumers may have credit once more."""
        connection = socket.connection
        if connection is None:
            return
        for channel in connection.channels.values():
            for consumer in channel.consumers.values():
                link = self.queues.links.get(getattr(consumer.queue, "group", -1))
                if link is not None:
                    self.queues.touch(link)

    def _congested(self, consumer: Consumer) -> bool:
        socket = self._owners.get(consumer.channel.connection)
        return consumer.held > 0 or (socket is not None and socket.congested)

    def _touch(self, consumer: Consumer) -> None:
        socket = self._owners.get(consumer.channel.connection)
        if socket is not None:
            self.socket_dirty(socket)
