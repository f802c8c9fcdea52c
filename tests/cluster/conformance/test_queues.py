"""Queues: declaring, passive, exclusive, server-named, auto-delete, purging, deleting."""

from __future__ import annotations

import pytest

from tests.cluster.conformance.conftest import Place
from tests.cluster.conformance.driver import Refused


def test_declare_again_and_passive(place: Place) -> None:
    queue = place.queue()
    channel = place.channel(confirm=True)
    assert channel("queue_declare", name=queue, durable=True)["messages"] == "0"
    channel.publish(queue, "one")
    assert channel.confirmed()
    place.move(queue)
    found = channel("queue_declare", name=queue, passive=True)
    assert (found["name"], found["messages"], found["consumers"]) == (queue, "1", "0")


def test_unequal_declaration(place: Place) -> None:
    queue = place.queue()
    channel = place.channel()
    place.move(queue)
    with pytest.raises(Refused) as refused:
        channel("queue_declare", name=queue, durable=False)
    assert refused.value.code == 406
    assert refused.value.text == (
        f"PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{queue}' in vhost '/': "
        "received 'false' but current is 'true'"
    )


def test_passive_declaration_of_nothing(place: Place) -> None:
    name = place.name()
    with pytest.raises(Refused) as refused:
        place.channel()("queue_declare", name=name, passive=True)
    assert (refused.value.code, refused.value.text) == (404, f"NOT_FOUND - no queue '{name}' in vhost '/'")


def test_server_named_and_exclusive(place: Place) -> None:
    mine = place.connection()
    channel = place.channel(connection=mine)
    name = channel("queue_declare", name="", exclusive=True)["name"]
    assert name.startswith("amq.gen-")
    for verb in ("queue_declare", "consume"):
        with pytest.raises(Refused) as refused:
            place.channel()(
                verb, **({"name": name, "passive": True} if verb == "queue_declare" else {"queue": name})
            )
        assert refused.value.code == 405
        assert refused.value.text.startswith(
            f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}' in vhost '/'"
        )
    place.driver.call("disconnect", c=mine)
    with pytest.raises(Refused) as refused:
        place.channel()("queue_declare", name=name, passive=True)
    assert refused.value.code == 404


def test_names_of_exclusive_queues_are_free_once_their_connection_is_closed(place: Place) -> None:
    name = place.name()
    for _ in range(5):
        mine = place.connection()
        channel = place.channel(connection=mine)
        channel("queue_declare", name=name, exclusive=True)
        channel("consume", queue=name)
        place.driver.call("disconnect", c=mine)


def test_auto_delete_goes_with_its_last_consumer(place: Place) -> None:
    channel = place.channel()
    for _ in range(5):
        name = channel("queue_declare", name=place.name(), auto_delete=True)["name"]
        tag = channel("consume", queue=name)["tag"]
        channel("cancel", tag=tag)
        with pytest.raises(Refused) as refused:
            place.channel()("queue_declare", name=name, passive=True)
        assert refused.value.code == 404


def test_purge(place: Place) -> None:
    queue = place.queue()
    channel = place.channel()
    for i in range(10):
        channel.publish(queue, str(i))
    held = channel("get", queue=queue)["delivery"]
    place.move(queue)
    assert channel("queue_purge", queue=queue)["messages"] == "9"
    assert channel.count(queue) == 0
    channel("nack", delivery=held, requeue=True)
    assert channel("get", queue=queue, no_ack=True)["body"] == "0"


def test_delete_only_if_unused_or_empty(place: Place) -> None:
    queue = place.queue()
    channel = place.channel(confirm=True)
    channel.publish(queue, "one")
    assert channel.confirmed()
    with pytest.raises(Refused) as refused:
        place.channel()("queue_delete", queue=queue, if_empty=True)
    assert refused.value.text == f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty"
    channel("consume", queue=queue)
    channel.event("deliver")
    place.move(queue)
    with pytest.raises(Refused) as refused:
        place.channel()("queue_delete", queue=queue, if_unused=True)
    assert refused.value.text == f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' in use"
    place.channel()("queue_delete", queue=queue)
    assert channel.event("cancel")["event"] == "cancel"
    with pytest.raises(Refused) as refused:
        place.channel()("queue_declare", name=queue, passive=True)
    assert refused.value.code == 404


def test_deleting_counts_messages_and_what_is_not_there_is_no_error(place: Place) -> None:
    queue = place.queue()
    channel = place.channel()
    channel.publish(queue, "one")
    channel.publish(queue, "two")
    place.move(queue)
    assert channel("queue_delete", queue=queue)["messages"] == "2"
    assert channel("queue_delete", queue=queue)["messages"] == "0"
