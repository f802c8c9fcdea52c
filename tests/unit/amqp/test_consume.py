from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.channel import Channel
from brokers.engine.core.amqp.consumer import Consumer
from brokers.engine.core.amqp.errors import exclusive_use, no_queue
from brokers.engine.core.amqp.frames import method_frame
from brokers.engine.core.amqp.port import Outcome
from brokers.engine.core.amqp.properties import BasicProperties, encode_header
from tests.unit.amqp.recording import Client, delivery, handshake, opened, publish, route

ACK, REQUEUE, REJECT = Outcome.ACK, Outcome.REQUEUE, Outcome.REJECT


def consuming(*tags: str, no_ack: bool = False) -> tuple[Client, list[Consumer]]:
    client = opened()
    for tag in tags or ("t",):
        assert client.exchange(m.BasicConsume("q", tag, no_ack=no_ack)) == [m.BasicConsumeOk(tag)]
    return client, client.broker.consumers


def delivered(client: Client) -> list[tuple[str, int]]:
    return [
        (method.consumer_tag, method.delivery_tag)
        for _, method in client.methods()
        if isinstance(method, m.BasicDeliver)
    ]


def unknown_tag(tag: int, class_id: int, method_id: int) -> m.ChannelClose:
    return m.ChannelClose(406, f"PRECONDITION_FAILED - unknown delivery tag {tag}", class_id, method_id)


def test_a_consumer_gets_messages_as_they_were_published() -> None:
    client, (consumer,) = consuming()
    header = encode_header(BasicProperties(message_id="1"), 2)
    consumer.deliver(
        [
            (40, False, route("logs", "a"), header, b"ab"),
            (41, True, route("logs", "a"), header, b"cd"),
            (42, False, route("logs", "long"), header, b"cd"),
            (43, False, route("", "q"), encode_header(BasicProperties(), 0), b""),
        ]
    )
    assert client.woken == 1
    frames = client.frames()
    assert [m.decode_method(payload) for kind, _, payload in frames if kind == 1] == [
        m.BasicDeliver("t", 1, False, "logs", "a"),
        m.BasicDeliver("t", 2, True, "logs", "a"),
        m.BasicDeliver("t", 3, False, "logs", "long"),
        m.BasicDeliver("t", 4, False, "", "q"),
    ]
    assert [(kind, payload) for kind, _, payload in frames if kind != 1] == [
        (2, header), (3, b"ab"), (2, header), (3, b"cd"), (2, header), (3, b"cd"),
        (2, encode_header(BasicProperties(), 0)),
    ]  # fmt: skip
    assert consumer.unsettled == 4
    assert consumer.outstanding() == [40, 41, 42, 43]
    assert client.connection.counts.deliver == 4


@pytest.mark.parametrize("size", [1, 4087, 4088, 4089, 8192, 8193, 20_000])
def test_bodies_are_cut_at_the_clients_frame_size(size: int) -> None:
    client = opened(tune_ok=m.ConnectionTuneOk(10, 4096, 0))
    client.exchange(m.BasicConsume("q", "t"))
    body = bytes(n % 251 for n in range(size))
    client.broker.consumers[0].deliver([delivery(0, body), delivery(1, body), delivery(2, b"x")])
    frames = client.frames()
    assert all(len(payload) <= 4088 for _, _, payload in frames)
    assert b"".join(payload for kind, _, payload in frames if kind == 3) == body + body + b"x"
    assert [m.decode_method(p).delivery_tag for kind, _, p in frames if kind == 1] == [1, 2, 3]  # type: ignore[attr-defined]  # all are basic.deliver


def test_consumers_are_named_by_the_server_if_not_by_the_client() -> None:
    client = opened()
    assert client.exchange(m.BasicConsume("q"), m.BasicConsume("q")) == [
        m.BasicConsumeOk("amq.ctag-token1"),
        m.BasicConsumeOk("amq.ctag-token2"),
    ]
    assert client.broker.calls[0] == ("consume", 1, m.BasicConsume("q", "amq.ctag-token1"))


def test_a_consumer_tag_is_used_once() -> None:
    client, _ = consuming()
    assert client.exchange(m.BasicConsume("q", "t")) == [
        m.ConnectionClose(530, "NOT_ALLOWED - attempt to reuse consumer tag 't'", 60, 20)
    ]


