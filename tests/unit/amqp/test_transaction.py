"""Transactions: nothing happens before the commit, all of it by the commit, none after a rollback."""

from __future__ import annotations

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.frames import method_frame
from brokers.engine.core.amqp.port import Outcome
from tests.unit.amqp.recording import Client, delivery, opened, publish, split_frames


def transactional() -> Client:
    client = opened()
    assert client.exchange(m.TxSelect()) == [m.TxSelectOk()]
    return client


def consuming(client: Client, messages: int) -> None:
    client.exchange(m.BasicConsume("q", "c"))
    client.broker.consumers[0].deliver([delivery(position) for position in range(messages)])
    client.output()


def test_publishes_wait_for_the_commit_and_the_commit_for_their_queues() -> None:
    client = transactional()
    client.receive(publish(1, b"one") + publish(1, b"two"))
    assert client.broker.of("publish") == []
    assert client.exchange(m.TxCommit()) == []
    sent = client.broker.of("publish")
    assert [(call[2], call[5]) for call in sent] == [(1, b"one"), (2, b"two")]
    channel = client.connection.channels[1]
    channel.confirmed(1, 1)
    assert client.methods() == []
    channel.confirmed(2, 2)
    assert client.methods() == [(1, m.TxCommitOk())]


def test_an_empty_commit_is_answered_at_once() -> None:
    assert transactional().exchange(m.TxCommit()) == [m.TxCommitOk()]


def test_what_follows_a_commit_waits_for_it_and_is_of_the_next_transaction() -> None:
    client = transactional()
    client.receive(publish(1, b"one"))
    assert client.exchange(m.TxCommit(), publish(1, b"two"), m.TxCommit()) == []
    assert len(client.broker.of("publish")) == 1
    client.connection.channels[1].confirmed(1, 1)
    assert client.methods() == [(1, m.TxCommitOk())]
    assert [call[2] for call in client.broker.of("publish")] == [1, 2]
    client.connection.channels[1].confirmed(2, 2)
    assert client.methods() == [(1, m.TxCommitOk())]


def test_a_rollback_forgets_publishes() -> None:
    client = transactional()
    client.receive(publish(1, b"one"))
    assert client.connection.assembling == 3
    assert client.exchange(m.TxRollback()) == [m.TxRollbackOk()]
    assert client.connection.assembling == 0
    assert client.exchange(m.TxCommit()) == [m.TxCommitOk()]
    assert client.broker.of("publish") == []


def test_acknowledgements_wait_for_the_commit_too() -> None:
    client = transactional()
    consuming(client, 4)
    assert client.exchange(m.BasicAck(2, multiple=True), m.BasicReject(3, requeue=False)) == []
    assert client.broker.settled() == []
    assert client.exchange(m.TxCommit()) == [m.TxCommitOk()]
    assert client.broker.settled() == [
        ("c", 0, Outcome.ACK),
        ("c", 1, Outcome.ACK),
        ("c", 2, Outcome.REJECT),
    ]
    assert list(client.connection.channels[1].unacked) == [4]


def test_after_a_rollback_messages_are_unacknowledged_as_before() -> None:
    client = transactional()
    consuming(client, 2)
    assert client.exchange(m.BasicAck(1), m.TxRollback()) == [m.TxRollbackOk()]
    assert client.exchange(m.BasicAck(1), m.TxCommit()) == [m.TxCommitOk()]
    assert client.broker.settled() == [("c", 0, Outcome.ACK)]


def test_a_tag_is_settled_once_in_a_transaction() -> None:
    client = transactional()
    consuming(client, 1)
    (close,) = client.exchange(m.BasicAck(1), m.BasicAck(1))
    assert isinstance(close, m.ChannelClose)
    assert close.reply_text == "PRECONDITION_FAILED - unknown delivery tag 1"


def test_acknowledgements_take_effect_only_when_the_publishes_are_safe() -> None:
    client = transactional()
    consuming(client, 1)
    client.exchange(publish(1), m.BasicAck(1), m.TxCommit())
    assert client.broker.settled() == []
    client.connection.channels[1].confirmed(1, 1)
    assert client.broker.settled() == [("c", 0, Outcome.ACK)]


def test_a_refused_publish_fails_the_commit() -> None:
    client = transactional()
    consuming(client, 1)
    client.exchange(publish(1), publish(1), m.BasicAck(1), m.TxCommit())
    client.connection.channels[1].refused(1, 1)
    client.connection.channels[1].confirmed(2, 2)
    assert client.methods() == [
        (1, m.ChannelClose(406, "PRECONDITION_FAILED - partial tx completion", 90, 20))
    ]
    assert client.broker.settled() == []


def test_recover_leaves_alone_what_is_acknowledged_in_the_transaction() -> None:
    client = transactional()
    consuming(client, 3)
    assert client.exchange(m.BasicAck(2), m.BasicRecover(True)) == [m.BasicRecoverOk()]
    assert client.broker.settled() == [("c", 0, Outcome.REQUEUE), ("c", 2, Outcome.REQUEUE)]


def test_recover_async_is_not_answered() -> None:
    client = opened()
    consuming(client, 1)
    assert client.exchange(m.BasicRecoverAsync(True)) == []
    assert client.broker.settled() == [("c", 0, Outcome.REQUEUE)]


def test_closing_the_channel_drops_the_transaction() -> None:
    client = transactional()
    consuming(client, 1)
    client.receive(publish(1, b"12345"))
    client.exchange(m.BasicAck(1), m.ChannelClose(200, "", 0, 0))
    assert client.broker.of("publish") == []
    assert client.broker.settled() == []
    assert client.connection.assembling == 0


def test_an_exchange_gone_before_the_commit_makes_mandatory_messages_return() -> None:
    client = transactional()
    client.broker.keep_routes = False
    client.receive(publish(1, b"x", exchange="logs", mandatory=True))
    client.broker.exchanges.discard("logs")
    client.receive(method_frame(1, m.TxCommit()))
    names = [type(m.decode_method(p)).__name__ for k, _, p in split_frames(client.output()) if k == 1]
    assert names == ["BasicReturn", "TxCommitOk"]


def test_update_secret_is_acknowledged() -> None:
    client = opened()
    assert client.exchange(m.ConnectionUpdateSecret(b"new", "because"), channel=0) == [
        m.ConnectionUpdateSecretOk()
    ]
