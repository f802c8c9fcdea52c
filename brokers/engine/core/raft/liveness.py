"""Who is alive, by node: one heartbeat stream a pair of nodes speaks for all groups that the two share.

A follower has no timer of its own: its leader lives while the leader's node does. So that this belief cannot
outlive a silent change, each heartbeat carries a digest of what its sender leads; a receiver that believes
otherwise twice in a row asks for the list.
"""

from __future__ import annotations

from brokers.engine.core.raft.group import Group
from brokers.engine.core.raft.host import Host
from brokers.engine.core.raft.messages import Claims, ClaimsRequest, Heartbeat, HeartbeatResponse
from brokers.engine.core.raft.peers import Peer
from brokers.engine.core.raft.types import Role

_LONGEST_ASK = 10
"""Claims are asked for at most at this multiple of the election timeout apart while they change nothing."""


class Liveness:
    """The node's side of heartbeats: sending, hearing, noticing silence."""

    def __init__(self, host: Host, groups: dict[int, Group]) -> None:
        self._host = host
        self._groups = groups
        self._next_beat = 0.0
        self._next_retry = 0.0
        self._last_tick = 0.0
        self._grace = 0.0
        self._new: list[Group] = []

    def added(self, group: Group) -> None:
        """A group is new on this node: its patience starts with the next tick, unless its leader is known."""
        self._new.append(group)

    def deadline(self) -> float:
        """When ``tick`` is next of use."""
        return 0.0 if self._new else min(self._next_beat, self._next_retry)

    def tick(self) -> None:
        """Send heartbeats that are due, notice who fell silent, and send again what was not answered."""
        host = self._host
        now, settings = host.now, host.settings
        if now - self._last_tick > settings.election_timeout / 2:
            self._grace = now + 2 * settings.heartbeat
        self._last_tick = now
        if self._new:
            self._take_up()
        if now >= self._next_beat:
            self._next_beat = now + settings.heartbeat
            if host.disk_healthy:
                for peer in host.peers.values():
                    if peer.groups:
                        self._beat(peer)
        for peer in list(host.peers.values()):
            self._watch(peer)
        if now >= self._next_retry:
            self._next_retry = now + settings.retry / 4
            self._retry()

    def _take_up(self) -> None:
        new, self._new = self._new, []
        for group in new:
            if group.id not in self._groups or group.leader or group.role is Role.LEADER:
                continue
            group.await_leader()
            for peer in self._host.peers.values():
                if group.id in peer.strangers:
                    peer.strangers.discard(group.id)
                    term = peer.follows.term(group.id)
                    peer.follows.discard(group.id)
                    if term is not None and peer.alive:
                        group.claimed_by(peer.node, term, 0)

    def _beat(self, peer: Peer) -> None:
        host = self._host
        commits: list[tuple[int, int, int]] = []
        for group_id in list(peer.news)[: host.settings.commits_per_heartbeat]:
            group = self._groups[group_id]
            progress = group.progress[peer.node]
            known = min(group.commit, progress.match)
            if progress.commit >= known:
                del peer.news[group_id]
            else:
                commits.append((group_id, group.term, known))
        seq = peer.beat(host.now, commits)
        host.send(peer.node, Heartbeat(host.boot, seq, peer.leads.digest, commits))

    def _watch(self, peer: Peer) -> None:
        now, timeout = self._host.now, self._host.settings.election_timeout
        if peer.alive and now - peer.heard_at > timeout and now >= self._grace:
            peer.alive = False
            self._orphan(peer, prompt=False)
        silent = now - peer.answered_at > timeout
        if peer.answers and silent:
            peer.answers = False
            for group_id in list(peer.leads):
                group = self._groups[group_id]
                if group.role is Role.LEADER:
                    group.check_quorum()
        if peer.reachable and silent and now - peer.reachable_since > timeout:
            peer.reachable = False

    def _orphan(self, peer: Peer, prompt: bool) -> None:
        for group_id in list(peer.follows):
            group = self._groups.get(group_id)
            if group is None:
                peer.follows.discard(group_id)
                peer.strangers.discard(group_id)
            else:
                group.orphan(prompt)

    def _retry(self) -> None:
        host = self._host
        before = host.now - host.settings.retry
        for key, progress in list(host.waiting.items()):
            if not progress.waiting or not host.peer(progress.node).reachable:
                del host.waiting[key]
            elif progress.active <= before:
                self._groups[key[0]].retry(progress)

    # Connections and boots.

    def link_up(self, node: int, boot: int) -> None:
        """A connection is there."""
        peer = self._host.peer(node)
        self._meet(peer, boot)
        self._reach(peer)
        self._ask(peer)

    def link_down(self, node: int) -> None:
        """A connection ended."""
        peer = self._host.peer(node)
        peer.reachable = False
        peer.alive = False
        self._orphan(peer, prompt=True)

    def _meet(self, peer: Peer, boot: int) -> None:
        if peer.boot == boot:
            return
        known, peer.boot = peer.boot, boot
        if known:
            peer.forget_beats()
            self._orphan(peer, prompt=True)
        for group_id in list(peer.leads):
            self._groups[group_id].refresh(peer.node, reborn=True)

    def _reach(self, peer: Peer) -> None:
        peer.reachable_since = self._host.now
        if peer.reachable:
            return
        peer.reachable = True
        for group_id in list(peer.leads):
            self._groups[group_id].refresh(peer.node, reborn=False)

    # Heartbeats and claims.

    def on_heartbeat(self, node: int, message: Heartbeat) -> None:
        """``node`` lives. Learn what it has committed, and check what we believe it leads."""
        host = self._host
        peer = host.peer(node)
        self._meet(peer, message.boot)
        peer.heard_at, peer.alive = host.now, True
        for group_id, term, commit in message.commits:
            group = self._groups.get(group_id)
            if group is not None and group.leader == node and group.term == term:
                group.learn_commit(commit)
        if not host.disk_healthy:
            return
        host.send(node, HeartbeatResponse(host.boot, message.boot, message.seq))
        if message.digest == peer.follows.digest:
            peer.mismatches = 0
            peer.ask_wait = 0.0
            return
        peer.mismatches += 1
        if peer.mismatches >= 2 and host.now >= peer.ask_after:
            self._ask(peer)

    def _ask(self, peer: Peer) -> None:
        host = self._host
        timeout = host.settings.election_timeout
        peer.mismatches = 0
        peer.ask_after = host.now + peer.ask_wait
        peer.ask_wait = min(max(2 * peer.ask_wait, timeout / 4), _LONGEST_ASK * timeout)
        host.send(peer.node, ClaimsRequest(host.boot))

    def on_heartbeat_response(self, node: int, message: HeartbeatResponse) -> None:
        """``node`` hears us."""
        host = self._host
        if message.to != host.boot:
            return
        peer = host.peer(node)
        self._meet(peer, message.boot)
        for group_id, term, commit in peer.answered(message.seq):
            group = self._groups.get(group_id)
            progress = group.progress.get(node) if group is not None and group.term == term else None
            if progress is not None:
                progress.commit = max(progress.commit, commit)
        if host.now - peer.answered_at <= host.settings.election_timeout:
            peer.answers = True
            self._reach(peer)

    def on_claims_request(self, node: int) -> None:
        """``node`` wants to know what we lead."""
        host = self._host
        if not host.disk_healthy:
            return
        leads = host.peer(node).leads
        claims = [(group, leads.term(group) or 0, self._groups[group].commit) for group in leads]
        host.send(node, Claims(host.boot, claims))

    def on_claims(self, node: int, message: Claims) -> None:
        """``node`` leads exactly these: follow where we did not, and look for a leader where we need to."""
        host = self._host
        peer = host.peer(node)
        self._meet(peer, message.boot)
        peer.heard_at, peer.alive = host.now, True
        claimed = {group: (term, commit) for group, term, commit in message.claims}
        for group_id in list(peer.follows):
            if group_id not in claimed:
                group = self._groups.get(group_id)
                if group is None:
                    peer.follows.discard(group_id)
                    peer.strangers.discard(group_id)
                else:
                    group.orphan(prompt=True)
        for group_id, (term, commit) in claimed.items():
            group = self._groups.get(group_id)
            if group is None:
                peer.follows.add(group_id, term)
                peer.strangers.add(group_id)
            else:
                group.claimed_by(node, term, commit)
