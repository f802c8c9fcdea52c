"""Permissions, method by method."""

from __future__ import annotations

import pytest

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.errors import AmqpError
from brokers.engine.core.model import commands
from brokers.engine.core.model.handlers import publishable, usable_queue
from tests.unit.model.topology.support import HASH, Cluster

DLX: dict[str, object] = {"x-dead-letter-exchange": "dlx"}
ALTERNATE: dict[str, object] = {"alternate-exchange": "spare"}

TABLE = [
    (m.QueueDeclare(queue="new"), {"configure": "new"}),
    (m.QueueDeclare(queue="q", durable=True), {"configure": "q"}),
    (m.QueueDeclare(queue="new", arguments=DLX), {"configure": "new", "read": "new", "write": "dlx"}),
    (m.QueueDelete(queue="q"), {"configure": "q"}),
    (m.QueuePurge(queue="q"), {"read": "q"}),
    (m.QueueBind(queue="q", exchange="x"), {"write": "q", "read": "x"}),
    (m.QueueUnbind(queue="q", exchange="x"), {"write": "q", "read": "x"}),
    (m.ExchangeDeclare(exchange="new"), {"configure": "new"}),
    (
        m.ExchangeDeclare(exchange="new", arguments=ALTERNATE),
        {"configure": "new", "read": "new", "write": "spare"},
    ),
    (m.ExchangeDelete(exchange="x"), {"configure": "x"}),
    (m.ExchangeBind(destination="y", source="x"), {"write": "y", "read": "x"}),
    (m.ExchangeUnbind(destination="y", source="x"), {"write": "y", "read": "x"}),
]


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster()
    admin = cluster.client()
    admin.ok(m.QueueDeclare(queue="q", durable=True))
    admin.ok(m.ExchangeDeclare(exchange="x"))
    admin.ok(m.ExchangeDeclare(exchange="y"))
    cluster.commit(commands.set_user("ann", HASH))
    return cluster


def grant(cluster: Cluster, **patterns: str) -> None:
    rights = {"configure": "", "write": "", "read": "", **patterns}
    result = cluster.commit(commands.set_permissions("ann", "/", **rights))
    assert result.error is None


@pytest.mark.parametrize(("method", "needed"), TABLE)
def test_what_is_needed_is_enough_and_nothing_less_will_do(
    cluster: Cluster, method: m.Method, needed: dict[str, str]
) -> None:
    exact = {right: f"^{name}$" for right, name in needed.items()}
    for missing in needed:
        grant(cluster, **{right: pattern for right, pattern in exact.items() if right != missing})
        name = needed[missing]
        kind = (
            "queue" if name == "q" or (name == "new" and isinstance(method, m.QueueDeclare)) else "exchange"
        )
        assert cluster.client(user="ann").refused(method) == (
            f"403 ACCESS_REFUSED - access to {kind} '{name}' in vhost '/' refused for user 'ann'"
        )
    grant(cluster, **exact)
    cluster.client(user="ann").ok(method)


@pytest.mark.parametrize("right", ["configure", "write", "read"])
def test_any_right_will_do_for_a_passive_declaration(cluster: Cluster, right: str) -> None:
    client = cluster.client(user="ann")
    for method in (m.QueueDeclare(queue="q", passive=True), m.ExchangeDeclare(exchange="x", passive=True)):
        grant(cluster)
        assert client.refused(method).startswith("403 ACCESS_REFUSED - access to ")
        grant(cluster, **{right: ".*"})
        client.ok(method)


def test_without_any_permission(cluster: Cluster) -> None:
    assert cluster.client(user="ann").refused(m.QueueDeclare(queue="new")) == (
        "403 ACCESS_REFUSED - access to queue 'new' in vhost '/' refused for user 'ann'"
    )
    with pytest.raises(AmqpError) as error:
        cluster.metadata.check_open("ann", "/")
    assert str(error.value) == "530 NOT_ALLOWED - access to vhost '/' refused for user 'ann'"
    grant(cluster)
    cluster.metadata.check_open("ann", "/")
    with pytest.raises(AmqpError) as error:
        cluster.metadata.check_open("ann", "/none")
    assert str(error.value) == "530 NOT_ALLOWED - vhost /none not found"


def test_publishing_and_reading(cluster: Cluster) -> None:
    ann = cluster.client(user="ann").context
    grant(cluster, write="^x$")
    publishable(cluster.metadata, "/", "ann", "x")
    with pytest.raises(
        AmqpError, match=r"access to exchange 'amq.default' in vhost '/' refused for user 'ann'"
    ):
        publishable(cluster.metadata, "/", "ann", "")
    with pytest.raises(AmqpError, match="access to queue 'q' in vhost '/' refused"):
        usable_queue(cluster.metadata, ann, "q")
    grant(cluster, write=r"^amq\.default$", read="q")
    publishable(cluster.metadata, "/", "ann", "")
    assert usable_queue(cluster.metadata, ann, "q").name == "q"


def test_patterns_are_searched_for_and_an_empty_one_matches_no_name(cluster: Cluster) -> None:
    grant(cluster, configure="bc")
    cluster.client(user="ann").ok(m.QueueDeclare(queue="abcd"))
    grant(cluster, configure="")
    cluster.client(user="ann").refused(m.QueueDeclare(queue="abcd"))


def test_a_malformed_pattern_makes_no_command() -> None:
    with pytest.raises(AmqpError, match=r"406 PRECONDITION_FAILED - invalid regular expression '\(': "):
        commands.set_permissions("ann", "/", "(", "", "")


def test_a_pattern_that_only_another_version_understands_matches_nothing(cluster: Cluster) -> None:
    command = commands.set_permissions("ann", "/", "", "", "")
    assert cluster.commit({**command, "configure": "("}).error is None
    assert cluster.client(user="ann").refused(m.QueueDeclare(queue="(")).startswith("403")


def test_permissions_go_when_cleared_or_with_user_or_vhost(cluster: Cluster) -> None:
    state = cluster.metadata.state
    cluster.commit(commands.set_vhost("other"))
    for command in (
        commands.clear_permissions("ann", "other"),
        commands.delete_vhost("other"),
        commands.delete_user("ann"),
    ):
        cluster.commit(commands.set_vhost("other"))
        assert cluster.commit(commands.set_permissions("ann", "other", ".*", ".*", ".*")).error is None
        assert "other" in state.permissions["ann"]
        before = cluster.metadata.generation
        assert cluster.commit(command).error is None
        assert "ann" not in state.permissions
        assert cluster.metadata.generation > before
