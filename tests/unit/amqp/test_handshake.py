from dataclasses import replace

import pytest

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.connection import ConnectionState
from brokers.engine.core.amqp.constants import PROTOCOL_HEADER
from brokers.engine.core.amqp.errors import connection_forced
from brokers.engine.core.amqp.frames import HEARTBEAT, frame, method_frame
from brokers.engine.core.amqp.table import encode_table
from tests.unit.amqp.recording import OPEN, START_OK, TUNE_OK, Client, handshake, opened, publish


def test_a_connection_opens_step_by_step() -> None:
    client = Client()
    (start,) = client.exchange(PROTOCOL_HEADER, channel=0)
    assert isinstance(start, m.ConnectionStart)
    assert (start.version_major, start.version_minor) == (0, 9)
    assert set(start.mechanisms.split()) == {b"PLAIN", b"AMQPLAIN"}
    assert start.server_properties == client.broker.server_properties()

    assert client.exchange(START_OK, channel=0) == [m.ConnectionTune(2047, 131072, 60)]
    assert client.exchange(TUNE_OK, channel=0) == []
    assert client.exchange(OPEN, channel=0) == [m.ConnectionOpenOk()]

    connection = client.connection
    assert connection.state is ConnectionState.RUNNING
    assert (connection.user, connection.vhost, connection.frame_max) == ("guest", "/", 131072)
    assert connection.client_properties == START_OK.client_properties
    assert client.broker.calls == [("authenticate", "guest"), ("open", "/")]
    assert client.exchange(m.ChannelOpen()) == [m.ChannelOpenOk()]
    assert list(connection.channels) == [1]


def test_amqplain_takes_a_table_without_its_length() -> None:
    client = Client()
    response = encode_table({"LOGIN": "guest", "PASSWORD": "guest"})[4:]
    client.receive(handshake(replace(START_OK, mechanism="AMQPLAIN", response=response)))
    assert client.methods()[-1] == (0, m.ConnectionOpenOk())


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"AMQP\x00\x01\x00\x00", b"\x16\x03\x01", b"AMQQ"]
)
def test_garbage_is_answered_with_the_header_that_would_have_been_right(garbage: bytes) -> None:
    client = Client()
    client.receive(garbage)
    assert client.output() == PROTOCOL_HEADER
    assert client.connection.ended
    assert "bad protocol header" in client.connection.reason
    assert client.broker.calls == [("closed",)]


def closes_with(client: Client, code: int, text: str) -> m.ConnectionClose:
    """The last method sent is a connection.close with this code and the text's beginning."""
    number, method = client.methods()[-1]
    assert number == 0
    assert isinstance(method, m.ConnectionClose)
    assert method.reply_code == code
    assert method.reply_text.startswith(text), method.reply_text
    return method


def test_a_wrong_password_is_told_to_clients_that_understand_it() -> None:
    client = Client()
    client.receive(handshake(replace(START_OK, response=b"\0guest\0wrong")))
    closes_with(
        client,
        403,
        "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. "
        "For details see the broker logfile.",
    )
    assert not client.connection.ended
    client.receive(method_frame(0, m.ConnectionCloseOk()))
    assert client.connection.ended
    assert client.connection.user == ""


def test_a_wrong_password_just_closes_the_socket_of_other_clients_and_not_at_once() -> None:
    client = Client()
    client.receive(handshake(replace(START_OK, client_properties={}, response=b"\0guest\0wrong")))
    assert [type(method) for _, method in client.methods()] == [m.ConnectionStart]
    client.pass_time(client.connection.settings.silent_close_delay - 0.1)
    assert not client.connection.ended
    client.receive(handshake())
    client.pass_time(0.2)
    assert client.connection.ended
    assert client.output() == b""
    assert client.connection.reason.startswith("403 ACCESS_REFUSED")
    assert client.broker.calls == [("authenticate", "guest"), ("closed",)]


