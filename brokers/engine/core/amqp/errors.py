"""The protocol's errors, worded as RabbitMQ words them.

Clients and their tests match on reply texts, so the wording is part of the interface. A text is the
code's name, " - " and an explanation; ``AmqpError.text`` is the whole of it.
"""

from __future__ import annotations

from typing import Literal

from brokers.engine.core.amqp import constants as c

Scope = Literal["channel", "connection"]

_TEXT_LIMIT = 255


class AmqpError(Exception):
    """Something the peer did that closes its channel or connection.

    ``code`` is the reply code, ``text`` the reply text, ``scope`` what is closed: unless given it follows
    from the code (AMQP 0-9-1, section 1.2: soft errors close channels, hard ones connections).
    ``class_id`` and ``method_id`` name the method at fault, 0 when there is none.
    """

    def __init__(
        self,
        code: int,
        text: str,
        scope: Scope | None = None,
        class_id: int = 0,
        method_id: int = 0,
    ) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text
        self.scope: Scope = scope or ("channel" if code in c.CHANNEL_CODES else "connection")
        self.class_id = class_id
        self.method_id = method_id

    def __str__(self) -> str:
        return f"{self.code} {self.text}"

    def during(self, class_id: int, method_id: int) -> AmqpError:
        """Name the method at fault, unless one is named already. Returns the error itself."""
        if not self.class_id:
            self.class_id, self.method_id = class_id, method_id
        return self

    def reply_text(self) -> str:
        """``text`` as a short string can hold it: UTF-8; over 255 octets it is cut and ends in "..."."""
        text = self.text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        raw = text.encode()
        if len(raw) <= _TEXT_LIMIT:
            return text
        return raw[: _TEXT_LIMIT - 3].decode("utf-8", "ignore") + "..."


def error(code: int, explanation: str, scope: Scope | None = None) -> AmqpError:
    """An error of any code: ``error(404, "no such")`` has the text ``NOT_FOUND - no such``."""
    return AmqpError(code, f"{c.REPLY_NAMES[code]} - {explanation}", scope)


def content_too_large(explanation: str) -> AmqpError:
    return error(c.CONTENT_TOO_LARGE, explanation)


def connection_forced(explanation: str) -> AmqpError:
    return error(c.CONNECTION_FORCED, explanation)


def invalid_path(explanation: str) -> AmqpError:
    return error(c.INVALID_PATH, explanation)


def access_refused(explanation: str, scope: Scope | None = None) -> AmqpError:
    return error(c.ACCESS_REFUSED, explanation, scope)


def not_found(explanation: str) -> AmqpError:
    return error(c.NOT_FOUND, explanation)


def resource_locked(explanation: str) -> AmqpError:
    return error(c.RESOURCE_LOCKED, explanation)


def precondition_failed(explanation: str) -> AmqpError:
    return error(c.PRECONDITION_FAILED, explanation)


def frame_error(explanation: str) -> AmqpError:
    return error(c.FRAME_ERROR, explanation)


def syntax_error(explanation: str) -> AmqpError:
    return error(c.SYNTAX_ERROR, explanation)


def command_invalid(explanation: str) -> AmqpError:
    return error(c.COMMAND_INVALID, explanation)


def channel_error(explanation: str) -> AmqpError:
    return error(c.CHANNEL_ERROR, explanation)


def unexpected_frame(explanation: str) -> AmqpError:
    return error(c.UNEXPECTED_FRAME, explanation)


def resource_error(explanation: str) -> AmqpError:
    return error(c.RESOURCE_ERROR, explanation)


def not_allowed(explanation: str) -> AmqpError:
    return error(c.NOT_ALLOWED, explanation)


def not_implemented(explanation: str) -> AmqpError:
    return error(c.NOT_IMPLEMENTED, explanation)


def internal_error(explanation: str) -> AmqpError:
    return error(c.INTERNAL_ERROR, explanation)


# What RabbitMQ says on particular occasions.


def _named(kind: str, name: str, vhost: str) -> str:
    return f"{kind} '{name}' in vhost '{vhost}'"


def login_refused(mechanism: str) -> AmqpError:
    """Wrong user or password; says no more on purpose."""
    return access_refused(
        f"Login was refused using authentication mechanism {mechanism}. For details see the broker logfile.",
        "connection",
    )


def loopback_only(user: str) -> AmqpError:
    """A user that may connect through loopback alone came from elsewhere. For the log: it names the user."""
    return access_refused(f"user '{user}' can only connect via localhost", "connection")


def vhost_not_found(vhost: str) -> AmqpError:
    return not_allowed(f"vhost {vhost} not found")


def vhost_refused(vhost: str, user: str) -> AmqpError:
    return not_allowed(f"access to vhost '{vhost}' refused for user '{user}'")


def no_queue(name: str, vhost: str) -> AmqpError:
    return not_found(f"no {_named('queue', name, vhost)}")


def no_exchange(name: str, vhost: str) -> AmqpError:
    return not_found(f"no {_named('exchange', name, vhost)}")


def no_previous_queue() -> AmqpError:
    """An empty queue name stood for the last declared queue, and there is none."""
    return not_found("no previously declared queue")


def queue_locked(name: str, vhost: str) -> AmqpError:
    """An exclusive queue of another connection (405)."""
    return resource_locked(
        f"cannot obtain exclusive access to locked {_named('queue', name, vhost)}. It could be originally "
        "declared on another connection or the exclusive property value does not match that of the "
        "original declaration."
    )


def exclusive_use(name: str, vhost: str) -> AmqpError:
    """A consumer wants or has the queue for itself (403)."""
    return access_refused(f"{_named('queue', name, vhost)} in exclusive use")


def permission_refused(kind: str, name: str, vhost: str, user: str) -> AmqpError:
    """``kind`` is "queue" or "exchange"."""
    return access_refused(f"access to {_named(kind, name, vhost)} refused for user '{user}'")


def default_exchange_refused() -> AmqpError:
    return access_refused("operation not permitted on the default exchange")


def internal_exchange_refused(name: str, vhost: str) -> AmqpError:
    return access_refused(f"cannot publish to internal {_named('exchange', name, vhost)}")


def reserved_name(kind: str, name: str) -> AmqpError:
    """A name beginning with "amq." that the server has not given."""
    return access_refused(f"{kind} name '{name}' contains reserved prefix 'amq.*'")


def inequivalent_argument(
    argument: str, kind: str, name: str, vhost: str, received: str, current: str
) -> AmqpError:
    """A declaration that does not fit what exists; ``received`` and ``current`` as RabbitMQ prints them,
    e.g. "'true'", "none" or "the value '5' of type 'long'": this function adds no quotes."""
    return precondition_failed(
        f"inequivalent arg '{argument}' for {_named(kind, name, vhost)}: "
        f"received {received} but current is {current}"
    )


def in_use(kind: str, name: str, vhost: str) -> AmqpError:
    return precondition_failed(f"{_named(kind, name, vhost)} in use")


def not_empty(name: str, vhost: str) -> AmqpError:
    return precondition_failed(f"{_named('queue', name, vhost)} not empty")


def unknown_exchange_type(exchange_type: str) -> AmqpError:
    """As RabbitMQ 4 has it: the channel closes. Up to 3.13 it was 503, and the whole connection's end."""
    return precondition_failed(f"unknown exchange type '{exchange_type}'")


def unknown_delivery_tag(tag: int) -> AmqpError:
    return precondition_failed(f"unknown delivery tag {tag}")