def test_a_channel_has_a_limited_number_of_consumers() -> None:
    client = opened(max_consumers=1)
    client.exchange(m.BasicConsume("q", "t"))
    assert client.exchange(m.BasicConsume("q", "u")) == [
        m.ConnectionClose(530, "NOT_ALLOWED - reached maximum (1) of consumers per channel", 60, 20)
    ]


def test_a_refused_consumer_does_not_exist() -> None:
    client = opened()
    client.broker.replies[m.BasicConsume] = exclusive_use("q", "/")
    assert client.exchange(m.BasicConsume("q", "t", exclusive=True)) == [
        m.ChannelClose(403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use", 60, 20)
    ]
    assert client.broker.calls[-1] == ("release", 1, [])


def test_what_the_client_asked_for_is_on_the_consumer() -> None:
    client = opened()
    client.exchange(m.BasicConsume("q", "t", no_ack=True, exclusive=True, arguments={"x-priority": 5}))
    (consumer,) = client.broker.consumers
    assert (consumer.no_ack, consumer.exclusive, consumer.arguments) == (True, True, {"x-priority": 5})
    assert consumer.handle is None


def test_deliveries_before_consume_ok_wait_for_it() -> None:
    client = opened()
    client.broker.hold = True
    client.exchange(m.BasicConsume("q", "t"))
    (consumer,) = client.broker.consumers
    consumer.deliver([delivery(0)])
    assert client.output() == b""
    assert consumer.outstanding() == [0]
    client.broker.answer()
    assert [type(method) for _, method in client.methods()] == [m.BasicConsumeOk, m.BasicDeliver]


@pytest.mark.parametrize(
    ("sent", "settled"),
    [
        ([m.BasicAck(2)], [(11, ACK)]),
        ([m.BasicAck(3, True)], [(10, ACK), (11, ACK), (12, ACK)]),
        ([m.BasicAck(0, True)], [(10, ACK), (11, ACK), (12, ACK), (13, ACK), (14, ACK)]),
        ([m.BasicAck(2), m.BasicAck(4, True)], [(11, ACK), (10, ACK), (12, ACK), (13, ACK)]),
        ([m.BasicAck(5), m.BasicAck(1)], [(14, ACK), (10, ACK)]),
        ([m.BasicNack(2, True, True)], [(10, REQUEUE), (11, REQUEUE)]),
        ([m.BasicNack(2, False, False)], [(11, REJECT)]),
        ([m.BasicNack(0, True, False)], [(n, REJECT) for n in range(10, 15)]),
        ([m.BasicReject(3, True)], [(12, REQUEUE)]),
        ([m.BasicReject(3, False)], [(12, REJECT)]),
        ([m.BasicRecoverAsync(True)], [(n, REQUEUE) for n in range(10, 15)]),
        ([m.BasicAck(1), m.BasicReject(2, False), m.BasicAck(3)], [(10, ACK), (11, REJECT), (12, ACK)]),
    ],
)
def test_settlement_names_positions(sent: list[m.Method], settled: list[tuple[int, Outcome]]) -> None:
    client, (consumer,) = consuming()
    consumer.deliver([delivery(position) for position in range(10, 15)])
    client.output()
    assert client.exchange(*sent) == []
    assert client.broker.settled() == [("t", position, outcome) for position, outcome in settled]
    assert consumer.unsettled == 5 - len(settled)
    assert consumer.outstanding() == [n for n in range(10, 15) if n not in dict(settled)]
    assert client.connection.counts.ack == sum(outcome is ACK for _, outcome in settled)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("sent", "bad"),
    [
        ([m.BasicAck(1), m.BasicAck(1)], 1),
        ([m.BasicAck(9)], 9),
        ([m.BasicAck(0)], 0),
        ([m.BasicAck(9, True)], 9),
        ([m.BasicAck(2, True), m.BasicAck(1, True)], 1),
        ([m.BasicReject(7)], 7),
        ([m.BasicNack(3, True), m.BasicNack(3)], 3),
        ([m.BasicAck(2**64 - 1, True)], 2**64 - 1),
    ],
)
def test_an_unknown_delivery_tag_closes_the_channel(sent: list[m.Method], bad: int, together: bool) -> None:
    client, (consumer,) = consuming()
    consumer.deliver([delivery(0), delivery(1), delivery(2)])
    client.output()
    if together:
        client.receive(b"".join(method_frame(1, method) for method in sent))
    else:
        for method in sent:
            client.receive(method_frame(1, method))
    assert client.methods() == [(1, unknown_tag(bad, 60, sent[-1].method_id))]
    release = client.broker.calls[-1]
    assert release == ("release", 1, ["t"])


