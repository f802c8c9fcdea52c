import pytest

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.frames import frame, method_frame
from brokers.engine.core.amqp.properties import BasicProperties, encode_header
from tests.unit.amqp.recording import opened, publish, route

METHOD = method_frame(1, m.BasicPublish("", "q"))


def header(size: int) -> bytes:
    return frame(2, 1, encode_header(BasicProperties(), size))


def test_a_message_reaches_its_target_as_it_came() -> None:
    client = opened()
    properties = BasicProperties(content_type="text/plain", headers={"a": 1})
    client.receive(
        publish(1, b"body", exchange="logs", routing_key="a.b", mandatory=True, properties=properties)
    )
    assert client.broker.calls == [
        ("resolve", route("logs", "a.b")),
        ("publish", 1, 0, route("logs", "a.b"), encode_header(properties, 4), b"body", True),
    ]
    assert client.output() == b""
    assert client.connection.counts.publish == 1


@pytest.mark.parametrize("size", [0, 1, 4088, 4089, 100_000])
def test_bodies_of_any_size_and_in_any_number_of_frames(size: int) -> None:
    client = opened(tune_ok=m.ConnectionTuneOk(10, 4096, 0))
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    client.receive(publish(1, body, frame_max=4096) + publish(1, b"next"))
    assert [call[5] for call in client.broker.of("publish")] == [body, b"next"]
    assert client.connection.assembling == 0


def test_a_body_may_come_in_frames_of_odd_sizes_empty_ones_included() -> None:
    client = opened()
    pieces = (b"", b"ab", b"", b"c", b"de")
    client.receive(METHOD + header(5) + b"".join(frame(3, 1, piece) for piece in pieces))
    assert [call[5] for call in client.broker.of("publish")] == [b"abcde"]


def test_heartbeats_and_other_channels_may_come_between_the_frames_of_a_message() -> None:
    client = opened(1, 2)
    heartbeat = frame(8, 0, b"")
    client.receive(METHOD + heartbeat + header(2) + publish(2, b"two") + heartbeat + frame(3, 1, b"ab"))
    assert [(call[1], call[5]) for call in client.broker.of("publish")] == [(2, b"two"), (1, b"ab")]


def test_a_route_is_resolved_once_while_the_broker_keeps_it() -> None:
    client = opened()
    client.receive(publish(1) * 3)
    assert len(client.broker.of("resolve")) == 1
    client.connection.routes.clear()
    client.receive(publish(1) * 3)
    assert len(client.broker.of("resolve")) == 2
    client.connection.routes.clear()
    client.broker.keep_routes = False
    client.receive(publish(1) * 3)
    assert len(client.broker.of("resolve")) == 5


def test_routes_are_not_kept_without_end() -> None:
    client = opened()
    for number in range(10_000):
        client.receive(publish(1, routing_key=str(number)))
    assert len(client.connection.routes) <= 4096
    assert len(client.broker.of("publish")) == 10_000


def test_an_unknown_exchange_closes_the_channel() -> None:
    client = opened()
    client.receive(publish(1, exchange="nope") + publish(1))
    assert client.methods() == [
        (1, m.ChannelClose(404, "NOT_FOUND - no exchange 'nope' in vhost '/'", 60, 40))
    ]
    assert client.broker.of("publish") == []


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (METHOD + header(0)[:-1] + b"\x00", 501, "FRAME_ERROR - type 2, all octets = <<0,60,0,0,"),
        (METHOD + header(1)[:-1] + b"\x00" + frame(3, 1, b"x"), 501, "FRAME_ERROR - type 2, all octets = <<"),
        (METHOD + header(1) + frame(3, 1, b"x")[:-1] + b"\x00", 501, "FRAME_ERROR - type 3, all octets"),
        (
            METHOD + METHOD,
            505,
            "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead",
        ),
        (
            METHOD + frame(3, 1, b"x"),
            505,
            "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead",
        ),
        (
            METHOD + frame(2, 1, b"\x00\x32" + bytes(12)),
            505,
            "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead",
        ),
        (
            METHOD + header(1) + header(1),
            505,
            "UNEXPECTED_FRAME - expected content body, got non content body frame instead",
        ),
        (METHOD + header(1) + frame(3, 1, b"ab"), 502, "SYNTAX_ERROR - content body is 1 octets longer"),
        (
            METHOD + header(0) + frame(3, 1, b"a"),
            505,
            "UNEXPECTED_FRAME - expected method frame, got non method frame instead",
        ),
        (METHOD + frame(2, 1, b"\x00\x3c"), 502, "SYNTAX_ERROR - content header of 2 octets"),
        (METHOD + frame(2, 1, b""), 502, "SYNTAX_ERROR - content header of 0 octets"),
        (
            METHOD + frame(2, 1, b"\x00\x3c\x00\x00" + bytes(8) + b"\x20\x00\x00\x00\x00\x09"),
            502,
            "SYNTAX_ERROR - table at octet 14",
        ),
        (
            frame(1, 1, b"\x00\x3c\x00\x28\x00\x00\x01\xff\x00\x00") + header(0),
            502,
            "SYNTAX_ERROR - exchange of basic.publish is not UTF-8",
        ),
        (
            frame(1, 1, b"\x00\x3c\x00\x28\x00\x00\x05ab\x00\x00") + header(0),
            502,
            "SYNTAX_ERROR - exchange and routing key do not fill basic.publish",
        ),
        (
            frame(1, 1, b"\x00\x3c\x00\x28\x00\x00\x01a\x01bc\x00") + header(1) + frame(3, 1, b"x"),
            502,
            "SYNTAX_ERROR - exchange and routing key do not fill basic.publish",
        ),
    ],
)
def test_malformed_messages_close_the_connection(data: bytes, code: int, text: str) -> None:
    client = opened()
    client.receive(data)
    ((_, close),) = client.methods()
    assert isinstance(close, m.ConnectionClose)
    assert (close.reply_code, close.reply_text[: len(text)]) == (code, text)
    assert [call for call in client.broker.of("publish") if call[5]] == []


