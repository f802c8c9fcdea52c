import pytest

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.connection import ConnectionState
from brokers.engine.core.amqp.errors import connection_forced
from brokers.engine.core.amqp.frames import HEARTBEAT, frame, method_frame
from tests.unit.amqp.recording import START_OK, Client, handshake, opened, publish


def closes_with(client: Client, code: int, text: str) -> None:
    """The only output is a connection.close with this code and the text's beginning."""
    ((number, method),) = client.methods()
    assert number == 0
    assert isinstance(method, m.ConnectionClose)
    assert (method.reply_code, method.reply_text[: len(text)]) == (code, text)


def test_the_client_closes() -> None:
    client = opened(1, 2)
    assert client.exchange(m.ConnectionClose(200, "bye"), channel=0) == [m.ConnectionCloseOk()]
    assert client.connection.ended
    assert client.connection.reason == "closed by client: 200 bye"
    assert client.broker.calls == [("release", 1, []), ("release", 2, []), ("closed",)]
    assert client.connection.channels == {}


def test_the_server_closes_and_waits_for_close_ok() -> None:
    client = opened()
    error = connection_forced("broker forced connection closure with reason 'shutdown'")
    client.connection.close(error.code, error.text)
    assert client.woken == 1
    closes_with(client, 320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'")
    assert client.broker.calls == [("release", 1, []), ("closed",)]
    client.receive(publish(1) + method_frame(1, m.QueueDeclare("q")) + HEARTBEAT + frame(3, 9, b"x"))
    assert client.output() == b""
    assert not client.connection.ended
    client.receive(method_frame(0, m.ConnectionCloseOk()))
    assert client.connection.ended
    assert client.broker.calls == [("release", 1, []), ("closed",)]


def test_close_ok_is_not_waited_for_for_ever() -> None:
    client = opened()
    client.connection.close(320, "CONNECTION_FORCED - x")
    client.pass_time(9.9)
    assert not client.connection.ended
    client.pass_time(0.2)
    assert client.connection.ended
    assert client.connection.reason == "320 CONNECTION_FORCED - x"


def test_both_sides_may_close_at_once() -> None:
    client = opened()
    client.connection.close(320, "CONNECTION_FORCED - x")
    client.output()
    assert client.exchange(m.ConnectionClose(200, "bye"), channel=0) == [m.ConnectionCloseOk()]
    assert client.connection.ended


def test_closing_before_the_protocol_header_says_nothing() -> None:
    client = Client()
    client.connection.close(320, "CONNECTION_FORCED - x")
    assert client.output() == b""
    assert client.connection.ended


def test_a_lost_socket_releases_everything_once() -> None:
    client = opened()
    client.exchange(m.BasicConsume("q", "t"))
    client.connection.lost()
    client.connection.lost()
    client.pass_time(1000)
    client.receive(publish(1))
    assert [call for call in client.broker.calls if call[0] in ("release", "closed", "publish")] == [
        ("release", 1, ["t"]),
        ("closed",),
    ]


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (
            b"\x08\x00\x00\x00\x00\x00\x00\xcd",
            501,
            "FRAME_ERROR - type 8, all octets = <<>>: {invalid_frame_end_marker,205}",
        ),
        (
            b"\x01\x00\x01\x00\x02\x00\x01",
            501,
            "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,131073,131064}",
        ),
        (frame(7, 0, b"abc"), 501, "FRAME_ERROR - type 7, all octets = <<97,98,99>>: unknown_frame"),
        (frame(7, 1, b""), 501, "FRAME_ERROR - type 7, all octets = <<>>: unknown_frame"),
        (frame(8, 1, b""), 505, "UNEXPECTED_FRAME - type 8, all octets = <<>>"),
        (frame(3, 0, b"x" * 17), 505, "UNEXPECTED_FRAME - type 3, first 16 octets = <<120,120,"),
        (frame(2, 1, b"x"), 505, "UNEXPECTED_FRAME - expected method frame, got non method frame instead"),
        (frame(3, 1, b"x"), 505, "UNEXPECTED_FRAME - expected method frame, got non method frame instead"),
        (frame(1, 1, b"\x00\x3c"), 502, "SYNTAX_ERROR - method frame of 2 octets"),
        (frame(1, 0, b""), 502, "SYNTAX_ERROR - method frame of 0 octets"),
        (frame(1, 1, b"\x00\x63\x00\x01"), 503, "COMMAND_INVALID - unknown method 99.1"),
        (frame(1, 1, b"\x00\x32\x00\x0a\x00"), 502, "SYNTAX_ERROR - queue.declare ends before"),
        (frame(1, 1, b"\x00\x3c\x00\x28"), 502, "SYNTAX_ERROR - exchange and routing key do not fill"),
        (frame(1, 1, b"\x00\x3c\x00\x50\x00"), 502, "SYNTAX_ERROR - basic.ack ends before"),
        (frame(1, 1, b"\x00\x3c\x00\x50" + bytes(10)), 502, "SYNTAX_ERROR - 1 octets too many"),
        (method_frame(1, m.QueueDeclareOk("q")), 503, "COMMAND_INVALID - unimplemented method"),
        (method_frame(1, START_OK), 503, "COMMAND_INVALID - unimplemented method"),
        (method_frame(1, m.ChannelOpen()), 504, "CHANNEL_ERROR - second 'channel.open' seen"),
        (method_frame(2, m.QueueDeclare("q")), 504, "CHANNEL_ERROR - expected 'channel.open'"),
        (publish(2), 504, "CHANNEL_ERROR - expected 'channel.open'"),
        (frame(3, 2, b"x"), 504, "CHANNEL_ERROR - expected 'channel.open'"),
        (
            frame(1, 1, b"\x00\x32\x00\x0a\x00\x00\x01q\x00\xff\xff\xff\xff"),
            502,
            "SYNTAX_ERROR - table at octet",
        ),
        (publish(1, immediate=True), 540, "NOT_IMPLEMENTED - immediate=true"),
    ],
)
def test_bad_input_closes_the_connection_with_the_protocols_code(data: bytes, code: int, text: str) -> None:
    client = opened()
    client.receive(data + method_frame(1, m.QueueDeclare("after")))
    closes_with(client, code, text)
    assert client.broker.calls == [("release", 1, []), ("closed",)]
    assert client.connection.state is ConnectionState.CLOSING
    client.receive(method_frame(0, m.ConnectionCloseOk()))
    client.pass_time(3.1)
    assert client.connection.ended


