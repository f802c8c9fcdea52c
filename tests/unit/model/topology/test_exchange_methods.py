"""exchange.declare and exchange.delete, and bindings."""

from __future__ import annotations

import pytest

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.errors import AmqpError
from brokers.engine.core.model import commands
from brokers.engine.core.model.events import ExchangeDeleted
from brokers.engine.core.model.handlers import publishable
from brokers.engine.core.model.metadata import Metadata
from brokers.engine.core.model.topology import Exchange
from tests.unit.model.topology.support import Client, Cluster


def exchanges(cluster: Cluster) -> set[str]:
    return {name for name in cluster.metadata.state.vhosts["/"].exchanges if not name.startswith("amq.")}


def test_predeclared(client: Client) -> None:
    for name, type_ in (
        ("amq.direct", "direct"),
        ("amq.fanout", "fanout"),
        ("amq.topic", "topic"),
        ("amq.headers", "headers"),
        ("amq.match", "headers"),
    ):
        assert client.ok(m.ExchangeDeclare(exchange=name, passive=True)) == m.ExchangeDeclareOk()
        client.ok(m.ExchangeDeclare(exchange=name, type=type_, durable=True))
    assert client.committed == []


def test_unknown_type(client: Client) -> None:
    error = client.call(m.ExchangeDeclare(exchange="x", type="magic"))
    assert isinstance(error, AmqpError)
    assert (str(error), error.scope) == ("406 PRECONDITION_FAILED - unknown exchange type 'magic'", "channel")


@pytest.mark.parametrize(
    ("again", "text"),
    [
        (m.ExchangeDeclare(exchange="x", type="fanout", durable=True), "'type'|'fanout'|'topic'"),
        (m.ExchangeDeclare(exchange="x", type="topic"), "'durable'|'false'|'true'"),
        (
            m.ExchangeDeclare(exchange="x", type="topic", durable=True, auto_delete=True),
            "'auto_delete'|'true'|'false'",
        ),
        (
            m.ExchangeDeclare(exchange="x", type="topic", durable=True, internal=True),
            "'internal'|'true'|'false'",
        ),
        (
            m.ExchangeDeclare(
                exchange="x", type="topic", durable=True, arguments={"alternate-exchange": "y"}
            ),
            "'alternate-exchange'|the value 'y' of type 'longstr'|none",
        ),
    ],
)
def test_inequivalent(client: Client, again: m.ExchangeDeclare, text: str) -> None:
    client.ok(m.ExchangeDeclare(exchange="x", type="topic", durable=True))
    argument, received, current = text.split("|")
    assert client.refused(again) == (
        f"406 PRECONDITION_FAILED - inequivalent arg {argument} for exchange 'x' in vhost '/': "
        f"received {received} but current is {current}"
    )


def test_unknown_arguments_are_not_compared(client: Client) -> None:
    client.ok(m.ExchangeDeclare(exchange="x", arguments={"mine": 1}))
    client.ok(m.ExchangeDeclare(exchange="x", arguments={"mine": 2}))


def test_alternate_exchange_must_be_a_name(client: Client) -> None:
    assert client.refused(m.ExchangeDeclare(exchange="x", arguments={"alternate-exchange": False})) == (
        "406 PRECONDITION_FAILED - invalid type 'bool' for arg 'alternate-exchange' in exchange 'x' "
        "in vhost '/'"
    )


def test_names_that_are_not_a_client_s_to_use(client: Client) -> None:
    assert client.refused(m.ExchangeDeclare(exchange="amq.mine")) == (
        "403 ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'"
    )
    assert client.refused(m.ExchangeDelete(exchange="amq.topic")) == (
        "403 ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '/' not allowed"
    )
    refused = "403 ACCESS_REFUSED - operation not permitted on the default exchange"
    for method in (
        m.ExchangeDeclare(exchange=""),
        m.ExchangeDeclare(exchange="", passive=True),
        m.ExchangeDelete(exchange=""),
        m.ExchangeBind(destination="", source="amq.topic"),
        m.ExchangeBind(destination="amq.topic", source=""),
        m.QueueBind(queue="q", exchange=""),
        m.QueueUnbind(queue="q", exchange=""),
    ):
        assert client.refused(method) == refused


def test_delete(cluster: Cluster, client: Client) -> None:
    client.ok(m.ExchangeDeclare(exchange="x"))
    client.ok(m.QueueDeclare(queue="q"))
    client.ok(m.QueueBind(queue="q", exchange="x"))
    assert client.refused(m.ExchangeDelete(exchange="x", if_unused=True)) == (
        "406 PRECONDITION_FAILED - exchange 'x' in vhost '/' in use"
    )
    assert client.ok(m.ExchangeDelete(exchange="x")) == m.ExchangeDeleteOk()
    assert client.ok(m.ExchangeDelete(exchange="x")) == m.ExchangeDeleteOk()
    assert exchanges(cluster) == set()


def test_nowait_has_no_answer(client: Client) -> None:
    for method in (
        m.ExchangeDeclare(exchange="x", nowait=True),
        m.ExchangeDeclare(exchange="x", passive=True, nowait=True),
        m.ExchangeBind(destination="x", source="amq.topic", nowait=True),
        m.ExchangeUnbind(destination="x", source="amq.topic", nowait=True),
        m.ExchangeDelete(exchange="x", nowait=True),
    ):
        assert client.ok(method) is None


