"""queue.declare, queue.delete and queue.purge."""

from __future__ import annotations

import pytest

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.model import commands
from brokers.engine.core.model.events import QueueCreated, QueueDeleted, Reason
from tests.unit.model.topology.support import Client, Cluster

LOCKED = (
    "405 RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be "
    "originally declared on another connection or the exclusive property value does not match that of the "
    "original declaration."
)


def test_a_durable_queue_is_replicated(cluster: Cluster, client: Client) -> None:
    assert client.ok(m.QueueDeclare(queue="q", durable=True)) == m.QueueDeclareOk(queue="q")
    queue = cluster.queue("q")
    assert queue is not None
    assert (queue.replicas, queue.home, queue.group) == ((1, 2, 3), None, 1)
    assert cluster.events[-1] == QueueCreated(queue)


@pytest.mark.parametrize(
    "declaration",
    [
        m.QueueDeclare(queue="q"),
        m.QueueDeclare(queue="q", durable=True, exclusive=True),
        m.QueueDeclare(queue="q", durable=True, auto_delete=True),
    ],
)
def test_other_queues_live_on_the_client_s_node(cluster: Cluster, declaration: m.QueueDeclare) -> None:
    cluster.client(node=2).ok(declaration)
    queue = cluster.queue("q")
    assert queue is not None
    assert (queue.replicas, queue.home) == ((), 2)
    assert queue.exclusive == ("connection-1" if declaration.exclusive else None)


def test_group_size_is_asked_for_and_limited_by_the_nodes_there_are(cluster: Cluster, client: Client) -> None:
    for name, size, expected in (("one", 1, 1), ("two", 2, 2), ("seven", 7, 3)):
        arguments: dict[str, object] = {"x-quorum-initial-group-size": size}
        client.ok(m.QueueDeclare(queue=name, durable=True, arguments=arguments))
        queue = cluster.queue(name)
        assert queue is not None
        assert len(queue.replicas) == expected


def test_replicas_go_to_live_nodes_only(cluster: Cluster, client: Client) -> None:
    cluster.live = (1, 3)
    client.ok(m.QueueDeclare(queue="q", durable=True))
    queue = cluster.queue("q")
    assert queue is not None
    assert sorted(queue.replicas) == [1, 3]


def test_leaders_are_spread(cluster: Cluster, client: Client) -> None:
    for number in range(30):
        client.ok(m.QueueDeclare(queue=f"q{number}", durable=True))
    assert cluster.metadata.state.leader_counts == {1: 10, 2: 10, 3: 10}
    assert cluster.metadata.state.replica_counts == {1: 30, 2: 30, 3: 30}


def test_server_named(cluster: Cluster, client: Client) -> None:
    assert client.ok(m.QueueDeclare(exclusive=True)) == m.QueueDeclareOk(queue="amq.gen-1")
    named = client.ok(m.QueueDeclare(arguments={"x-name-prefix": "mine"}))
    assert named == m.QueueDeclareOk(queue="mine-2")
    assert "exceeds the 64-byte limit" in client.refused(
        m.QueueDeclare(arguments={"x-name-prefix": "p" * 65})
    )


def test_declaring_again_answers_with_counts(client: Client) -> None:
    client.ok(m.QueueDeclare(queue="q", durable=True))
    client.counts = (7, 2)
    for again in (m.QueueDeclare(queue="q", durable=True), m.QueueDeclare(queue="q", passive=True)):
        assert client.ok(again) == m.QueueDeclareOk(queue="q", message_count=7, consumer_count=2)
    assert len(client.committed) == 1


def test_line_ends_in_names_are_dropped(cluster: Cluster, client: Client) -> None:
    client.ok(m.QueueDeclare(queue="q\r\n\n1"))
    assert cluster.queue("q1") is not None


def test_passive_of_a_missing_queue(client: Client) -> None:
    assert (
        client.refused(m.QueueDeclare(queue="q", passive=True)) == "404 NOT_FOUND - no queue 'q' in vhost '/'"
    )


def test_reserved_names(client: Client) -> None:
    assert client.refused(m.QueueDeclare(queue="amq.mine")) == (
        "403 ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'"
    )
    client.ok(m.QueueDeclare(exclusive=True))
    client.ok(m.QueueDeclare(queue="amq.gen-1", passive=True))


