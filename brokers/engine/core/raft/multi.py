"""All groups of one node behind one door: the only part of consensus that the node talks to.

No I/O: the driver hands in time, messages and what became durable, and executes what ``take_ready`` returns.
Liveness is a matter of nodes, not of groups (``liveness.py``), so idle groups cost nothing.
"""

from __future__ import annotations

import random

from brokers.engine.core.raft.group import Group
from brokers.engine.core.raft.host import Host, InstallDone, RepairDone, Timer
from brokers.engine.core.raft.liveness import Liveness
from brokers.engine.core.raft.messages import (
    Claims,
    ClaimsRequest,
    Heartbeat,
    HeartbeatResponse,
    Message,
)
from brokers.engine.core.raft.records import (
    KIND_DATA,
    GroupImage,
    HardState,
    Removed,
    Snapshot,
    SnapshotReader,
)
from brokers.engine.core.raft.types import Committed, Membership, Ready, Refused, Role, Settings, Status


class Multi:
    """The consensus groups of node ``me``, whose process is ``boot``.

    The driver's loop: hand events in (``receive``, ``propose``, ``tick`` about every 20 ms, ``persisted``),
    then ``take_ready`` until it returns None. ``Ready.records`` must be visible to ``reader`` before the next
    call.
    """

    def __init__(
        self, me: int, boot: int, reader: SnapshotReader, rng: random.Random, settings: Settings | None = None
    ) -> None:
        self._host = Host(me, boot, reader, rng, settings or Settings())
        self._groups: dict[int, Group] = {}
        self._liveness = Liveness(self._host, self._groups)

    # Groups.

    def add_group(self, image: GroupImage, bootstrap: Membership | None = None) -> Snapshot | None:
        """Take up a group that was recovered from disk, or (with an ``empty_image``) found or join one.

        ``bootstrap`` is the membership a new group is founded with, the same on all its members; a node that
        joins later names itself as a learner only. Returns the snapshot its state machine starts from (None:
        an empty one). Raises ``ValueError`` when the group is here already or the image is impossible.
        """
        if image.group in self._groups:
            raise ValueError(f"group {image.group} is on this node already")
        group, snapshot = Group.restore(image, self._host, bootstrap or Membership(()))
        self._groups[image.group] = group
        self._liveness.added(group)
        return snapshot

    def remove_group(self, group: int) -> None:
        """The group leaves this node for good; its records may be dropped. Unknown groups are passed over."""
        gone = self._groups.pop(group, None)
        if gone is None:
            return
        host = self._host
        gone.leave_role()
        gone.forget_members()
        for kind in Timer:
            host.timers.clear(group, kind)
        host.touched.pop(group, None)
        host.record(gone, Removed(group))

    @property
    def groups(self) -> tuple[int, ...]:
        """The groups on this node."""
        return tuple(self._groups)

    def is_leader(self, group: int) -> bool:
        """Does this node believe to lead ``group``? (Another may have been elected since.)"""
        found = self._groups.get(group)
        return found is not None and found.role is Role.LEADER

    def leader_of(self, group: int) -> int | None:
        """The node believed to lead ``group``; None when that is not known."""
        found = self._groups.get(group)
        return (found.leader or None) if found is not None else None

    def hears(self, node: int) -> bool:
        """Was anything heard of ``node`` within the election timeout?"""
        peer = self._host.peers.get(node)
        return peer is not None and peer.alive

    def status(self, group: int) -> Status:
        """This node's view of ``group``. Raises ``KeyError`` when it is not here."""
        return self._groups[group].status()

    # What the state machines want.

    def propose(self, group: int, payload: bytes) -> tuple[int, int] | None:
        """Append ``payload``; returns (index, term). None when not leading, or handing leadership on.

        It is decided when ``Ready.committed`` covers the index while the entry there still has that term.
        """
        found = self._groups.get(group)
        if found is None or found.role is not Role.LEADER or found.transferee:
            return None
        return found.append(KIND_DATA, payload), found.term

    def change_membership(self, group: int, target: Membership) -> tuple[int, int]:
        """Propose ``target``, at most one voter away from the present one; returns (index, term).

        Raises ``Refused`` when not leading, before the leader has committed in its term, and while another
        change is under way. In force at once; a leader that it removes steps down when it is committed.
        """
        found = self._groups[group]
        found.require_leader()
        return found.change_membership(target)

    def transfer(self, group: int, target: int) -> None:
        """Hand the leadership of ``group`` to ``target``; given up after an election timeout.

        Proposals are refused meanwhile. Raises ``Refused`` when not leading or ``target`` is no voter.
        """
        found = self._groups[group]
        found.require_leader()
        found.transfer(target)

    def campaign(self, group: int, now: float) -> None:
        """Stand for election (with pre-vote, so a live leader is not disturbed)."""
        self._host.now = now
        found = self._groups[group]
        if found.role is not Role.LEADER and not found.leader_alive:
            found.attempts = 0
            found.campaign()

    def make_snapshot(self, group: int, index: int, state: bytes, keep_from: int) -> Snapshot:
        """The record of a snapshot of ``state`` at ``index``, which refers to entries from ``keep_from`` on.

        Raises ``ValueError`` when ``index`` was not handed out yet or ``keep_from`` is not in the log.
        """
        return self._groups[group].make_snapshot(index, state, keep_from)

    def compact(self, snapshot: Snapshot) -> None:
        """``snapshot`` is in storage: entries below its ``keep_from`` may go. Raises ``ValueError``."""
        self._groups[snapshot.group].compact(snapshot)

    def pinned(self, group: int) -> int | None:
        """The lowest entry that a snapshot on its way to a follower still needs; None when there is none."""
        progress = self._groups[group].progress.values()
        lowest = [follower.sender.lowest for follower in progress if follower.sender is not None]
        return min(lowest, default=None)

    # Events.

    def receive(self, peer: int, message: Message, now: float) -> None:
        """``peer`` says ``message``. What is said of unknown groups is passed over."""
        host, liveness = self._host, self._liveness
        host.now = now
        if isinstance(message, Heartbeat):
            liveness.on_heartbeat(peer, message)
        elif isinstance(message, HeartbeatResponse):
            liveness.on_heartbeat_response(peer, message)
        elif isinstance(message, ClaimsRequest):
            liveness.on_claims_request(peer)
        elif isinstance(message, Claims):
            liveness.on_claims(peer, message)
        else:
            group = self._groups.get(message.group)
            if group is not None:
                group.receive(peer, message)

    def tick(self, now: float) -> None:
        """Let time pass; to be called about every 20 ms, or at ``deadline``."""
        self._host.now = now
        self._liveness.tick()
        self._run_timers()

    def _run_timers(self) -> None:
        host = self._host
        for group_id, kind in host.timers.due(host.now, host.settings.campaigns_per_tick):
            group = self._groups[group_id]
            if kind is Timer.ELECTION:
                group.campaign()
            elif kind is Timer.QUORUM:
                group.check_quorum()
            else:
                group.end_transfer()

    def deadline(self) -> float:
        """When ``tick`` is next of use."""
        return min(self._host.timers.next(), self._liveness.deadline())

    def link_up(self, peer: int, boot: int, now: float) -> None:
        """A connection with ``peer``, whose process is ``boot``, is there."""
        self._host.now = now
        self._liveness.link_up(peer, boot)

    def link_down(self, peer: int, now: float) -> None:
        """The connection with ``peer`` ended, most likely its process did: what it led is up for election."""
        self._host.now = now
        self._liveness.link_down(peer)

    def disk_healthy(self, healthy: bool) -> None:
        """A disk that stalls or fails must not lead, nor keep others from leading."""
        host = self._host
        if host.disk_healthy == healthy:
            return
        host.disk_healthy = healthy
        for group in self._groups.values():
            if group.role in (Role.LEADER, Role.CANDIDATE, Role.PRE_CANDIDATE):
                group.follow(group.term, 0)
            elif not group.leader:
                group.await_leader()

    def persisted(self, token: int, now: float) -> None:
        """The records of ``token`` and of all tokens before it are durable. Token 0 means nothing."""
        host = self._host
        host.now = now
        written, own = host.persisted(token)
        for group_id, (term, index) in written.items():
            group = self._groups.get(group_id)
            if group is not None:
                group.durable(term, index)
        for message in own:
            group = self._groups.get(message.group)
            if group is None:
                continue
            if isinstance(message, InstallDone):
                group.on_installed(message)
            elif isinstance(message, RepairDone):
                group.on_repaired()
            else:
                group.on_vote_response(host.me, message)

    def take_ready(self) -> Ready | None:
        """What is to be done now; None when nothing is."""
        host = self._host
        committed: list[Committed] = []
        while host.touched:
            touched, host.touched = host.touched, {}
            for group_id in touched:
                group = self._groups[group_id]
                if group.role is Role.LEADER:
                    group.feed_all()
                if group.commit > group.handed and not group.installing:
                    committed.append(Committed(group.id, group.handed + 1, group.commit))
                    group.handed = group.commit
                group.tail.clear()
        if not (
            host.records or host.messages or host.installed or committed or host.role_changes or host.repaired
        ):
            return None
        ready = Ready(
            0, host.records, host.messages, host.installed, committed, host.role_changes, host.repaired
        )
        if host.records:
            ready.token = host.token
            host.token += 1
        host.records, host.messages, host.installed = [], [], []
        host.role_changes, host.repaired = [], []
        return ready


def empty_image(group: int) -> GroupImage:
    """The image of a group that has never been on this node."""
    return GroupImage(group, HardState(group, 0, 0), None, 1, 0, [], None, ())


__all__ = ["Committed", "Multi", "Ready", "Refused", "empty_image"]
