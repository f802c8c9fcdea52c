import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.errors import AmqpError
from tests.unit.amqp.recording import protocol_error
from tests.unit.amqp.strategies import methods


@given(methods)
def test_a_method_survives_the_wire(method: m.Method) -> None:
    assert m.decode_method(m.encode(method)) == method


@pytest.mark.parametrize(
    ("method", "payload"),
    [
        (m.BasicAck(7, True), b"\x00\x3c\x00\x50" + b"\x00" * 7 + b"\x07\x01"),
        (
            m.QueueDeclare("q", durable=True, auto_delete=True, arguments={"a": None}),
            b"\x00\x32\x00\x0a\x00\x00\x01q\x0a\x00\x00\x00\x03\x01aV",
        ),
        (m.BasicPublish("e", "k", True, False), b"\x00\x3c\x00\x28\x00\x00\x01e\x01k\x01"),
        (m.BasicQos(0, 500, True), b"\x00\x3c\x00\x0a\x00\x00\x00\x00\x01\xf4\x01"),
        (m.ConnectionOpen("/"), b"\x00\x0a\x00\x28\x01/\x00\x00"),
        (m.ChannelOpenOk(), b"\x00\x14\x00\x0b\x00\x00\x00\x00"),
        (m.BasicGetEmpty(), b"\x00\x3c\x00\x48\x00"),
        (m.BasicNack(1, True, False), b"\x00\x3c\x00\x78" + b"\x00" * 7 + b"\x01\x01"),
    ],
)
def test_methods_look_as_the_specification_draws_them(method: m.Method, payload: bytes) -> None:
    assert m.encode(method) == payload
    assert m.decode_method(payload) == method


def test_every_method_of_the_protocol_and_its_extensions_is_known() -> None:
    names = {cls.name for cls in m.all_methods()}
    assert len(names) == 66
    assert {
        "queue.declare-ok",
        "basic.recover-async",
        "connection.update-secret-ok",
        "tx.rollback-ok",
    } <= names


@given(methods, st.data())
def test_cut_methods_are_syntax_errors(method: m.Method, data: st.DataObject) -> None:
    payload = m.encode(method)
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(AmqpError) as caught:
        m.decode_method(payload[:cut])
    assert caught.value.code == 502
    assert cut < 4 or (caught.value.class_id, caught.value.method_id) == (method.class_id, method.method_id)


@given(methods)
def test_octets_after_the_arguments_are_syntax_errors(method: m.Method) -> None:
    with pytest.raises(AmqpError, match="too many"):
        m.decode_method(m.encode(method) + b"\x00")


@given(st.binary(max_size=64))
def test_any_octets_give_a_method_or_a_protocol_error(payload: bytes) -> None:
    error = protocol_error(m.decode_method, payload)
    assert error is None or error.code in (502, 503)


def test_a_method_that_does_not_exist_is_invalid() -> None:
    with pytest.raises(AmqpError, match=r"503 COMMAND_INVALID - unknown method 60\.99") as caught:
        m.decode_method(b"\x00\x3c\x00\x63")
    assert (caught.value.class_id, caught.value.method_id) == (60, 99)


def test_names_are_utf_8_and_routing_keys_anything() -> None:
    assert m.decode_method(b"\x00\x3c\x00\x28\x00\x00\x00\x01\xff\x00") == m.BasicPublish("", "\udcff")
    with pytest.raises(AmqpError, match="SYNTAX_ERROR - exchange of basic.publish is not UTF-8"):
        m.decode_method(b"\x00\x3c\x00\x28\x00\x00\x01\xff\x00\x00")


def test_what_does_not_fit_is_not_written() -> None:
    with pytest.raises(ValueError, match=r"queue of queue\.purge does not fit"):
        m.encode(m.QueuePurge("q" * 256))
    with pytest.raises(ValueError, match=r"prefetch_count of basic\.qos does not fit"):
        m.encode(m.BasicQos(0, 65536))