def test_acks_are_settled_before_the_error_that_follows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    client, (consumer,) = consuming()
    consumer.deliver([delivery(0), delivery(1)])
    settled_at_release: list[int] = []

    def noting(channel: Channel, consumers: Sequence[Consumer]) -> None:
        settled_at_release.append(len(client.broker.settled()))

    monkeypatch.setattr(client.broker, "release", noting)
    client.receive(method_frame(1, m.BasicAck(1)) + publish(1, exchange="nope"))
    assert settled_at_release == [1]


def test_an_empty_ack_of_all_is_fine() -> None:
    client = opened()
    assert client.exchange(m.BasicAck(0, True)) == []
    assert client.exchange(m.BasicQos()) == [m.BasicQosOk()]


def test_without_acks_nothing_is_outstanding_but_tags_go_on() -> None:
    client, (consumer,) = consuming(no_ack=True)
    consumer.deliver([delivery(0), delivery(1)])
    assert delivered(client) == [("t", 1), ("t", 2)]
    assert (consumer.unsettled, consumer.outstanding()) == (0, [])
    assert client.exchange(m.BasicAck(1)) == [unknown_tag(1, 60, 80)]


def test_tags_are_the_channels_and_multiple_spans_consumers() -> None:
    client, (one, two) = consuming("one", "two")
    one.deliver([delivery(0), delivery(1)])
    two.deliver([delivery(0)])
    one.deliver([delivery(2)])
    assert delivered(client) == [("one", 1), ("one", 2), ("two", 3), ("one", 4)]
    client.exchange(m.BasicAck(3, True))
    assert client.broker.settled() == [("one", 0, ACK), ("one", 1, ACK), ("two", 0, ACK)]
    assert (one.unsettled, two.unsettled) == (1, 0)


def test_recover_gives_all_back_and_answers() -> None:
    client, (consumer,) = consuming()
    consumer.deliver([delivery(0), delivery(1)])
    client.output()
    assert client.exchange(m.BasicRecover(True)) == [m.BasicRecoverOk()]
    assert client.broker.settled() == [("t", 0, REQUEUE), ("t", 1, REQUEUE)]
    consumer.deliver([delivery(0, redelivered=True)])
    client.exchange(m.BasicAck(3, True))
    assert client.broker.settled()[-1] == ("t", 0, ACK)


@pytest.mark.parametrize("method", [m.BasicRecover(False), m.BasicRecoverAsync(False)])
def test_recover_without_requeue_is_not_implemented(method: m.Method) -> None:
    assert opened().exchange(method) == [
        m.ConnectionClose(540, "NOT_IMPLEMENTED - requeue=false", 60, method.method_id)
    ]


def test_the_client_cancels() -> None:
    client, (consumer,) = consuming()
    consumer.deliver([delivery(0)])
    client.output()
    assert client.exchange(m.BasicCancel("t")) == [m.BasicCancelOk("t")]
    assert client.broker.of("cancel") == [("cancel", "t")]
    consumer.deliver([delivery(1)])
    assert client.output() == b""
    client.exchange(m.BasicAck(1))
    assert client.broker.settled() == [("t", 1, REQUEUE), ("t", 0, ACK)]
    assert client.exchange(m.BasicConsume("q", "t")) == [m.BasicConsumeOk("t")]


def test_cancelling_nobody_is_fine() -> None:
    client = opened()
    assert client.exchange(m.BasicCancel("nobody")) == [m.BasicCancelOk("nobody")]
    assert client.broker.calls == []


def test_the_broker_cancels() -> None:
    client, (consumer,) = consuming()
    consumer.deliver([delivery(0)])
    client.output()
    channel = client.connection.channels[1]
    channel.cancelled_by_broker(consumer)
    channel.cancelled_by_broker(consumer)
    assert client.methods() == [(1, m.BasicCancel("t", True))]
    assert client.exchange(m.BasicCancelOk("t"), m.BasicAck(1)) == []
    client.exchange(m.ChannelClose())
    assert client.broker.of("release") == [("release", 1, [])]


def test_clients_that_cannot_hear_of_a_cancel_do_not() -> None:
    client = Client()
    client.receive(handshake(m.ConnectionStartOk({}, "PLAIN", b"\0guest\0guest", "en_US")))
    client.receive(method_frame(1, m.ChannelOpen()) + method_frame(1, m.BasicConsume("q", "t")))
    client.output()
    client.connection.channels[1].cancelled_by_broker(client.broker.consumers[0])
    assert client.output() == b""
    assert client.connection.channels[1].consumers == {}