def test_after_broken_frames_nothing_is_read_and_the_end_comes_soon() -> None:
    client = opened()
    client.receive(b"\x08\x00\x00\x00\x00\x00\x00\xcd")
    client.output()
    client.receive(method_frame(0, m.ConnectionClose()))
    assert client.output() == b""
    client.pass_time(client.connection.settings.silent_close_delay)
    assert client.connection.ended


def test_other_connections_notice_nothing() -> None:
    good, bad = opened(), opened()
    bad.receive(b"\x08\x00\x00\x00\x00\x00\x00\xcd")
    assert good.exchange(m.QueueDeclare("q")) == [m.QueueDeclareOk("q")]


def test_channels_are_counted() -> None:
    client = opened(1, 2, tune_ok=m.ConnectionTuneOk(2, 4096, 0))
    client.receive(method_frame(3, m.ChannelOpen()))
    closes_with(
        client, 530, "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)"
    )


def test_a_closed_channel_makes_room() -> None:
    client = opened(1, 2, tune_ok=m.ConnectionTuneOk(2, 4096, 0))
    assert client.exchange(m.ChannelClose(), channel=2) == [m.ChannelCloseOk()]
    assert client.exchange(m.ChannelOpen(), channel=3) == [m.ChannelOpenOk()]


def test_blocked_is_told_to_who_wants_to_know() -> None:
    client = opened()
    client.connection.on_blocked("low on disk")
    client.connection.on_unblocked()
    assert client.methods() == [(0, m.ConnectionBlocked("low on disk")), (0, m.ConnectionUnblocked())]

    plain = Client()
    plain.receive(handshake(m.ConnectionStartOk({}, "PLAIN", b"\0guest\0guest", "en_US")))
    plain.output()
    plain.connection.on_blocked("low on disk")
    plain.connection.on_unblocked()
    assert plain.output() == b""


def test_a_new_secret_is_welcome() -> None:
    client = opened()
    update = m.ConnectionUpdateSecret(b"new", "old one expires")
    assert client.exchange(update, channel=0) == [m.ConnectionUpdateSecretOk()]


def test_the_driver_is_woken_once_for_output_it_has_not_taken() -> None:
    client = opened()
    client.exchange(m.QueueDeclare("q"))
    assert client.woken == 0
    client.connection.on_blocked("x")
    client.connection.on_unblocked()
    assert client.woken == 1
    client.output()
    client.connection.on_blocked("x")
    assert client.woken == 2


def test_the_driver_is_not_woken_for_output_it_will_take_anyway() -> None:
    client = opened()
    client.receive(method_frame(1, m.QueueDeclare("q")))
    client.connection.on_blocked("x")
    assert client.woken == 0
    assert len(client.methods()) == 2


def test_a_frame_in_tiny_pieces_costs_no_more_than_its_size() -> None:
    client = opened()
    body = bytes(100_000)
    data = publish(1, body)
    for octet in data:
        client.receive(bytes((octet,)))
    assert client.broker.of("publish")[0][5] == body