def test_binding_needs_both_ends(client: Client) -> None:
    client.ok(m.QueueDeclare(queue="q"))
    for method, missing in (
        (m.QueueBind(queue="q", exchange="x"), "exchange 'x'"),
        (m.QueueBind(queue="p", exchange="amq.topic"), "queue 'p'"),
        (m.ExchangeBind(destination="x", source="amq.topic"), "exchange 'x'"),
        (m.ExchangeBind(destination="amq.topic", source="x"), "exchange 'x'"),
    ):
        assert client.refused(method) == f"404 NOT_FOUND - no {missing} in vhost '/'"


def test_binding_twice_and_unbinding_what_is_not_bound(cluster: Cluster, client: Client) -> None:
    client.ok(m.QueueDeclare(queue="q"))
    bind = m.QueueBind(queue="q", exchange="amq.direct", routing_key="k", arguments={"a": 1, "b": b"\xff"})
    assert client.ok(bind) == m.QueueBindOk()
    commits = len(client.committed)
    assert client.ok(bind) == m.QueueBindOk()
    assert (
        client.ok(m.QueueUnbind(queue="q", exchange="amq.direct", routing_key="other")) == m.QueueUnbindOk()
    )
    assert client.ok(m.QueueUnbind(queue="none", exchange="nowhere")) == m.QueueUnbindOk()
    assert len(client.committed) == commits
    assert len(cluster.metadata.state.vhosts["/"].bindings) == 1
    unbind = m.QueueUnbind(
        queue="q", exchange="amq.direct", routing_key="k", arguments={"b": b"\xff", "a": 1}
    )
    client.ok(unbind)
    assert not cluster.metadata.state.vhosts["/"].bindings


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("some", "Invalid x-match field value 'some'; expected all, any, all-with-x, or any-with-x"),
        (1, "Invalid x-match field type signedint (value 1); expected longstr"),
    ],
)
def test_x_match_is_checked_for_headers_exchanges(client: Client, mode: object, text: str) -> None:
    client.ok(m.QueueDeclare(queue="q"))
    bind = m.QueueBind(queue="q", exchange="amq.headers", arguments={"x-match": mode})
    assert client.refused(bind) == f"406 PRECONDITION_FAILED - {text}"
    client.ok(m.QueueBind(queue="q", exchange="amq.topic", arguments={"x-match": mode}))


def test_auto_delete_goes_with_its_last_binding(cluster: Cluster, client: Client) -> None:
    client.ok(m.ExchangeDeclare(exchange="x", auto_delete=True))
    client.ok(m.QueueDeclare(queue="q"))
    client.ok(m.QueueBind(queue="q", exchange="x", routing_key="a"))
    client.ok(m.QueueBind(queue="q", exchange="x", routing_key="b"))
    client.ok(m.QueueUnbind(queue="q", exchange="x", routing_key="a"))
    assert exchanges(cluster) == {"x"}
    client.ok(m.QueueUnbind(queue="q", exchange="x", routing_key="b"))
    assert exchanges(cluster) == set()


def test_auto_delete_falls_like_dominoes(cluster: Cluster, client: Client) -> None:
    for name in ("a", "b", "c"):
        client.ok(m.ExchangeDeclare(exchange=name, auto_delete=True))
    client.ok(m.ExchangeDeclare(exchange="kept"))
    client.ok(m.QueueDeclare(queue="q"))
    client.ok(m.ExchangeBind(destination="b", source="a"))
    client.ok(m.ExchangeBind(destination="c", source="b"))
    client.ok(m.ExchangeBind(destination="c", source="kept"))
    client.ok(m.QueueBind(queue="q", exchange="c"))
    client.ok(m.QueueDelete(queue="q"))
    assert exchanges(cluster) == {"kept"}
    gone = [event.exchange.name for event in cluster.events if isinstance(event, ExchangeDeleted)]
    assert sorted(gone) == ["a", "b", "c"]
    assert not cluster.metadata.state.vhosts["/"].bindings


def test_an_exchange_bound_to_itself_can_go(cluster: Cluster, client: Client) -> None:
    client.ok(m.ExchangeDeclare(exchange="x", auto_delete=True))
    client.ok(m.ExchangeBind(destination="x", source="x"))
    client.ok(m.ExchangeDelete(exchange="x"))
    assert exchanges(cluster) == set()


def test_publishable(cluster: Cluster, client: Client) -> None:
    client.ok(m.ExchangeDeclare(exchange="inner", internal=True))
    for exchange in ("", "amq.topic"):
        assert publishable(cluster.metadata, "/", "guest", exchange).name == "/"
    for exchange, text in (
        ("none", "404 NOT_FOUND - no exchange 'none' in vhost '/'"),
        ("inner", "403 ACCESS_REFUSED - cannot publish to internal exchange 'inner' in vhost '/'"),
    ):
        with pytest.raises(AmqpError) as error:
            publishable(cluster.metadata, "/", "guest", exchange)
        assert str(error.value) == text


def test_a_type_of_a_newer_version_is_kept_and_leads_nowhere(cluster: Cluster, client: Client) -> None:
    """As every node keeps it, a snapshot of any node is one of all."""
    assert cluster.commit(commands.declare_exchange(Exchange("/", "x", "x-future"))).error is None
    client.ok(m.QueueDeclare(queue="q"))
    client.ok(m.QueueBind(queue="q", exchange="x"))
    assert cluster.routed("x") == set()
    restored = Metadata()
    restored.restore(cluster.metadata.snapshot())
    assert restored.snapshot() == cluster.metadata.snapshot()
    client.ok(m.QueueUnbind(queue="q", exchange="x"))
    client.ok(m.ExchangeDelete(exchange="x"))


def test_other_methods_are_not_handled_here(client: Client) -> None:
    assert client.refused(m.BasicQos()).startswith("540 NOT_IMPLEMENTED")
