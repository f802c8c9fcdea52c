"""The metadata as a replicated state machine."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.engine.core.amqp.table import Timestamp
from brokers.engine.core.model import commands
from brokers.engine.core.model.commands import Command
from brokers.engine.core.model.events import (
    NodeChanged,
    NodeRemoved,
    QueueChanged,
    QueueCreated,
    QueueDeleted,
    Reason,
    UserChanged,
    UserDeleted,
    VHostCreated,
    VHostDeleted,
)
from brokers.engine.core.model.metadata import Metadata, UnknownCommand
from brokers.engine.core.model.topology import Binding, Exchange, Kind, QueueInfo
from tests.unit.model.topology.support import HASH, NODES, Cluster

names = st.sampled_from(["a", "b", "c"])
vhosts = st.sampled_from(["/", "/", "/", "other"])
connections = st.sampled_from(["1", "2"])
keys = st.sampled_from(["", "k", "a.*", "#"])
patterns = st.sampled_from(["", ".*", "^a"])
sources = st.one_of(names, st.sampled_from(["amq.topic", "amq.headers", "amq.direct"]))
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(0, 2**64 - 1).map(Timestamp),
    st.text(max_size=5),
    st.just("\udcff"),
    st.binary(max_size=5),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.just({"$bytes": 1}),
    st.just([{"n": [b"\x00", None]}]),
)
arguments = st.dictionaries(
    st.sampled_from(["x-max-length", "alternate-exchange", "$time", "h"]), values, max_size=2
)


@st.composite
def queues(draw: st.DrawFn) -> Command:
    exclusive = draw(st.one_of(st.none(), connections))
    transient = exclusive is not None or draw(st.booleans())
    queue = QueueInfo(
        vhost=draw(vhosts),
        name=draw(names),
        durable=not transient,
        auto_delete=draw(st.booleans()) and transient,
        exclusive=exclusive,
        arguments=draw(arguments),
        group=0,
        home=draw(st.integers(1, 3)) if transient else None,
    )
    return commands.declare_queue(queue, draw(st.integers(0, 5)), draw(st.sets(st.integers(1, 4))), 1)


bindings = st.builds(Binding, vhosts, sources, st.sampled_from(Kind), names, keys, arguments)
exchanges = st.builds(
    Exchange,
    vhosts,
    names,
    st.sampled_from(["direct", "fanout", "topic", "headers", "no such"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    arguments,
)
any_command = st.one_of(
    queues(),
    st.builds(commands.declare_exchange, exchanges),
    st.builds(commands.bind, bindings, connections),
    st.builds(commands.bind, bindings, connections),
    st.builds(commands.unbind, bindings, connections),
    st.builds(commands.delete_queue, vhosts, names, st.one_of(st.none(), st.integers(1, 9))),
    st.builds(commands.delete_exchange, vhosts, names, st.booleans()),
    st.builds(commands.delete_queues_of_connection, connections),
    st.builds(commands.node_started, st.integers(1, 4), st.integers(10, 12)),
    st.builds(commands.node_gone, st.integers(1, 4), st.integers(10, 12)),
    st.builds(commands.node_lost, st.integers(1, 4), st.integers(10, 12)),
    st.builds(commands.set_vhost, vhosts, st.text(max_size=3)),
    st.just(commands.delete_vhost("other")),
    st.builds(commands.set_user, names, st.sampled_from([None, HASH, ""]), st.just(["monitoring"])),
    st.builds(commands.delete_user, names),
    st.builds(commands.set_permissions, names, vhosts, patterns, patterns, patterns),
    st.builds(commands.clear_permissions, names, vhosts),
    st.builds(commands.add_node, names, st.just({"amqp": "x"}), st.one_of(st.none(), st.integers(1, 6))),
    st.builds(commands.remove_node, st.integers(1, 6)),
    st.builds(
        commands.set_replicas, vhosts, names, st.integers(1, 5), st.lists(st.integers(1, 4), max_size=3)
    ),
)


def check_consistent(metadata: Metadata) -> None:
    """Everything kept twice is the same twice."""
    state = metadata.state
    queues = [queue for vhost in state.vhosts.values() for queue in vhost.queues.values()]
    assert {queue.group: queue for queue in queues} == state.by_group
    for node in range(1, 7):
        members = [queue.replicas or (queue.home,) for queue in queues]
        assert state.replica_counts[node] == sum(node in nodes for nodes in members)
        assert state.leader_counts[node] == sum(node == nodes[0] for nodes in members)
        assert {id(q) for q in state.queues_at(node)} == {id(q) for q in queues if q.home == node}
    for connection in ("1", "2"):
        owned = {queue.group for queue in state.queues_of_connection(connection)}
        assert owned == {queue.group for queue in queues if queue.exclusive == connection}
    for vhost in state.vhosts.values():
        for binding in vhost.bindings:
            assert binding.source in vhost.exchanges
            ends = vhost.queues if binding.kind is Kind.QUEUE else vhost.exchanges
            assert binding.destination in ends
            assert binding in vhost.bindings_from(binding.source)
            assert binding in vhost.bindings_to(binding.target)
        assert sum(len(vhost.bindings_from(name)) for name in vhost.exchanges) == len(vhost.bindings)
        assert vhost.tables.keys() == vhost.exchanges.keys()


@settings(max_examples=120, deadline=None)
@given(st.lists(any_command, max_size=40), st.data())
def test_replicas_agree_whatever_comes(wishes: list[Command], data: st.DataObject) -> None:
    """Two replicas, one of them restored from a snapshot half-way, one told some commands again."""
    one = Cluster()
    for wish in wishes:
        one.commit(wish)
    check_consistent(one.metadata)

    two = Metadata()
    restart = data.draw(st.integers(0, len(one.log)))
    for index, payload in enumerate(one.log):
        if index == restart:
            restored = Metadata()
            restored.restore(two.snapshot())
            assert restored.snapshot() == two.snapshot()
            two = restored
        first = two.apply(commands.decode_command(payload))
        before = two.snapshot()
        again = two.apply(commands.decode_command(payload))
        assert two.snapshot() == before
        assert (again.repeated, again.events) == (True, ())
        assert (str(again.error), again.value) == (str(first.error), first.value)
    assert two.snapshot() == one.metadata.snapshot()
    assert two.digest() == one.metadata.digest()
    check_consistent(two)


@settings(max_examples=60, deadline=None)
@given(st.lists(any_command, max_size=30))
def test_a_refused_command_leaves_no_trace(wishes: list[Command]) -> None:
    metadata = Cluster().metadata
    for wish in wishes:
        before, generation = metadata.snapshot(), metadata.generation
        result = metadata.apply(wish)
        if result.error is not None or not result.events:
            assert result.events == ()
            assert metadata.generation == generation
        if result.error is not None:
            assert metadata.snapshot() == before


@settings(max_examples=60, deadline=None)
@given(st.lists(any_command, max_size=30), st.lists(any_command, max_size=30))
def test_restore_says_which_queues_came_and_went(before: list[Command], after: list[Command]) -> None:
    """Following the events of a restore leads from the queues known before to those of the snapshot."""
    cluster = Cluster()
    for wish in before:
        cluster.commit(wish)
    behind = Metadata()
    behind.restore(cluster.metadata.snapshot())
    known = dict(behind.state.by_group)
    for wish in after:
        cluster.commit(wish)
    for event in behind.restore(cluster.metadata.snapshot()):
        match event:
            case QueueCreated(info):
                assert info.group not in known
                known[info.group] = info
            case QueueDeleted(info, _):
                del known[info.group]
            case QueueChanged(old, new):
                assert known[old.group] == old
                known[new.group] = new
    assert known == cluster.metadata.state.by_group


def test_restore_says_what_else_changed() -> None:
    cluster = Cluster()
    empty = Metadata()
    events = empty.restore(cluster.metadata.snapshot())
    assert VHostCreated("/") in events
    assert UserChanged("guest") in events
    assert {event.node for event in events if isinstance(event, NodeChanged)} == set(
        empty.state.nodes.values()
    )
    back = empty.restore(Metadata().snapshot())
    assert VHostDeleted("/") in back
    assert UserDeleted("guest") in back
    assert len([event for event in back if isinstance(event, NodeRemoved)]) == 3
    assert empty.restore(empty.snapshot()) == []


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "Expecting value"),
        (b"\xff{}", "codec can't decode"),
        (b"[]", "not a snapshot"),
        (b'{"format": 99}', "format 99; this program reads format 1"),
        (b'{"format": 1}', "damaged metadata snapshot"),
        (b'{"format": 1, "cluster": "", "next_group": 1, "next_node": 1, "vhosts": [1]}', "damaged"),
    ],
)
def test_an_unreadable_snapshot_is_refused_and_changes_nothing(data: bytes, text: str) -> None:
    metadata = Cluster().metadata
    before = metadata.snapshot()
    with pytest.raises(ValueError, match=text):
        metadata.restore(data)
    assert metadata.snapshot() == before


def test_an_unknown_command_stops_the_node() -> None:
    """To go on without what others apply would be to differ from them for ever."""
    with pytest.raises(UnknownCommand, match="'fly' is unknown: this node is too old"):
        Metadata().apply({"op": "fly", "id": [1, 1]})


@pytest.mark.parametrize(
    "command",
    [
        {"op": "declare_queue"},
        {"op": "bind", "vhost": 5},
        {"op": "node_started", "node": True, "boot": 1},
        {"op": "set_replicas", "vhost": "/", "name": "q", "group": 1, "replicas": ["1"]},
        {"op": "add_node", "name": "x", "addresses": {"amqp": 5}},
        {"op": "delete_queue", "vhost": "/", "name": "q", "reason": "boredom"},
    ],
)
def test_a_malformed_command_is_refused_by_all_alike(command: Command) -> None:
    metadata = Cluster().metadata
    before = metadata.snapshot()
    assert "malformed metadata command" in str(metadata.apply(command).error)
    assert metadata.snapshot() == before


json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.sampled_from(["/", "a", "$decimal"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["$bytes", "$decimal", "$time", "$table", "nodes"]), inner, max_size=2
        ),
    ),
)


@settings(max_examples=150, deadline=None)
@given(any_command, st.data())
def test_a_command_with_anything_in_it_is_refused_or_applied(command: Command, data: st.DataObject) -> None:
    """A peer's nonsense must not stop every node of the cluster at once."""
    metadata = Cluster().metadata
    field = data.draw(st.sampled_from([*command, "id", "low"]).filter(lambda key: key != "op"))
    before = metadata.snapshot()
    result = metadata.apply({**commands.stamp(command, 5, 1), field: data.draw(json_values)})
    if result.error is not None:
        assert result.events == ()
        metadata.state.sessions = Cluster().metadata.state.sessions  # the answer alone is remembered
        assert metadata.snapshot() == before
    restored = Metadata()
    restored.restore(metadata.snapshot())
    assert restored.snapshot() == metadata.snapshot()