@pytest.mark.parametrize(
    ("again", "text"),
    [
        (
            m.QueueDeclare(queue="q"),
            "arg 'durable' for queue 'q' in vhost '/': received 'false' but current is 'true'",
        ),
        (
            m.QueueDeclare(queue="q", durable=True, auto_delete=True),
            "arg 'auto_delete' for queue 'q' in vhost '/': received 'true' but current is 'false'",
        ),
        (
            m.QueueDeclare(queue="q", durable=True),
            "arg 'x-message-ttl' for queue 'q' in vhost '/': received none but current is "
            "the value '1000' of type 'signedint'",
        ),
        (
            m.QueueDeclare(queue="q", durable=True, arguments={"x-message-ttl": 5}),
            "arg 'x-message-ttl' for queue 'q' in vhost '/': received '5' but current is '1000'",
        ),
        (
            m.QueueDeclare(queue="q", durable=True, arguments={"x-message-ttl": 1000, "x-max-length": 2**40}),
            "arg 'x-max-length' for queue 'q' in vhost '/': received the value "
            "'1099511627776' of type 'long' but current is none",
        ),
        (
            m.QueueDeclare(
                queue="q", durable=True, arguments={"x-message-ttl": 1000, "x-queue-type": "quorum"}
            ),
            "arg 'x-queue-type' for queue 'q' in vhost '/': received the value 'quorum' of type "
            "'longstr' but current is none",
        ),
    ],
)
def test_inequivalent(client: Client, again: m.QueueDeclare, text: str) -> None:
    client.ok(m.QueueDeclare(queue="q", durable=True, arguments={"x-message-ttl": 1000}))
    assert client.refused(again) == f"406 PRECONDITION_FAILED - inequivalent {text}"


def test_equivalent_all_the_same(client: Client) -> None:
    client.ok(m.QueueDeclare(queue="q", durable=True, arguments={"x-message-ttl": 1000, "x-mine": 1}))
    client.ok(
        m.QueueDeclare(
            queue="q",
            durable=True,
            arguments={"x-queue-type": "classic", "x-message-ttl": 1000, "x-yours": 2},
        )
    )


def test_exclusive_queues_are_their_connection_s_alone(cluster: Cluster, client: Client) -> None:
    client.ok(m.QueueDeclare(queue="q", exclusive=True))
    client.ok(m.QueueDeclare(queue="q", durable=True, exclusive=True))
    assert client.refused(m.QueueDeclare(queue="q")) == LOCKED
    other = cluster.client("connection-2")
    for method in (
        m.QueueDeclare(queue="q"),
        m.QueueDeclare(queue="q", exclusive=True),
        m.QueueDeclare(queue="q", passive=True),
        m.QueueDelete(queue="q"),
        m.QueuePurge(queue="q"),
        m.QueueBind(queue="q", exchange="amq.fanout"),
    ):
        assert other.refused(method) == LOCKED
    client.ok(m.QueueBind(queue="q", exchange="amq.fanout"))
    assert other.refused(m.QueueUnbind(queue="q", exchange="amq.fanout")) == LOCKED
    client.ok(m.QueueDelete(queue="q"))
    other.ok(m.QueueDeclare(queue="q"))
    assert client.refused(m.QueueDeclare(queue="q", exclusive=True)) == LOCKED


