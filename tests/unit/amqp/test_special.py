"""Messages whose headers say more than their route: recognised on both ways in, never remembered."""

from __future__ import annotations

import pytest

from brokers.engine.core.amqp.properties import BasicProperties
from tests.unit.amqp.recording import opened, publish, route

SPECIAL = [
    BasicProperties(headers={"CC": ["a"]}),
    BasicProperties(headers={"x": 1, "BCC": ["a"]}),
    BasicProperties(reply_to="amq.rabbitmq.reply-to"),
]


@pytest.mark.parametrize("properties", SPECIAL)
@pytest.mark.parametrize("pieces", [1, 1 << 20])
def test_the_broker_is_asked_for_each(properties: BasicProperties, pieces: int) -> None:
    client = opened()
    data = publish(1, properties=properties) * 2 + publish(1)
    for start in range(0, len(data), pieces):
        client.receive(data[start : start + pieces])
    assert [call[1] for call in client.broker.of("resolve_special")] == [route("", "q")] * 2
    assert len(client.broker.of("publish")) == 3


@pytest.mark.parametrize(
    "properties",
    [
        BasicProperties(headers={"C": ["a"]}),
        BasicProperties(reply_to="q"),
        BasicProperties(correlation_id="amq.rabbitmq.reply-to"),
    ],
)
def test_ordinary_messages_are_not(properties: BasicProperties) -> None:
    client = opened()
    client.receive(publish(1, properties=properties))
    assert client.broker.of("resolve_special") == []
