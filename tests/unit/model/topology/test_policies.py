"""Policies, limits of vhosts and topic permissions in the replicated metadata."""

from __future__ import annotations

import pytest

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.errors import AmqpError
from brokers.engine.core.model import commands
from brokers.engine.core.model.events import PoliciesChanged
from brokers.engine.core.model.handlers import publishable
from brokers.engine.core.model.policies import Policy, policy_definition
from brokers.engine.core.model.topology import QueueInfo
from tests.unit.model.topology.support import HASH, Client, Cluster


def declared(cluster: Cluster, client: Client, name: str, **arguments: object) -> QueueInfo:
    client.ok(m.QueueDeclare(queue=name, durable=True, arguments=arguments))
    queue = cluster.queue(name)
    assert queue is not None
    return queue


def definition(cluster: Cluster, queue: QueueInfo) -> dict[str, object]:
    return policy_definition(cluster.metadata.state.vhosts["/"], queue)


def put(cluster: Cluster, name: str, pattern: str, operator: bool = False, **options: object) -> None:
    policy = Policy(name, pattern, **options)  # type: ignore[arg-type]
    assert cluster.commit(commands.set_policy("/", policy, operator)).error is None


def test_the_highest_priority_that_matches_is_in_force(cluster: Cluster, client: Client) -> None:
    queue = declared(cluster, client, "orders.eu")
    put(cluster, "low", "^orders", priority=1, definition={"max-length": 1})
    put(cluster, "high", "eu$", priority=5, definition={"max-length": 5})
    put(cluster, "other", "us$", priority=9, definition={"max-length": 9})
    assert definition(cluster, queue) == {"max-length": 5}
    assert cluster.commit(commands.delete_policy("/", "high")).error is None
    assert definition(cluster, queue) == {"max-length": 1}


def test_apply_to(cluster: Cluster, client: Client) -> None:
    classic = declared(cluster, client, "a")
    quorum = declared(cluster, client, "b", **{"x-queue-type": "quorum"})
    put(cluster, "x", ".*", priority=3, apply_to="exchanges", definition={"alternate-exchange": "amq.fanout"})
    put(cluster, "q", ".*", priority=2, apply_to="quorum_queues", definition={"max-length": 2})
    put(cluster, "all", ".*", apply_to="queues", definition={"max-length": 9})
    assert definition(cluster, classic) == {"max-length": 9}
    assert definition(cluster, quorum) == {"max-length": 2}


def test_an_operator_policy_bounds_the_other(cluster: Cluster, client: Client) -> None:
    queue = declared(cluster, client, "q")
    put(cluster, "p", ".*", definition={"max-length": 100, "message-ttl": 5, "dead-letter-exchange": "d"})
    put(cluster, "op", ".*", True, definition={"max-length": 10, "message-ttl": 50, "expires": 1000})
    assert definition(cluster, queue) == {
        "max-length": 10,
        "message-ttl": 5,
        "dead-letter-exchange": "d",
        "expires": 1000,
    }


def test_changes_are_told_once(cluster: Cluster) -> None:
    put(cluster, "p", ".*", definition={"max-length": 1})
    before = len(cluster.events)
    put(cluster, "p", ".*", definition={"max-length": 1})
    assert len(cluster.events) == before
    cluster.commit(commands.delete_policy("/", "p"))
    assert cluster.events[before:] == [PoliciesChanged("/")]
    error = cluster.commit(commands.delete_policy("/", "p")).error
    assert error is not None
    assert error.code == 404


@pytest.mark.parametrize(
    ("policy", "operator"),
    [
        (Policy("", ".*", definition={"max-length": 1}), False),
        (Policy("p", "(", definition={"max-length": 1}), False),
        (Policy("p", ".*", "some", definition={"max-length": 1}), False),
        (Policy("p", ".*"), False),
        (Policy("p", ".*", definition={"max-length": "many"}), False),
        (Policy("p", ".*", definition={"max-length": -1}), False),
        (Policy("p", ".*", definition={"unheard-of": 1}), False),
        (Policy("p", ".*", definition={"max-priority": 1}), False),
        (Policy("p", ".*", definition={"dead-letter-exchange": "d"}), True),
    ],
)
def test_nonsense_is_refused(policy: Policy, operator: bool) -> None:
    with pytest.raises(AmqpError) as error:
        commands.set_policy("/", policy, operator)
    assert error.value.code == 406