@pytest.mark.parametrize("payload", [b"", b"5", b"{}", b'{"op": 5}', b"\x80"])
def test_what_is_no_command_is_not_decoded(payload: bytes) -> None:
    with pytest.raises(ValueError, match=".+"):
        commands.decode_command(payload)


def test_generation_rises_with_what_routes_depend_on(cluster: Cluster) -> None:
    def rises(command: Command) -> bool:
        before = cluster.metadata.generation
        assert cluster.commit(command).error is None
        return cluster.metadata.generation > before

    binding = Binding("/", "amq.topic", Kind.EXCHANGE, "amq.fanout", "k")
    assert rises(commands.bind(binding, "1"))
    assert not rises(commands.bind(binding, "1"))
    assert rises(commands.unbind(binding, "1"))
    assert rises(commands.set_user("ann", HASH))
    assert not rises(commands.set_user("ann", HASH))
    assert not rises(commands.add_node("node4", {}))


def test_bootstrap_happens_once(cluster: Cluster) -> None:
    before = cluster.metadata.state.users
    assert cluster.commit(commands.bootstrap("test", "root", HASH, NODES)).value == {"created": False}
    refused = cluster.commit(commands.bootstrap("another", "root", HASH, NODES))
    assert "this cluster is 'test' already, not 'another'" in str(refused.error)
    assert cluster.metadata.state.users == before


