"""The consistent-hash exchange: one destination a message, shares as weighted, few moves of messages."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.properties import BasicProperties
from brokers.engine.core.model.hashing import MessageHeaders
from brokers.engine.core.model.routing import needs_headers, route
from tests.unit.model.topology.support import Client, Cluster

KEYS = [f"key-{i}" for i in range(3000)]


def declare(client: Client, weights: dict[str, str], **arguments: object) -> None:
    client.ok(m.ExchangeDeclare(exchange="h", type="x-consistent-hash", arguments=arguments))
    for queue, weight in weights.items():
        client.ok(m.QueueDeclare(queue=queue, durable=True))
        client.ok(m.QueueBind(queue=queue, exchange="h", routing_key=weight))


def shares(cluster: Cluster) -> dict[str, str]:
    chosen = {}
    for key in KEYS:
        (chosen[key],) = cluster.routed("h", key)
    return chosen


def test_shares_follow_the_weights(cluster: Cluster, client: Client) -> None:
    declare(client, {"a": "1", "b": "1", "c": "2"})
    counts = Counter(shares(cluster).values())
    assert counts["a"] == pytest.approx(750, rel=0.15)
    assert counts["b"] == pytest.approx(750, rel=0.15)
    assert counts["c"] == pytest.approx(1500, rel=0.15)


def test_only_the_messages_of_a_binding_move_with_it(cluster: Cluster, client: Client) -> None:
    declare(client, {"a": "1", "b": "1", "c": "1"})
    before = shares(cluster)
    client.ok(m.QueueUnbind(queue="c", exchange="h", routing_key="1"))
    after = shares(cluster)
    assert all(before[key] in (after[key], "c") for key in KEYS)
    client.ok(m.QueueBind(queue="c", exchange="h", routing_key="1"))
    assert shares(cluster) == before


def test_a_copy_of_the_metadata_chooses_alike(cluster: Cluster, client: Client) -> None:
    declare(client, {"a": "1", "b": "3"})
    before = shares(cluster)
    cluster.metadata.restore(cluster.metadata.snapshot())
    assert shares(cluster) == before


def test_without_bindings_nothing_is_reached(cluster: Cluster, client: Client) -> None:
    declare(client, {})
    assert cluster.routed("h", "k") == set()


def test_hash_header(cluster: Cluster, client: Client) -> None:
    declare(client, {"a": "1", "b": "1"}, **{"hash-header": "id"})
    assert needs_headers(cluster.metadata.state.vhosts["/"], "h")
    chosen = {value: cluster.routed("h", "any", {"id": value}) for value in range(50)}
    assert len(set(map(frozenset, chosen.values()))) == 2
    assert all(cluster.routed("h", "other", {"id": value}) == found for value, found in chosen.items())
    assert cluster.routed("h", "x") == cluster.routed("h", "y")


def test_hash_property(cluster: Cluster, client: Client) -> None:
    declare(client, {"a": "1", "b": "1"}, **{"hash-property": "correlation_id"})
    vhost = cluster.metadata.state.vhosts["/"]
    chosen = set()
    for i in range(50):
        headers = partial(MessageHeaders, BasicProperties(correlation_id=f"c{i}"), {})
        found = route(vhost, "h", "k", headers)
        assert found == route(vhost, "h", "other", headers)
        chosen.add(found[0].name)
    assert chosen == {"a", "b"}


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        ("0", "The binding key must be greater than 0"),
        ("-1", "The binding key must be greater than 0"),
        ("many", 'The binding key must be an integer: <<"many">>'),
        ("", 'The binding key must be an integer: <<"">>'),
    ],
)
def test_weights_are_checked(cluster: Cluster, client: Client, weight: str, text: str) -> None:
    declare(client, {"a": "1"})
    refusal = client.refused(m.ExchangeBind(destination="amq.fanout", source="h", routing_key=weight))
    assert refusal == f"406 PRECONDITION_FAILED - {text}"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"hash-property": "app_id"}, "Unsupported property: app_id"),
        (
            {"hash-property": "message_id", "hash-header": "h"},
            "hash-header and hash-property are mutually exclusive",
        ),
    ],
)
def test_arguments_are_checked(client: Client, arguments: dict[str, object], text: str) -> None:
    refusal = client.refused(m.ExchangeDeclare(exchange="h", type="x-consistent-hash", arguments=arguments))
    assert refusal == f"406 PRECONDITION_FAILED - {text}"
