import pytest

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.errors import AmqpError, no_queue, queue_locked
from brokers.engine.core.amqp.frames import method_frame
from tests.unit.amqp.recording import delivery, opened, publish


def channel_error(code: int, text: str, class_id: int, method_id: int) -> m.ChannelClose:
    return m.ChannelClose(code, text, class_id, method_id)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (m.ExchangeDeclare("e"), m.ExchangeDeclareOk()),
        (m.ExchangeDelete("e"), m.ExchangeDeleteOk()),
        (m.ExchangeBind("e", "f", "k"), m.ExchangeBindOk()),
        (m.ExchangeUnbind("e", "f", "k"), m.ExchangeUnbindOk()),
        (m.QueueDeclare("q"), m.QueueDeclareOk("q", 0, 0)),
        (m.QueueBind("q", "e", "k"), m.QueueBindOk()),
        (m.QueueUnbind("q", "e", "k"), m.QueueUnbindOk()),
        (m.QueuePurge("q"), m.QueuePurgeOk(0)),
        (m.QueueDelete("q"), m.QueueDeleteOk(0)),
    ],
)
def test_topology_is_the_brokers(method: m.Method, answer: m.Method) -> None:
    client = opened()
    assert client.exchange(method) == [answer]
    assert client.broker.calls == [("call", 1, method)]


@pytest.mark.parametrize(
    "method",
    [
        m.ExchangeDeclare("e", nowait=True),
        m.ExchangeDelete("e", nowait=True),
        m.ExchangeBind("e", "f", nowait=True),
        m.ExchangeUnbind("e", "f", nowait=True),
        m.QueueDeclare("q", nowait=True),
        m.QueueBind("q", "e", nowait=True),
        m.QueuePurge("q", nowait=True),
        m.QueueDelete("q", nowait=True),
        m.BasicConsume("q", "t", nowait=True),
        m.BasicCancel("t", nowait=True),
        m.ConfirmSelect(nowait=True),
    ],
)
def test_nowait_suppresses_the_answer(method: m.Method) -> None:
    client = opened()
    assert client.exchange(method) == []
    assert client.exchange(m.QueueDeclare("next")) == [m.QueueDeclareOk("next")]


def test_an_error_closes_the_channel_and_it_is_deaf_until_close_ok() -> None:
    client = opened(1, 2)
    client.broker.replies[m.QueueDeclare] = no_queue("x", "/")
    assert client.exchange(m.QueueDeclare("x", passive=True)) == [
        channel_error(404, "NOT_FOUND - no queue 'x' in vhost '/'", 50, 10)
    ]
    assert client.exchange(m.QueueDeclare("y"), publish(1), m.ChannelOpen()) == []
    assert client.broker.calls == [("call", 1, m.QueueDeclare("x", passive=True)), ("release", 1, [])]
    assert client.exchange(m.ChannelCloseOk()) == []
    assert client.exchange(m.ChannelOpen()) == [m.ChannelOpenOk()]
    assert client.exchange(m.QueueBind("q", "e"), channel=2) == [m.QueueBindOk()]


def test_an_error_with_nowait_closes_all_the_same() -> None:
    client = opened()
    client.broker.replies[m.QueueDelete] = queue_locked("x", "/")
    (close,) = client.exchange(m.QueueDelete("x", nowait=True))
    assert isinstance(close, m.ChannelClose)
    assert close.reply_code == 405


def test_an_error_of_the_connections_scope_closes_the_connection() -> None:
    client = opened()
    client.broker.replies[m.ExchangeDeclare] = AmqpError(503, "COMMAND_INVALID - unknown exchange type 'x'")
    assert client.exchange(m.ExchangeDeclare("e", "x")) == [
        m.ConnectionClose(503, "COMMAND_INVALID - unknown exchange type 'x'", 40, 10)
    ]
    assert client.broker.calls[-2:] == [("release", 1, []), ("closed",)]