@pytest.mark.parametrize(
    ("arguments", "key", "wrong"),
    [
        ({"x-message-ttl": -1}, "x-message-ttl", "{value_negative,-1}"),
        ({"x-message-ttl": "5"}, "x-message-ttl", "{unacceptable_type,longstr}"),
        ({"x-message-ttl": True}, "x-message-ttl", "{unacceptable_type,bool}"),
        ({"x-message-ttl": 10**12}, "x-message-ttl", "{value_too_large,1000000000000}"),
        ({"x-expires": 0}, "x-expires", "{value_zero,0}"),
        ({"x-expires": 1.5}, "x-expires", "{unacceptable_type,double}"),
        ({"x-max-length": -5}, "x-max-length", "{value_negative,-5}"),
        ({"x-max-length-bytes": None}, "x-max-length-bytes", "{unacceptable_type,void}"),
        ({"x-overflow": "explode"}, "x-overflow", "invalid_overflow"),
        ({"x-dead-letter-routing-key": "k"}, "x-dead-letter-routing-key", "routing_key_but_no_dlx_defined"),
        ({"x-max-priority": 256}, "x-max-priority", "{max_value_exceeded,256}"),
        ({"x-queue-type": "stack"}, "x-queue-type", "\"unsupported queue type 'stack'\""),
        ({"x-queue-version": 3}, "x-queue-version", "\"unsupported queue version '3'\""),
        ({"x-quorum-initial-group-size": 0}, "x-quorum-initial-group-size", "{value_zero,0}"),
        ({"x-single-active-consumer": 1}, "x-single-active-consumer", "{unacceptable_type,signedint}"),
        ({"x-delivery-limit": "many"}, "x-delivery-limit", "{unacceptable_type,longstr}"),
        ({"x-queue-mode": "eager"}, "x-queue-mode", "invalid_queue_mode"),
    ],
)
def test_invalid_arguments(
    cluster: Cluster, client: Client, arguments: dict[str, object], key: str, wrong: str
) -> None:
    assert client.refused(m.QueueDeclare(queue="q", durable=True, arguments=arguments)) == (
        f"406 PRECONDITION_FAILED - invalid arg '{key}' for queue 'q' in vhost '/': {wrong}"
    )
    assert cluster.queue("q") is None


def test_valid_arguments(client: Client) -> None:
    client.ok(
        m.QueueDeclare(
            queue="q",
            durable=True,
            arguments={
                "x-message-ttl": 0,
                "x-expires": 1,
                "x-max-length": 0,
                "x-overflow": "reject-publish-dlx",
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": "k",
                "x-max-priority": 255,
                "x-queue-type": "quorum",
                "x-single-active-consumer": True,
                "x-delivery-limit": 20,
                "x-queue-mode": "lazy",
                "x-unknown": {"anything": [1, None]},
            },
        )
    )


def test_dead_letter_exchange_must_be_a_name(client: Client) -> None:
    declaration = m.QueueDeclare(queue="q", durable=True, arguments={"x-dead-letter-exchange": 5})
    assert client.refused(declaration) == (
        "406 PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'q' in "
        "vhost '/'"
    )


@pytest.mark.parametrize(
    ("properties", "named"),
    [
        ({"durable": False}, "non-durable"),
        ({"durable": True, "auto_delete": True}, "auto-delete"),
        ({"durable": True, "exclusive": True}, "exclusive-owner"),
    ],
)
def test_a_quorum_queue_cannot_be_transient(client: Client, properties: dict[str, bool], named: str) -> None:
    declaration = m.QueueDeclare(queue="q", arguments={"x-queue-type": "quorum"}, **properties)
    assert client.refused(declaration) == (
        f"406 PRECONDITION_FAILED - invalid property '{named}' for queue 'q' in vhost '/'"
    )


def test_delete_says_how_many_messages_went(cluster: Cluster, client: Client) -> None:
    client.ok(m.QueueDeclare(queue="q", durable=True))
    queue = cluster.queue("q")
    assert queue is not None
    client.counts = (3, 1)
    assert client.ok(m.QueueDelete(queue="q")) == m.QueueDeleteOk(message_count=3)
    assert not client.asked[-1].required
    assert cluster.events[-1] == QueueDeleted(queue, Reason.DELETED)
    assert client.ok(m.QueueDelete(queue="q")) == m.QueueDeleteOk(message_count=0)


def test_delete_if_unused_and_if_empty(cluster: Cluster, client: Client) -> None:
    client.ok(m.QueueDeclare(queue="q", durable=True))
    client.counts = (0, 1)
    assert client.refused(m.QueueDelete(queue="q", if_unused=True)) == (
        "406 PRECONDITION_FAILED - queue 'q' in vhost '/' in use"
    )
    assert client.asked[-1].required
    client.counts = (1, 0)
    assert client.refused(m.QueueDelete(queue="q", if_empty=True)) == (
        "406 PRECONDITION_FAILED - queue 'q' in vhost '/' not empty"
    )
    client.ok(m.QueueDelete(queue="q", if_unused=True))
    assert cluster.queue("q") is None