@pytest.mark.parametrize(
    ("mechanism", "response", "code", "text"),
    [
        ("EXTERNAL", b"", 503, "COMMAND_INVALID - unknown authentication mechanism 'EXTERNAL'"),
        (
            "PLAIN",
            b"guest:secret",
            502,
            "SYNTAX_ERROR - response of authentication mechanism PLAIN is invalid",
        ),
        ("PLAIN", b"", 502, "SYNTAX_ERROR"),
        ("PLAIN", b"root\0guest\0secret", 502, "SYNTAX_ERROR"),
        ("PLAIN", b"\0\xff\0secret", 502, "SYNTAX_ERROR"),
        ("AMQPLAIN", b"\x05LOGINS\x00\x00\x00\x05guest", 502, "SYNTAX_ERROR"),
        ("AMQPLAIN", b"\xff\xff", 502, "SYNTAX_ERROR"),
    ],
)
def test_a_malformed_login_is_an_error_that_repeats_no_secret(
    mechanism: str, response: bytes, code: int, text: str
) -> None:
    client = Client()
    client.receive(handshake(replace(START_OK, mechanism=mechanism, response=response)))
    assert "secret" not in closes_with(client, code, text).reply_text
    assert client.broker.of("authenticate") == []


@pytest.mark.parametrize(
    ("tune_ok", "text"),
    [
        (
            m.ConnectionTuneOk(2047, 131073, 60),
            "negotiated frame_max = 131073 is higher than the maximum allowed value (131072)",
        ),
        (
            m.ConnectionTuneOk(2047, 0, 60),
            "negotiated frame_max = 0 (no limit) is higher than the maximum allowed value (131072)",
        ),
        (
            m.ConnectionTuneOk(2047, 4095, 60),
            "negotiated frame_max = 4095 is lower than the minimum allowed value (4096)",
        ),
        (
            m.ConnectionTuneOk(2048, 131072, 60),
            "negotiated channel_max = 2048 is higher than the maximum allowed value (2047)",
        ),
        (
            m.ConnectionTuneOk(0, 131072, 60),
            "negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (2047)",
        ),
    ],
)
def test_tuning_out_of_bounds_is_not_allowed(tune_ok: m.ConnectionTuneOk, text: str) -> None:
    client = Client()
    client.receive(handshake(tune_ok=tune_ok))
    closes_with(client, 530, f"NOT_ALLOWED - {text}")


def test_without_limits_of_its_own_the_server_takes_any() -> None:
    client = Client(frame_max=0, channel_max=0, heartbeat=0)
    client.receive(handshake(tune_ok=m.ConnectionTuneOk(0, 0, 0)))
    assert client.methods()[-1] == (0, m.ConnectionOpenOk())
    assert client.connection.frame_max == 0


def test_a_missing_vhost_is_not_allowed() -> None:
    client = Client()
    client.receive(handshake(vhost=m.ConnectionOpen("nowhere")))
    close = closes_with(client, 530, "NOT_ALLOWED - vhost nowhere not found")
    assert (close.failing_class_id, close.failing_method_id) == (10, 40)


@pytest.mark.parametrize(
    ("sent", "state"),
    [
        ([TUNE_OK], "starting"),
        ([OPEN], "starting"),
        ([START_OK, OPEN], "tuning"),
        ([START_OK, START_OK], "tuning"),
        ([START_OK, TUNE_OK, TUNE_OK], "opening"),
        ([START_OK, TUNE_OK, OPEN, OPEN], "running"),
        ([START_OK, TUNE_OK, OPEN, START_OK], "running"),
        ([START_OK, TUNE_OK, OPEN, m.ConnectionTune()], "running"),
        ([START_OK, TUNE_OK, OPEN, m.QueueDeclare("q")], "running"),
    ],
)
def test_methods_out_of_order_are_channel_errors(sent: list[m.Method], state: str) -> None:
    client = Client()
    client.receive(PROTOCOL_HEADER + b"".join(method_frame(0, method) for method in sent))
    close = closes_with(client, 504, f"CHANNEL_ERROR - unexpected method in connection state {state}")
    assert (close.failing_class_id, close.failing_method_id) == (sent[-1].class_id, sent[-1].method_id)


def test_before_tuning_frames_are_small() -> None:
    client = Client()
    client.receive(PROTOCOL_HEADER + frame(1, 0, bytes(4097)))
    closes_with(client, 501, "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,4097,4088}")


def test_a_frame_of_four_gigabytes_is_refused_by_its_header() -> None:
    client = Client()
    client.receive(PROTOCOL_HEADER + b"\x01\x00\x00\xff\xff\xff\xff")
    closes_with(client, 501, "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,4294967295,")


