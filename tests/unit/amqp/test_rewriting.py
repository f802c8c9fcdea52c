"""Headers with a property changed keep everything else."""

from __future__ import annotations

from hypothesis import given

from brokers.engine.core.amqp.properties import BasicProperties, decode_properties, encode_header
from brokers.engine.core.amqp.rewriting import rewrite
from tests.unit.amqp.strategies import properties


def test_reply_to_is_replaced_and_a_field_dropped_and_put() -> None:
    header = encode_header(
        BasicProperties(
            content_type="text/plain",
            headers={"a": 1, "BCC": ["x"], "z": {"deep": [True, None]}},
            correlation_id="c",
            reply_to="old",
            app_id="app",
        ),
        7,
    )
    changed = rewrite(header, reply_to="new-and-longer", drop=("BCC",), put={"a": -1})
    assert decode_properties(changed) == BasicProperties(
        content_type="text/plain",
        headers={"z": {"deep": [True, None]}, "a": -1},
        correlation_id="c",
        reply_to="new-and-longer",
        app_id="app",
    )
    assert changed[:12] == header[:12]


@given(properties)
def test_nothing_to_change_changes_nothing(given: BasicProperties) -> None:
    header = encode_header(given, 3)
    assert rewrite(header) == header
