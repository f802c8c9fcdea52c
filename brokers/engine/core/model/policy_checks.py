"""Whether a policy makes sense; asked by the node that proposes it."""

from __future__ import annotations

from brokers.engine.core.amqp import errors
from brokers.engine.core.model.authorize import check_pattern
from brokers.engine.core.model.equivalence import DEAD_LETTER_EXCHANGE, QUEUE_ARGUMENTS
from brokers.engine.core.model.policies import ALTERNATE_EXCHANGE, APPLY_TO, LIMITS, Policy

OPERATOR_KEYS = (
    *("delivery-limit", "expires", "max-in-memory-bytes", "max-in-memory-length"),
    *("max-length", "max-length-bytes", "message-ttl"),
)
"""What an operator policy may set: limits, of which the lower one of both policies counts."""
IGNORED_KEYS = (
    *("ha-mode", "ha-params", "ha-sync-mode", "ha-sync-batch-size"),
    *("ha-promote-on-shutdown", "ha-promote-on-failure"),
)
"""Accepted for the sake of programs that set them, and of no effect: every durable queue is replicated."""
BORN_WITH = ("queue-type", "max-priority", "single-active-consumer", "quorum-initial-group-size")
"""What a queue is declared with and keeps."""


def check_policy(policy: Policy, operator: bool) -> None:
    """Check what is to become a policy. Raises ``AmqpError`` 406 that names what is wrong."""
    if not policy.name:
        raise errors.precondition_failed("the name of a policy must not be empty")
    check_pattern(policy.pattern)
    if policy.apply_to not in APPLY_TO:
        raise errors.precondition_failed(
            f"apply-to of a policy must be one of {', '.join(APPLY_TO)}, not '{policy.apply_to}'"
        )
    if not policy.definition:
        raise errors.precondition_failed("the definition of a policy must set something")
    for key, value in policy.definition.items():
        if operator and key not in OPERATOR_KEYS:
            raise errors.precondition_failed(
                f"'{key}' cannot be set by an operator policy; it can set {', '.join(OPERATOR_KEYS)}"
            )
        wrong = _wrong(policy, key, value)
        if wrong is not None:
            raise errors.precondition_failed(f"invalid value {value!r} of policy setting '{key}': {wrong}")


def _wrong(policy: Policy, key: str, value: object) -> str | None:
    if key in IGNORED_KEYS:
        return None
    if key == ALTERNATE_EXCHANGE:
        return None if isinstance(value, str) else "it must be the name of an exchange"
    check = QUEUE_ARGUMENTS.get(f"x-{key}")
    if check is None or key in BORN_WITH:
        raise errors.precondition_failed(f"'{key}' is not a recognised policy setting")
    # A routing key for dead letters may stand here while the queue names their exchange.
    return check(value, {DEAD_LETTER_EXCHANGE: "", **{f"x-{k}": v for k, v in policy.definition.items()}})


def check_limits(limits: dict[str, int]) -> None:
    """Check limits of a vhost. Raises ``AmqpError`` 406 for an unknown one or no whole number."""
    for name, value in limits.items():
        if name not in LIMITS:
            raise errors.precondition_failed(
                f"'{name}' is no limit of a vhost; there are {', '.join(LIMITS)}"
            )
        if not isinstance(value, int) or isinstance(value, bool):
            raise errors.precondition_failed(f"limit '{name}' must be a whole number, not {value!r}")