def test_channels_wait_for_the_handshake() -> None:
    client = Client()
    client.receive(PROTOCOL_HEADER + method_frame(1, m.ChannelOpen()))
    closes_with(client, 505, "UNEXPECTED_FRAME - type 1, all octets = <<0,20,0,10,0>>")


def test_a_handshake_has_ten_seconds() -> None:
    client = Client()
    client.receive(PROTOCOL_HEADER)
    client.pass_time(9.9)
    client.receive(method_frame(0, START_OK))
    assert not client.connection.ended
    client.pass_time(0.2)
    assert client.connection.ended
    assert client.connection.reason == "timeout in state tuning"


def test_input_waits_while_the_password_is_checked() -> None:
    client = Client()
    client.broker.hold = True
    client.receive(handshake() + method_frame(1, m.ChannelOpen()))
    assert [type(method) for _, method in client.methods()] == [m.ConnectionStart]
    assert client.connection.paused
    client.receive(HEARTBEAT)
    client.broker.answer()
    assert [type(method) for _, method in client.methods()] == [m.ConnectionTune]
    assert client.broker.of("open") == [("open", "/")]
    assert client.connection.paused
    client.broker.answer()
    assert [type(method) for _, method in client.methods()] == [m.ConnectionOpenOk, m.ChannelOpenOk]
    assert not client.connection.paused
    assert client.woken


def test_limits_hold_from_the_frame_after_they_were_agreed() -> None:
    client = Client()
    client.receive(handshake() + method_frame(1, m.ChannelOpen()) + publish(1, bytes(5000)) + publish(1))
    assert [len(call[5]) for call in client.broker.of("publish")] == [5000, 5]


def test_answers_that_come_after_the_end_change_nothing() -> None:
    client = Client()
    client.broker.hold = True
    client.receive(handshake())
    client.connection.lost()
    client.output()
    client.broker.answer()
    assert client.output() == b""
    assert client.broker.calls == [("authenticate", "guest"), ("closed",)]
    assert client.connection.user == ""


def test_a_shutdown_during_the_password_check_is_told() -> None:
    client = Client()
    client.broker.hold = True
    client.receive(handshake())
    client.connection.close(320, connection_forced("broker shutdown").text)
    closes_with(client, 320, "CONNECTION_FORCED - broker shutdown")
    client.receive(method_frame(0, m.ConnectionCloseOk()))
    assert not client.connection.ended
    client.broker.answer()
    assert client.output() == b""
    assert client.connection.ended


def test_heartbeats_go_out_at_half_the_interval() -> None:
    client = opened(tune_ok=m.ConnectionTuneOk(10, 4096, 4))
    client.pass_time(1.9)
    assert client.output() == b""
    client.pass_time(0.2)
    assert client.output() == HEARTBEAT
    client.pass_time(1.5)
    assert client.output() == b""
    client.pass_time(0.6)
    assert client.output() == HEARTBEAT


def test_output_of_any_kind_is_a_heartbeat() -> None:
    client = opened(tune_ok=m.ConnectionTuneOk(10, 4096, 4))
    client.pass_time(1.9)
    client.exchange(m.QueueDeclare("q"))
    client.pass_time(1.9)
    assert client.output() == b""


def test_a_client_silent_for_two_intervals_is_gone() -> None:
    client = opened(tune_ok=m.ConnectionTuneOk(10, 4096, 4))
    client.pass_time(7)
    client.receive(HEARTBEAT)
    client.pass_time(7.9)
    assert not client.connection.ended
    client.pass_time(0.2)
    assert client.connection.ended
    assert client.connection.reason == "missed heartbeats from client, timeout: 4s"
    assert [call[0] for call in client.broker.calls] == ["release", "closed"]


def test_without_heartbeats_silence_is_no_end() -> None:
    client = opened(tune_ok=m.ConnectionTuneOk(10, 4096, 0))
    client.pass_time(1e6)
    assert client.output() == b""
    assert not client.connection.ended


def test_silence_of_a_paused_connection_is_the_servers_own() -> None:
    client = opened(tune_ok=m.ConnectionTuneOk(10, 4096, 4), max_waiting=10)
    client.broker.hold = True
    client.exchange(m.QueueDeclare("q"), m.QueueDeclare("r"))
    assert client.connection.paused
    client.pass_time(100)
    assert not client.connection.ended
