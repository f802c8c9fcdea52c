"""The property ``expiration``: milliseconds as a string, checked when a message comes in."""

from __future__ import annotations

import re

from brokers.engine.core.amqp.errors import precondition_failed

EXPIRATION = 0x0100
"""The flag of the property in a content header."""
MAX_MILLISECONDS = 315_360_000_000
"""Ten years, as for a queue's TTL."""

_NUMBER = re.compile(r"([+-]?[0-9]+)(.*)", re.DOTALL)


def parse_expiration(text: str) -> int:
    """Milliseconds. Raises ``AmqpError`` 406 in RabbitMQ's words for what is none, or too much."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        wrong = "no_integer"
    elif found[2]:
        wrong = f'{{leftover_string,"{found[2]}"}}'
    elif len(found[1]) <= 20 and 0 <= int(found[1]) <= MAX_MILLISECONDS:
        return int(found[1])
    else:
        wrong = f"{{value_{'negative' if found[1].startswith('-') else 'too_large'},{found[1]}}}"
    raise precondition_failed(f"invalid expiration '{text}': {wrong}")
