"""From an exchange and a key to queues."""

from __future__ import annotations

import pytest

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.model.routing import needs_headers, route
from tests.unit.model.topology.support import Client, Cluster


def declare(client: Client, *queues: str) -> None:
    for queue in queues:
        client.ok(m.QueueDeclare(queue=queue, durable=True))


def exchange(client: Client, name: str, type_: str = "fanout", **arguments: object) -> None:
    client.ok(m.ExchangeDeclare(exchange=name, type=type_, arguments=arguments))


def bind(client: Client, source: str, queue: str, key: str = "", **arguments: object) -> None:
    client.ok(m.QueueBind(queue=queue, exchange=source, routing_key=key, arguments=arguments))


def link(client: Client, source: str, destination: str, key: str = "") -> None:
    client.ok(m.ExchangeBind(destination=destination, source=source, routing_key=key))


def test_default_exchange_leads_to_the_queue_of_that_name(cluster: Cluster, client: Client) -> None:
    declare(client, "q")
    assert cluster.routed("", "q") == {"q"}
    assert cluster.routed("", "other") == set()


def test_direct(cluster: Cluster, client: Client) -> None:
    declare(client, "q1", "q2")
    bind(client, "amq.direct", "q1", "k")
    bind(client, "amq.direct", "q2", "k")
    bind(client, "amq.direct", "q2", "other")
    assert cluster.routed("amq.direct", "k") == {"q1", "q2"}
    assert cluster.routed("amq.direct", "other") == {"q2"}
    assert cluster.routed("amq.direct", "none") == set()


def test_fanout_takes_every_queue_once(cluster: Cluster, client: Client) -> None:
    declare(client, "q1", "q2")
    for key in ("a", "b"):
        bind(client, "amq.fanout", "q1", key)
    bind(client, "amq.fanout", "q2")
    assert cluster.routed("amq.fanout", "whatever") == {"q1", "q2"}
    client.ok(m.QueueUnbind(queue="q1", exchange="amq.fanout", routing_key="a"))
    assert cluster.routed("amq.fanout") == {"q1", "q2"}
    client.ok(m.QueueUnbind(queue="q1", exchange="amq.fanout", routing_key="b"))
    assert cluster.routed("amq.fanout") == {"q2"}


def test_bindings_with_other_arguments_are_other_bindings(cluster: Cluster, client: Client) -> None:
    declare(client, "q")
    bind(client, "amq.topic", "q", "a.*", one=1)
    bind(client, "amq.topic", "q", "a.*", one=2)
    bind(client, "amq.topic", "q", "a.*", one=2)
    client.ok(m.QueueUnbind(queue="q", exchange="amq.topic", routing_key="a.*", arguments={"one": 1}))
    assert cluster.routed("amq.topic", "a.b") == {"q"}
    client.ok(m.QueueUnbind(queue="q", exchange="amq.topic", routing_key="a.*", arguments={"one": 2}))
    assert cluster.routed("amq.topic", "a.b") == set()


