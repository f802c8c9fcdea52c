"""Delayed exchanges: who waits, where, and that nobody sees it."""

from __future__ import annotations

import pytest

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.model import commands
from brokers.engine.core.model.delayed import MAX_DELAY, delay_of
from brokers.engine.core.model.routing import route
from brokers.engine.core.model.topology import DELAY_QUEUE
from tests.unit.model.topology.support import Client, Cluster


def declare(client: Client, name: str = "later", type_: str = "direct", **properties: bool) -> None:
    arguments: dict[str, object] = {"x-delayed-type": type_}
    client.ok(m.ExchangeDeclare(exchange=name, type="x-delayed-message", arguments=arguments, **properties))


def bind(client: Client, queue: str, key: str = "k", exchange: str = "later") -> None:
    client.ok(m.QueueDeclare(queue=queue, durable=True))
    client.ok(m.QueueBind(queue=queue, exchange=exchange, routing_key=key))


def delayed(cluster: Cluster, exchange: str, headers: dict[str, object]) -> list[tuple[str, str]]:
    found = route(cluster.metadata.state.vhosts["/"], exchange, "k", lambda: headers)
    return [(queue.type, queue.name) for queue in found]


def test_only_a_message_with_a_delay_waits(cluster: Cluster, client: Client) -> None:
    declare(client)
    bind(client, "q")
    assert delayed(cluster, "later", {"x-delay": 5}) == [(DELAY_QUEUE, "later")]
    assert delayed(cluster, "later", {}) == [("classic", "q")]
    for value in (0, -5, "soon"):
        assert delayed(cluster, "later", {"x-delay": value}) == [("classic", "q")]


def test_the_type_delayed_for_decides_where_it_goes(cluster: Cluster, client: Client) -> None:
    declare(client, type_="topic")
    bind(client, "q", "a.#")
    assert cluster.routed("later", "a.b") == {"q"}
    assert cluster.routed("later", "b") == set()


def test_delays_on_the_way_through_other_exchanges(cluster: Cluster, client: Client) -> None:
    declare(client)
    bind(client, "q")
    bind(client, "now", "", "amq.fanout")
    client.ok(m.ExchangeBind(destination="later", source="amq.fanout"))
    assert sorted(delayed(cluster, "amq.fanout", {"x-delay": 5})) == [
        ("classic", "now"),
        (DELAY_QUEUE, "later"),
    ]


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        *((5, 5), ("5", 5), (5.5, 5), (True, 0), (None, 0), ([], 0), ("x", 0)),
        *((MAX_DELAY, MAX_DELAY), (MAX_DELAY + 1, 0), (float("nan"), 0), (-1, 0)),
    ],
)
def test_delays(value: object, milliseconds: int) -> None:
    assert delay_of({"x-delay": value}) == milliseconds


def test_what_waits_is_no_queue_to_clients(cluster: Cluster, client: Client) -> None:
    declare(client)
    assert cluster.queue("later") is None
    assert client.refused(m.QueuePurge(queue="later")).startswith("404")
    assert client.refused(m.QueueDeclare(queue="later", passive=True)).startswith("404")
    assert cluster.routed("", "later") == set()
    (waiting,) = cluster.metadata.state.queues()
    assert waiting.replicas == (1, 2, 3)


def test_its_replicas_can_be_moved(cluster: Cluster, client: Client) -> None:
    declare(client)
    (waiting,) = cluster.metadata.state.queues()
    assert cluster.commit(commands.set_replicas("/", "later", waiting.group, [2, 3])).error is None
    assert cluster.metadata.state.vhosts["/"].delays["later"].replicas == (2, 3)


@pytest.mark.parametrize("end", ["delete", "auto-delete", "vhost"])
def test_what_waits_goes_with_the_exchange(cluster: Cluster, client: Client, end: str) -> None:
    declare(client, auto_delete=end == "auto-delete")
    bind(client, "q")
    if end == "delete":
        client.ok(m.ExchangeDelete(exchange="later"))
    elif end == "auto-delete":
        client.ok(m.QueueDelete(queue="q"))
    else:
        cluster.commit(commands.delete_vhost("/"))
    assert [queue.name for queue in cluster.metadata.state.queues() if queue.type == DELAY_QUEUE] == []


def test_a_snapshot_keeps_what_waits(cluster: Cluster, client: Client) -> None:
    declare(client)
    bind(client, "q")
    digest = cluster.metadata.digest()
    cluster.metadata.restore(cluster.metadata.snapshot())
    assert cluster.metadata.digest() == digest
    assert delayed(cluster, "later", {"x-delay": 5}) == [(DELAY_QUEUE, "later")]


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (
            {},
            "406 PRECONDITION_FAILED - Invalid argument, 'x-delayed-type' must be an existing exchange type",
        ),
        (
            {"x-delayed-type": "x-delayed-message"},
            "406 PRECONDITION_FAILED - Invalid argument, 'x-delayed-message' can't be used for "
            "'x-delayed-type'",
        ),
        ({"x-delayed-type": "odd"}, "406 PRECONDITION_FAILED - unknown exchange type 'odd'"),
    ],
)
def test_arguments_are_checked(client: Client, arguments: dict[str, object], refusal: str) -> None:
    declaration = m.ExchangeDeclare(exchange="later", type="x-delayed-message", arguments=arguments)
    assert client.refused(declaration) == refusal


def test_another_delayed_type_does_not_fit(client: Client) -> None:
    declare(client)
    declaration = m.ExchangeDeclare(
        exchange="later", type="x-delayed-message", arguments={"x-delayed-type": "topic"}
    )
    assert client.refused(declaration).startswith(
        "406 PRECONDITION_FAILED - inequivalent arg 'x-delayed-type'"
    )