def test_both_sides_may_close_a_channel_at_once() -> None:
    client = opened()
    client.broker.replies[m.QueueDelete] = no_queue("x", "/")
    client.exchange(m.QueueDelete("x"))
    assert client.exchange(m.ChannelClose(200, "bye")) == [m.ChannelCloseOk()]
    assert client.exchange(m.ChannelCloseOk(), m.ChannelOpen()) == [m.ChannelOpenOk()]


def test_a_channel_closes_and_opens_again_afresh() -> None:
    client = opened()
    client.exchange(m.QueueDeclare("q"), m.ConfirmSelect(), m.BasicConsume("q", "t"))
    client.broker.consumers[0].deliver([delivery(4)])
    assert client.exchange(m.ChannelClose(200, "bye"))[-1] == m.ChannelCloseOk()
    assert client.broker.calls[-1] == ("release", 1, ["t"])
    client.exchange(m.ChannelOpen(), publish(1))
    assert client.broker.of("publish")[0][2] == 0
    (close,) = client.exchange(m.QueuePurge(""))
    assert isinstance(close, m.ChannelClose)


def test_an_empty_queue_name_means_the_last_declared() -> None:
    client = opened()
    client.exchange(m.QueueDeclare("", exclusive=True, nowait=True))
    client.exchange(
        m.QueueBind("", "e", ""),
        m.QueueBind("", "e", "k"),
        m.QueueUnbind("", "e", "k"),
        m.QueuePurge(""),
        m.BasicConsume("", "t"),
        m.BasicGet(""),
        m.QueueDelete(""),
    )
    name = "amq.gen-1"
    assert [call[2] for call in client.broker.calls[1:]] == [
        m.QueueBind(name, "e", name),
        m.QueueBind(name, "e", "k"),
        m.QueueUnbind(name, "e", "k"),
        m.QueuePurge(name),
        m.BasicConsume(name, "t"),
        m.BasicGet(name),
        m.QueueDelete(name),
    ]


@pytest.mark.parametrize(
    "method",
    [
        m.QueueBind("", "e"),
        m.QueueUnbind("", "e"),
        m.QueuePurge(""),
        m.QueueDelete(""),
        m.BasicConsume(""),
        m.BasicGet(""),
    ],
)
def test_without_a_declared_queue_an_empty_name_is_not_found(method: m.Method) -> None:
    client = opened()
    assert client.exchange(method) == [
        channel_error(404, "NOT_FOUND - no previously declared queue", method.class_id, method.method_id)
    ]
    assert client.broker.calls == [("release", 1, [])]


def test_a_busy_channel_waits_while_others_go_on() -> None:
    client = opened(1, 2)
    client.broker.hold = True
    assert client.exchange(m.QueueDeclare("a"), m.QueueDeclare("b"), publish(1), m.BasicQos(0, 5)) == []
    assert client.broker.calls == [("call", 1, m.QueueDeclare("a"))]
    assert client.exchange(m.BasicQos(), channel=2) == [m.BasicQosOk()]
    client.receive(publish(2))
    assert [call[1] for call in client.broker.of("publish")] == [2]

    client.broker.answer()
    assert client.woken == 1
    assert client.methods() == [(1, m.QueueDeclareOk("a"))]
    assert [call[1] for call in client.broker.of("publish")] == [2]
    client.broker.answer()
    assert client.methods() == [(1, m.QueueDeclareOk("b")), (1, m.BasicQosOk())]
    assert [call[1] for call in client.broker.of("publish")] == [2, 1]
    client.receive(publish(1))
    assert len(client.broker.of("publish")) == 3


def test_too_much_waiting_pauses_the_connection() -> None:
    client = opened(max_waiting=10_000)
    client.broker.hold = True
    client.exchange(m.QueueDeclare("a"))
    client.receive(publish(1, bytes(9000)))
    assert not client.connection.paused
    client.receive(publish(1, bytes(9000)))
    assert client.connection.paused
    client.broker.answer()
    assert not client.connection.paused
    assert client.woken
    assert len(client.broker.of("publish")) == 2


