import pytest

from brokers.engine.core.amqp import errors


@pytest.mark.parametrize(
    ("error", "code", "text", "scope"),
    [
        (errors.no_queue("x", "/"), 404, "NOT_FOUND - no queue 'x' in vhost '/'", "channel"),
        (errors.no_exchange("x", "/"), 404, "NOT_FOUND - no exchange 'x' in vhost '/'", "channel"),
        (
            errors.login_refused("PLAIN"),
            403,
            "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. "
            "For details see the broker logfile.",
            "connection",
        ),
        (errors.unknown_delivery_tag(5), 406, "PRECONDITION_FAILED - unknown delivery tag 5", "channel"),
        (
            errors.queue_locked("x", "/"),
            405,
            "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'x' in vhost '/'. It could be "
            "originally declared on another connection or the exclusive property value does not match that "
            "of the original declaration.",
            "channel",
        ),
        (
            errors.exclusive_use("x", "/"),
            403,
            "ACCESS_REFUSED - queue 'x' in vhost '/' in exclusive use",
            "channel",
        ),
        (
            errors.inequivalent_argument("durable", "queue", "x", "/", "'false'", "'true'"),
            406,
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'x' in vhost '/': "
            "received 'false' but current is 'true'",
            "channel",
        ),
        (errors.vhost_not_found("v"), 530, "NOT_ALLOWED - vhost v not found", "connection"),
        (errors.invalid_path("p"), 402, "INVALID_PATH - p", "connection"),
        (errors.frame_error("f"), 501, "FRAME_ERROR - f", "connection"),
        (errors.not_implemented("n"), 540, "NOT_IMPLEMENTED - n", "connection"),
        (errors.internal_error("i"), 541, "INTERNAL_ERROR - i", "connection"),
        (errors.content_too_large("c"), 311, "CONTENT_TOO_LARGE - c", "channel"),
    ],
)
def test_errors_are_worded_and_scoped_as_rabbitmq_has_them(
    error: errors.AmqpError, code: int, text: str, scope: str
) -> None:
    assert (error.code, error.text, error.scope) == (code, text, scope)


def test_the_method_at_fault_is_named_once() -> None:
    error = errors.not_found("x").during(60, 40).during(50, 10)
    assert (error.class_id, error.method_id) == (60, 40)


def test_a_reply_text_fits_a_short_string() -> None:
    error = errors.not_found("é" * 200)
    text = error.reply_text()
    assert len(text.encode()) <= 255
    assert text.endswith("é...")
    assert errors.not_found("short").reply_text() == "NOT_FOUND - short"


def test_a_reply_text_is_utf_8_whatever_it_quotes() -> None:
    assert errors.not_found("no \udcff").reply_text() == "NOT_FOUND - no \ufffd"