def test_a_policy_gives_an_alternate_exchange(cluster: Cluster, client: Client) -> None:
    declared(cluster, client, "unrouted")
    client.ok(m.QueueBind(queue="unrouted", exchange="amq.fanout"))
    assert cluster.routed("amq.direct", "none") == set()
    put(cluster, "ae", r"^amq\.direct$", definition={"alternate-exchange": "amq.fanout"})
    assert cluster.routed("amq.direct", "none") == {"unrouted"}


def test_everything_survives_a_snapshot(cluster: Cluster, client: Client) -> None:
    queue = declared(cluster, client, "q")
    put(cluster, "p", ".*", definition={"max-length": 7})
    put(cluster, "o", ".*", True, definition={"max-length": 3})
    cluster.commit(commands.set_vhost_limits("/", {"max-queues": 1}))
    cluster.commit(commands.set_topic_permissions("guest", "/", "amq.topic", "^a", "^b"))
    digest = cluster.metadata.digest()
    cluster.metadata.restore(cluster.metadata.snapshot())
    assert cluster.metadata.digest() == digest
    assert definition(cluster, queue) == {"max-length": 3}
    fresh = Cluster()
    events = fresh.metadata.restore(cluster.metadata.snapshot())
    assert PoliciesChanged("/") in events


def test_a_vhost_holds_as_many_queues_as_it_may(cluster: Cluster, client: Client) -> None:
    declared(cluster, client, "one")
    cluster.commit(commands.set_vhost_limits("/", {"max-queues": 1}))
    assert client.refused(m.QueueDeclare(queue="two", durable=True)) == (
        "406 PRECONDITION_FAILED - cannot declare queue 'two': queue limit in vhost '/' (1) is reached"
    )
    client.ok(m.QueueDeclare(queue="one", durable=True))
    cluster.commit(commands.set_vhost_limits("/", {}))
    client.ok(m.QueueDeclare(queue="two", durable=True))


@pytest.mark.parametrize("limits", [{"max-sockets": 1}, {"max-queues": "1"}, {"max-queues": True}])
def test_unknown_limits_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(AmqpError):
        commands.set_vhost_limits("/", limits)


def test_topic_permissions(cluster: Cluster, client: Client) -> None:
    cluster.commit(commands.set_user("anna", HASH))
    cluster.commit(commands.set_permissions("anna", "/", ".*", ".*", ".*"))
    cluster.commit(commands.set_topic_permissions("anna", "/", "amq.topic", r"^{username}\.", "^news"))
    anna = cluster.client("connection-2", "anna")
    anna.ok(m.QueueDeclare(queue="q", durable=True))

    publishable(cluster.metadata, "/", "anna", "amq.topic", ("anna.x",))
    publishable(cluster.metadata, "/", "anna", "amq.direct", ("other",))
    publishable(cluster.metadata, "/", "guest", "amq.topic", ("other",))
    with pytest.raises(AmqpError) as error:
        publishable(cluster.metadata, "/", "anna", "amq.topic", ("anna.x", "other"))
    assert str(error.value) == (
        "403 ACCESS_REFUSED - access to topic 'other' in exchange 'amq.topic' in vhost '/' refused for "
        "user 'anna'"
    )

    anna.ok(m.QueueBind(queue="q", exchange="amq.topic", routing_key="news.#"))
    assert anna.refused(m.QueueBind(queue="q", exchange="amq.topic", routing_key="#")).startswith("403")
    cluster.commit(commands.clear_topic_permissions("anna", "/"))
    anna.ok(m.QueueBind(queue="q", exchange="amq.topic", routing_key="#"))


def test_they_go_with_the_user_and_with_the_vhost(cluster: Cluster) -> None:
    cluster.commit(commands.set_vhost("v"))
    cluster.commit(commands.set_user("anna", HASH))
    for vhost in ("/", "v"):
        cluster.commit(commands.set_topic_permissions("anna", vhost, "amq.topic", "", ""))
    cluster.commit(commands.delete_vhost("v"))
    assert list(cluster.metadata.state.topic_permissions["anna"]) == ["/"]
    cluster.commit(commands.delete_user("anna"))
    assert cluster.metadata.state.topic_permissions == {}