def test_release_names_everybody_who_holds_something() -> None:
    client, (one, _) = consuming("one", "two")
    one.deliver([delivery(0)])
    client.exchange(m.BasicCancel("one"))
    client.broker.ready = [delivery(5), delivery(6)]
    client.exchange(m.BasicGet("q"), m.BasicGet("q"), m.BasicAck(3))
    client.exchange(m.ChannelClose())
    assert client.broker.of("release") == [("release", 1, ["two", "one", ""])]
    one.deliver([delivery(9)])
    assert client.output() == b""
    assert one.outstanding() == []


def test_get_answers_with_a_message_or_empty() -> None:
    client = opened()
    client.broker.ready = [delivery(7, b"body", redelivered=True), delivery(8)]
    client.receive(method_frame(1, m.BasicGet("q")))
    frames = client.frames()
    assert m.decode_method(frames[0][2]) == m.BasicGetOk(1, True, "", "q", 1)
    assert frames[2] == (3, 1, b"body")
    assert client.exchange(m.BasicGet("q", no_ack=True)) == [m.BasicGetOk(2, False, "", "q", 0)]
    assert client.exchange(m.BasicGet("q")) == [m.BasicGetEmpty()]
    assert client.exchange(m.BasicAck(1)) == []
    assert client.broker.settled() == [("", 7, ACK)]
    assert client.exchange(m.BasicAck(2)) == [unknown_tag(2, 60, 80)]


def test_get_of_a_missing_queue() -> None:
    client = opened()
    client.broker.replies[m.BasicGet] = no_queue("q", "/")
    assert client.exchange(m.BasicGet("q")) == [
        m.ChannelClose(404, "NOT_FOUND - no queue 'q' in vhost '/'", 60, 70)
    ]


def test_a_message_fetched_for_a_channel_that_closed_meanwhile_goes_back() -> None:
    client = opened()
    client.broker.hold = True
    client.broker.ready = [delivery(7)]
    client.exchange(m.BasicGet("q"))
    client.connection.lost()
    client.broker.answer()
    assert client.broker.settled() == [("", 7, REQUEUE)]


def test_prefetch_is_for_the_consumers_that_follow() -> None:
    client = opened()
    client.exchange(m.BasicConsume("q", "a"), m.BasicQos(0, 5), m.BasicConsume("q", "b"), m.BasicQos(0, 0))
    client.exchange(m.BasicConsume("q", "c"))
    assert [consumer.prefetch for consumer in client.broker.consumers] == [0, 5, 0]


def test_prefetch_by_size_is_not_implemented() -> None:
    assert opened().exchange(m.BasicQos(100, 0)) == [
        m.ConnectionClose(540, "NOT_IMPLEMENTED - prefetch_size!=0 (100)", 60, 10)
    ]


def test_who_deletes_a_queue_hears_of_that_before_its_consumers_do() -> None:
    client = opened()
    client.exchange(m.BasicConsume("q", "t"))
    client.broker.hold = True
    client.receive(method_frame(1, m.QueueDelete("q")))
    (consumer,) = client.broker.consumers
    client.connection.channels[1].cancelled_by_broker(consumer)
    assert client.methods() == []
    client.broker.answer()
    assert [method for _, method in client.methods()] == [m.QueueDeleteOk(0), m.BasicCancel("t", True)]


def test_the_channels_limit_is_shared_and_acks_make_room() -> None:
    client = opened()
    client.exchange(m.BasicQos(0, 3, True), m.BasicConsume("q", "one"), m.BasicConsume("q", "two"))
    one, two = client.broker.consumers
    assert (one.prefetch, two.prefetch) == (3, 3)
    one.deliver([delivery(0), delivery(1)])
    two.deliver([delivery(0), delivery(1)])
    one.deliver([delivery(2)])
    assert delivered(client) == [("one", 1), ("one", 2), ("two", 3)]
    assert (one.unsettled, two.unsettled) == (3, 2)
    assert (one.outstanding(), two.outstanding()) == ([0, 1, 2], [0, 1])
    client.receive(method_frame(1, m.BasicAck(1)))
    assert delivered(client) == [("two", 4)]
    client.receive(method_frame(1, m.BasicAck(4, True)))
    assert delivered(client) == [("one", 5)]
    assert (one.unsettled, two.unsettled) == (1, 0)