def test_nodes_come_and_go(cluster: Cluster) -> None:
    assert cluster.commit(commands.add_node("node4", {})).value == 4
    assert cluster.commit(commands.add_node("node4", {"amqp": "here"}, 4)).value == 4
    assert "name 'node4' is taken by node 4" in str(cluster.commit(commands.add_node("node4", {})).error)
    assert cluster.commit(commands.remove_node(4)).error is None
    assert "ids are not used again" in str(cluster.commit(commands.add_node("again", {}, 4)).error)
    assert cluster.commit(commands.add_node("node4", {})).value == 5
    assert str(cluster.commit(commands.remove_node(9)).error) == "404 NOT_FOUND - no node 9 in the cluster"


def test_a_node_with_replicas_cannot_be_removed(cluster: Cluster) -> None:
    queue = QueueInfo("/", "q", True, False, None, {}, 0, replicas=(1, 2))
    cluster.commit(commands.declare_queue(queue))
    refused = cluster.commit(commands.remove_node(2))
    assert "node 2 still has replicas of 1 queues: move them first" in str(refused.error)
    moved = cluster.commit(commands.set_replicas("/", "q", 1, [1, 3]))
    assert [type(event) for event in moved.events] == [QueueChanged]
    assert cluster.commit(commands.remove_node(2)).error is None