@pytest.mark.parametrize("number", [2, 3])
def test_a_message_is_one_channels(number: int) -> None:
    """Header or body on another channel, open or not, do not belong to the message."""
    for stray in (
        METHOD + frame(2, number, encode_header(BasicProperties(), 1)) + frame(3, 1, b"x"),
        METHOD + frame(2, number, encode_header(BasicProperties(), 0)),
        METHOD + header(1) + frame(3, number, b"x"),
    ):
        client = opened(1, 2)
        client.receive(stray)
        ((_, close),) = client.methods()
        assert isinstance(close, m.ConnectionClose)
        assert close.reply_code == (505 if number == 2 else 504)
        assert client.broker.of("publish") == []


def test_a_claimed_user_must_be_the_real_one() -> None:
    client = opened()
    client.receive(publish(1, properties=BasicProperties(user_id="guest")))
    assert len(client.broker.of("publish")) == 1
    client.receive(publish(1, properties=BasicProperties(user_id="root")))
    text = "PRECONDITION_FAILED - user_id property set to 'root' but authenticated user was 'guest'"
    assert client.methods() == [(1, m.ChannelClose(406, text, 60, 40))]


def test_messages_have_a_size_limit_that_holds_before_the_body_comes() -> None:
    client = opened(max_message_size=1000)
    client.receive(publish(1, bytes(1000)))
    assert len(client.broker.of("publish")) == 1
    client.receive(METHOD + header(1001))
    text = "PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000"
    assert client.methods() == [(1, m.ChannelClose(406, text, 60, 40))]
    client.receive(publish(1, bytes(1001)))
    assert len(client.broker.of("publish")) == 1
    client = opened(max_message_size=1000)
    assert client.exchange(publish(1, bytes(1001))) == [m.ChannelClose(406, text, 60, 40)]


def test_half_received_messages_are_limited_over_all_channels() -> None:
    client = opened(1, 2, max_assembling=10_000)
    for number in (1, 2):
        client.receive(publish(number, bytes(6000), frame_max=5008)[: -(1000 + 8)])
    text = "RESOURCE_ERROR - unfinished messages on this connection take more than 10000 octets"
    assert client.output() == b""
    assert client.connection.assembling == 10_000
    assert client.frame(3, 1, b"x") == [m.ConnectionClose(506, text, 60, 40)]
    assert client.connection.assembling == 0


def test_a_half_received_message_dies_with_its_channel() -> None:
    client = opened(1, 2)
    client.receive(METHOD + header(10) + frame(3, 1, b"abc"))
    assert client.connection.assembling == 3
    client.connection.close(320, "CONNECTION_FORCED - x")
    assert client.connection.assembling == 0


def test_confirms_number_messages_from_the_select_on() -> None:
    client = opened(1, 2)
    client.receive(publish(1))
    assert client.exchange(m.ConfirmSelect()) == [m.ConfirmSelectOk()]
    client.receive(publish(1) * 2 + publish(2))
    assert client.exchange(m.ConfirmSelect()) == [m.ConfirmSelectOk()]
    client.receive(publish(1, bytes(200_000)))
    assert [(call[1], call[2]) for call in client.broker.of("publish")] == [
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
        (1, 3),
    ]

    channel = client.connection.channels[1]
    client.woken = 0
    channel.confirmed(1, 2)
    channel.refused(3, 3)
    assert client.woken == 1
    assert client.methods() == [(1, m.BasicAck(2, True)), (1, m.BasicNack(3, False, False))]


def test_confirms_for_a_closed_channel_go_nowhere() -> None:
    client = opened()
    client.exchange(m.ConfirmSelect())
    channel = client.connection.channels[1]
    client.receive(publish(1) + method_frame(1, m.ChannelClose()))
    client.output()
    channel.confirmed(1, 1)
    channel.refused(1, 1)
    channel.returned(312, "NO_ROUTE", route("", "q"), header(0)[7:-1], b"")
    assert client.output() == b""


def test_an_unroutable_message_comes_back() -> None:
    client = opened(tune_ok=m.ConnectionTuneOk(10, 4096, 0))
    client.receive(publish(1, bytes(5000), mandatory=True, frame_max=4096))
    _, _, _, where, head, body, mandatory = client.broker.of("publish")[0]
    assert mandatory
    client.connection.channels[1].returned(312, "NO_ROUTE", where, head, body)
    frames = client.frames()
    assert m.decode_method(frames[0][2]) == m.BasicReturn(312, "NO_ROUTE", "", "q")
    assert frames[1:] == [(2, 1, head), (3, 1, body[:4088]), (3, 1, body[4088:])]