def test_delete_spares_a_later_queue_of_the_same_name(cluster: Cluster, client: Client) -> None:
    client.ok(m.QueueDeclare(queue="q"))
    first = cluster.queue("q")
    assert first is not None
    client.ok(m.QueueDelete(queue="q"))
    client.ok(m.QueueDeclare(queue="q"))
    assert cluster.commit(commands.delete_queue("/", "q", first.group)).value == {"deleted": False}
    assert cluster.queue("q") is not None


def test_purge(client: Client) -> None:
    client.ok(m.QueueDeclare(queue="q"))
    client.counts = (4, 0)
    assert client.ok(m.QueuePurge(queue="q")) == m.QueuePurgeOk(message_count=4)
    assert client.asked[-1].action == "purge"
    assert client.refused(m.QueuePurge(queue="p")) == "404 NOT_FOUND - no queue 'p' in vhost '/'"


def test_an_empty_name_is_the_queue_last_declared(cluster: Cluster, client: Client) -> None:
    client.ok(m.QueueDeclare(queue="q"))
    for method in (m.QueueDelete(), m.QueuePurge(), m.QueueBind(exchange="amq.direct")):
        assert client.refused(method) == "404 NOT_FOUND - no previously declared queue"
    client.last_queue("q").ok(m.QueueBind(exchange="amq.direct"))
    assert cluster.routed("amq.direct", "q") == {"q"}
    client.ok(m.QueueUnbind(exchange="amq.direct"))
    client.ok(m.QueueDelete())
    assert cluster.queue("q") is None


def test_nowait_has_no_answer(client: Client) -> None:
    for method in (
        m.QueueDeclare(queue="q", nowait=True),
        m.QueueDeclare(queue="q", nowait=True),
        m.QueueBind(queue="q", exchange="amq.direct", nowait=True),
        m.QueuePurge(queue="q", nowait=True),
        m.QueueDelete(queue="q", nowait=True),
        m.QueueDelete(queue="q", nowait=True),
    ):
        assert client.ok(method) is None


def test_a_concurrent_declaration_came_first(cluster: Cluster) -> None:
    """Both decided that the queue is new; the log has one of them first."""
    from brokers.engine.core.model.handlers import AskQueue, Commit, decide

    one, two, three = (cluster.client(f"connection-{number}") for number in (1, 2, 3))
    decisions = [
        decide(cluster.metadata, one.context, m.QueueDeclare(queue="q", durable=True)),
        decide(cluster.metadata, two.context, m.QueueDeclare(queue="q", durable=True)),
        decide(cluster.metadata, three.context, m.QueueDeclare(queue="q")),
    ]
    answers = []
    for decision in decisions:
        assert isinstance(decision, Commit)
        answers.append(decision.then(cluster.commit(decision.command)))
    assert answers[0] == m.QueueDeclareOk(queue="q")
    assert isinstance(answers[1], AskQueue)
    assert "inequivalent arg 'durable'" in str(answers[2])


def test_a_closed_connection_takes_its_exclusive_queues(cluster: Cluster, client: Client) -> None:
    client.ok(m.QueueDeclare(queue="mine", exclusive=True))
    client.ok(m.QueueDeclare(queue="kept", durable=True))
    cluster.client("connection-2").ok(m.QueueDeclare(queue="theirs", exclusive=True))
    result = cluster.commit(commands.delete_queues_of_connection("connection-1"))
    assert [
        (event.info.name, event.reason) for event in result.events if isinstance(event, QueueDeleted)
    ] == [("mine", Reason.CONNECTION_CLOSED)]
    assert cluster.queue("kept") is not None
    assert cluster.queue("theirs") is not None
    assert client.refused(m.QueueDeclare(queue="late", exclusive=True)).startswith("405")
    assert cluster.queue("late") is None


def test_a_cluster_takes_so_many_queues(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokers.engine.core.model.handlers.queues.MAX_QUEUES", 1)
    client.ok(m.QueueDeclare(queue="one", durable=True))
    assert client.refused(m.QueueDeclare(queue="two", durable=True)) == (
        "406 PRECONDITION_FAILED - cannot declare queue 'two': the cluster has 1 queues, as many as it may"
    )
    client.ok(m.QueueDeclare(queue="one", durable=True))