@pytest.mark.parametrize(
    ("group", "replicas", "text"),
    [
        (2, [1], "was deleted and declared again meanwhile"),
        (1, [], "must be one or more different nodes"),
        (1, [1, 1], "must be one or more different nodes"),
        (1, [1, 9], "node 9 is not in the cluster"),
    ],
)
def test_replicas_that_cannot_be(cluster: Cluster, group: int, replicas: list[int], text: str) -> None:
    queue = QueueInfo("/", "q", True, False, None, {}, 0, replicas=(1, 2))
    cluster.commit(commands.declare_queue(queue))
    assert text in str(cluster.commit(commands.set_replicas("/", "q", group, replicas)).error)


def test_a_new_process_has_lost_the_transient_queues_and_commands_of_the_old(cluster: Cluster) -> None:
    state = cluster.metadata.state
    cluster.commit(commands.node_started(2, 20))
    for name, home in (("here", 2), ("there", 3)):
        queue = QueueInfo("/", name, False, False, None, {}, 0, home=home)
        cluster.metadata.apply(commands.stamp(commands.declare_queue(queue), 20, home))
    restarted = cluster.commit(commands.node_started(2, 21))
    gone = [event for event in restarted.events if isinstance(event, QueueDeleted)]
    assert [(event.info.name, event.reason) for event in gone] == [("here", Reason.NODE_GONE)]
    assert cluster.queue("there") is not None
    assert state.nodes[2].boot == 21

    late = commands.stamp(
        commands.declare_queue(QueueInfo("/", "late", False, False, None, {}, 0, home=2)), 20, 9
    )
    assert "comes from a process that is over" in str(cluster.metadata.apply(late).error)
    assert cluster.queue("late") is None
    assert cluster.commit(commands.node_gone(2, 20)).events == ()
    assert cluster.commit(commands.node_gone(2, 21)).error is None


def test_vhosts(cluster: Cluster) -> None:
    assert cluster.commit(commands.set_vhost("v", "first")).value == {"created": True}
    assert cluster.commit(commands.set_vhost("v", "second")).value == {"created": False}
    assert cluster.metadata.state.vhosts["v"].description == "second"
    queue = QueueInfo("v", "q", True, False, None, {}, 0, replicas=(1,))
    cluster.commit(commands.declare_queue(queue))
    cluster.commit(commands.bind(Binding("v", "amq.topic", Kind.QUEUE, "q", "#"), "1"))
    events = cluster.commit(commands.delete_vhost("v")).events
    assert [event.reason for event in events if isinstance(event, QueueDeleted)] == [Reason.VHOST_DELETED]
    assert events[-1] == VHostDeleted("v")
    assert str(cluster.commit(commands.delete_vhost("v")).error) == "530 NOT_ALLOWED - vhost v not found"
    for name in ("", "v" * 256):
        assert cluster.commit(commands.set_vhost(name)).error is not None


def test_a_user_keeps_what_is_not_given(cluster: Cluster) -> None:
    users = cluster.metadata.state.users
    cluster.commit(commands.set_user("ann", HASH, ["operator"]))
    cluster.commit(commands.set_user("ann", tags=["monitoring"]))
    assert (users["ann"].password_hash, users["ann"].tags) == (HASH, ("monitoring",))
    cluster.commit(commands.set_user("ann", ""))
    assert (users["ann"].password_hash, users["ann"].tags) == ("", ("monitoring",))
    for make in (
        lambda: commands.set_user("ann", "plain"),
        lambda: commands.bootstrap("new", "ann", "plain"),
    ):
        with pytest.raises(ValueError, match="not a password hash"):
            make()
    assert str(cluster.commit(commands.delete_user("bob")).error) == "404 NOT_FOUND - no user 'bob'"


def test_no_live_node_no_replicated_queue(cluster: Cluster) -> None:
    queue = QueueInfo("/", "q", True, False, None, {}, 0)
    refused = cluster.commit(commands.declare_queue(queue, 3, [7], 1))
    assert "no node of the cluster can take a replica of the queue now" in str(refused.error)


def test_snapshots_are_compact_json() -> None:
    value = json.loads(Cluster().metadata.snapshot())
    assert value["format"] == 1