def test_the_channels_limit_reaches_the_queue_unless_the_consumers_own_is_lower() -> None:
    client = opened()
    client.exchange(m.BasicConsume("q", "free"), m.BasicQos(0, 3, False), m.BasicConsume("q", "own"))
    for limit in (2, 5, 0):
        client.receive(method_frame(1, m.BasicQos(0, limit, True)))
    assert client.broker.queue("q").limits == [("free", 2), ("own", 2), ("free", 5), ("own", 3), ("free", 0)]


def test_the_channels_limit_may_change_and_go() -> None:
    client = opened()
    client.exchange(m.BasicConsume("q", "t"), m.BasicQos(0, 2, True))
    (consumer,) = client.broker.consumers
    consumer.deliver([delivery(n) for n in range(6)])
    assert delivered(client) == [("t", 1), ("t", 2)]
    assert (consumer.unsettled, consumer.held) == (6, 4)
    client.receive(method_frame(1, m.BasicQos(0, 3, True)))
    assert delivered(client) == [("t", 3)]
    assert (consumer.unsettled, consumer.held) == (6, 3)
    client.receive(method_frame(1, m.BasicQos(0, 0, True)))
    assert delivered(client) == [("t", 4), ("t", 5), ("t", 6)]
    assert (consumer.unsettled, consumer.held) == (6, 0)
    consumer.deliver([delivery(6)])
    assert delivered(client) == [("t", 7)]


def test_a_consumer_asks_for_no_more_than_both_limits_allow() -> None:
    client = opened()
    client.exchange(m.BasicQos(0, 5), m.BasicQos(0, 3, True), m.BasicConsume("q", "a"))
    client.exchange(m.BasicQos(0, 2), m.BasicConsume("q", "b"))
    assert [consumer.prefetch for consumer in client.broker.consumers] == [3, 2]


def test_the_channels_limit_leaves_out_gets_and_consumers_without_acks() -> None:
    client = opened()
    client.broker.ready = [delivery(90), delivery(91)]
    client.exchange(m.BasicQos(0, 1, True), m.BasicGet("q"), m.BasicGet("q"))
    client.exchange(m.BasicConsume("q", "free", no_ack=True), m.BasicConsume("q", "held"))
    free, held = client.broker.consumers
    free.deliver([delivery(0), delivery(1)])
    held.deliver([delivery(2), delivery(3)])
    assert delivered(client) == [("free", 3), ("free", 4), ("held", 5)]
    client.exchange(m.BasicAck(1), m.BasicAck(2))
    assert delivered(client) == []
    client.receive(method_frame(1, m.BasicAck(5)))
    assert delivered(client) == [("held", 6)]


def test_what_was_held_back_returns_when_its_consumer_is_cancelled() -> None:
    client = opened()
    client.exchange(m.BasicQos(0, 1, True), m.BasicConsume("q", "t"))
    (consumer,) = client.broker.consumers
    consumer.deliver([delivery(0), delivery(1), delivery(2)])
    client.exchange(m.BasicCancel("t"))
    assert client.broker.settled() == [("t", 1, REQUEUE), ("t", 2, REQUEUE)]
    assert consumer.outstanding() == [0]
    assert (consumer.unsettled, consumer.held) == (1, 0)


@given(st.data())
def test_settlement_agrees_with_a_plain_model(data: st.DataObject) -> None:
    client, consumers = consuming("one", "two")
    model: dict[int, tuple[str, int]] = {}
    expected: list[tuple[str, int, Outcome]] = []
    position = tag = 0
    for _ in range(data.draw(st.integers(1, 30))):
        if data.draw(st.booleans()):
            consumer = data.draw(st.sampled_from(consumers))
            batch = data.draw(st.integers(1, 5))
            consumer.deliver([delivery(position + n) for n in range(batch)])
            for _ in range(batch):
                tag += 1
                model[tag] = (consumer.tag, position)
                position += 1
        elif model:
            chosen = data.draw(st.sampled_from(sorted(model)))
            multiple = data.draw(st.booleans())
            client.exchange(m.BasicAck(chosen, multiple))
            tags = [held for held in model if held <= chosen] if multiple else [chosen]
            expected += [(*model.pop(held), ACK) for held in tags]
    assert sorted(client.broker.settled()) == sorted(expected)
    for consumer in consumers:
        left = [place for name, place in model.values() if name == consumer.tag]
        assert consumer.outstanding() == left
        assert consumer.unsettled == len(left)