@pytest.mark.parametrize(
    ("arguments", "headers", "expected"),
    [
        ({}, {}, True),
        ({"x-match": "any"}, {"a": 1}, False),
        ({"a": 1, "b": "x"}, {"a": 1, "b": "x", "c": 3}, True),
        ({"a": 1, "b": "x"}, {"a": 1}, False),
        ({"x-match": "any", "a": 1, "b": "x"}, {"b": "x"}, True),
        ({"x-match": "any", "a": 1, "b": "x"}, {"a": 2}, False),
        ({"a": None}, {"a": "anything"}, True),
        ({"a": None}, {"b": 1}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": {"n": [1, 2]}}, {"a": {"n": [1, 2]}}, True),
        ({"x-other": 1, "a": 1}, {"a": 1}, True),
        ({"x-match": "all-with-x", "x-other": 1, "a": 1}, {"a": 1}, False),
        ({"x-match": "all-with-x", "x-other": 1, "a": 1}, {"a": 1, "x-other": 1}, True),
        ({"x-match": "any", "x-other": 1}, {"x-other": 1}, False),
        ({"x-match": "any-with-x", "x-other": 1}, {"x-other": 1}, True),
    ],
)
def test_headers(
    cluster: Cluster, client: Client, arguments: dict[str, object], headers: dict[str, object], expected: bool
) -> None:
    declare(client, "q")
    bind(client, "amq.headers", "q", "", **arguments)
    assert cluster.routed("amq.headers", "ignored", headers) == ({"q"} if expected else set())
    client.ok(m.QueueUnbind(queue="q", exchange="amq.headers", arguments=arguments))
    assert cluster.routed("amq.headers", "ignored", headers) == set()


def test_headers_are_parsed_once_and_only_when_needed(cluster: Cluster, client: Client) -> None:
    declare(client, "q")
    vhost = cluster.metadata.state.vhosts["/"]
    calls = []

    def headers() -> dict[str, object]:
        calls.append(1)
        return {"a": 1}

    bind(client, "amq.direct", "q", "k")
    assert route(vhost, "amq.direct", "k", headers)
    assert calls == []
    exchange(client, "entry")
    for name in ("amq.headers", "amq.match"):
        link(client, "entry", name)
        bind(client, name, "q", a=1)
    assert [queue.name for queue in route(vhost, "entry", "", headers)] == ["q"]
    assert calls == [1]


def test_exchange_to_exchange_and_cycles(cluster: Cluster, client: Client) -> None:
    declare(client, "q1", "q2")
    for name in ("a", "b", "c"):
        exchange(client, name)
    link(client, "a", "b")
    link(client, "b", "c")
    link(client, "c", "a")
    link(client, "c", "c")
    bind(client, "b", "q1")
    bind(client, "c", "q1")
    bind(client, "a", "q2")
    for name in ("a", "b", "c"):
        assert cluster.routed(name) == {"q1", "q2"}


def test_alternate_exchange_takes_what_matches_nothing(cluster: Cluster, client: Client) -> None:
    declare(client, "q", "lost")
    exchange(client, "main", "direct", **{"alternate-exchange": "spare"})
    bind(client, "main", "q", "k")
    assert cluster.routed("main", "other") == set(), "a missing alternate is passed over"
    exchange(client, "spare")
    bind(client, "spare", "lost")
    assert cluster.routed("main", "other") == {"lost"}
    assert cluster.routed("main", "k") == {"q"}


def test_alternate_exchanges_may_form_a_circle(cluster: Cluster, client: Client) -> None:
    exchange(client, "a", "direct", **{"alternate-exchange": "b"})
    exchange(client, "b", "direct", **{"alternate-exchange": "a"})
    assert cluster.routed("a", "k") == set()


def test_needs_headers_looks_along_the_whole_way(cluster: Cluster, client: Client) -> None:
    vhost = cluster.metadata.state.vhosts["/"]
    exchange(client, "a")
    exchange(client, "b")
    exchange(client, "c", **{"alternate-exchange": "a"})
    link(client, "a", "b")
    link(client, "b", "a")
    assert not any(needs_headers(vhost, name) for name in ("", "a", "b", "c", "amq.topic", "missing"))
    assert needs_headers(vhost, "amq.headers")
    link(client, "b", "amq.match")
    assert all(needs_headers(vhost, name) for name in ("a", "b", "c"))
    client.ok(m.ExchangeUnbind(destination="amq.match", source="b"))
    assert not needs_headers(vhost, "a")


def test_a_missing_exchange_is_an_error(cluster: Cluster) -> None:
    with pytest.raises(KeyError):
        cluster.routed("missing")


def test_deleted_queues_and_exchanges_are_off_every_route(cluster: Cluster, client: Client) -> None:
    declare(client, "q1", "q2")
    exchange(client, "a")
    exchange(client, "b")
    link(client, "a", "b")
    bind(client, "a", "q1")
    bind(client, "b", "q2")
    bind(client, "amq.topic", "q1", "#")
    client.ok(m.QueueDelete(queue="q1"))
    assert cluster.routed("a") == {"q2"}
    assert cluster.routed("amq.topic", "x") == set()
    client.ok(m.ExchangeDelete(exchange="b"))
    assert cluster.routed("a") == set()
    assert not cluster.metadata.state.vhosts["/"].bindings