def test_the_driver_is_woken_to_read_on_even_if_there_is_nothing_to_write() -> None:
    client = opened(max_waiting=10)
    client.broker.hold = True
    client.exchange(m.QueueDeclare("a", nowait=True), publish(1))
    assert client.connection.paused
    client.broker.answer()
    assert client.output() == b""
    assert client.woken


def test_what_waited_is_dropped_when_the_channel_closes() -> None:
    client = opened(max_waiting=10)
    client.broker.hold = True
    client.broker.replies[m.QueueDeclare] = no_queue("a", "/")
    client.exchange(m.QueueDeclare("a"), publish(1))
    assert client.connection.paused
    client.broker.answer()
    assert not client.connection.paused
    assert client.broker.of("publish") == []


def test_an_error_among_what_waited_closes_the_channel() -> None:
    client = opened()
    client.broker.hold = True
    client.exchange(m.QueueDeclare("a"), m.BasicAck(5), m.QueueDeclare("b"))
    client.broker.answer()
    assert client.methods() == [
        (1, m.QueueDeclareOk("a")),
        (1, channel_error(406, "PRECONDITION_FAILED - unknown delivery tag 5", 60, 80)),
    ]
    assert client.broker.waiting == []


def test_answers_to_a_closed_channel_go_nowhere() -> None:
    client = opened(1, 2)
    client.broker.hold = True
    client.exchange(m.QueueDeclare("a"))
    client.exchange(m.BasicConsume("a", "t"), channel=2)
    client.connection.lost()
    client.output()
    client.broker.answer()
    client.broker.answer()
    assert client.output() == b""
    assert client.broker.of("release") == [("release", 1, []), ("release", 2, ["t"])]


def test_an_answer_given_twice_is_a_bug_that_shows() -> None:
    client = opened()
    client.broker.hold = True
    client.exchange(m.QueueDeclare("a"))
    answer = client.broker.waiting[0]
    answer()
    with pytest.raises(RuntimeError, match="answered a call twice"):
        answer()


def test_errors_the_broker_raises_are_as_good_as_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened()

    def refuse(*_: object) -> None:
        raise no_queue("x", "/")

    monkeypatch.setattr(client.broker, "call", refuse)
    assert client.exchange(m.QueuePurge("x")) == [
        channel_error(404, "NOT_FOUND - no queue 'x' in vhost '/'", 50, 30)
    ]


def test_flow_is_rabbitmqs() -> None:
    client = opened()
    assert client.exchange(m.ChannelFlow(True)) == [m.ChannelFlowOk(True)]
    assert client.exchange(m.ChannelFlow(False)) == [
        m.ConnectionClose(540, "NOT_IMPLEMENTED - active=false", 20, 20)
    ]


def test_tickets_are_given_to_who_asks() -> None:
    assert opened().exchange(m.AccessRequest()) == [m.AccessRequestOk(1)]


@pytest.mark.parametrize(
    ("before", "method", "code", "text"),
    [
        (m.ConfirmSelect(), m.TxSelect(), 406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode"),
        (m.TxSelect(), m.ConfirmSelect(), 406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode"),
        (m.BasicQos(), m.TxCommit(), 406, "PRECONDITION_FAILED - channel is not transactional"),
        (m.BasicQos(), m.TxRollback(), 406, "PRECONDITION_FAILED - channel is not transactional"),
    ],
)
def test_transactions_and_confirms_exclude_each_other(
    before: m.Method, method: m.Method, code: int, text: str
) -> None:
    client = opened()
    client.exchange(before)
    assert client.exchange(method) == [channel_error(code, text, method.class_id, method.method_id)]


def test_methods_for_several_channels_in_one_read() -> None:
    client = opened(1, 2, 3)
    client.receive(b"".join(method_frame(number, m.BasicQos()) for number in (3, 1, 2, 1)))
    assert [number for number, _ in client.methods()] == [3, 1, 2, 1]
