"""Which messages of a queue somebody has chosen on a page, and other fields of forms."""

from __future__ import annotations

from django.http import QueryDict

MOST = 1000
"""Messages or groups that are chosen one by one."""


def choice_of(form: QueryDict) -> tuple[list[int] | None, list[str]]:
    """Positions (None: all) and groups of the fields ``position`` and ``group``. Raises ``ValueError``."""
    positions = [whole(text, "a position") for text in form.getlist("position")[:MOST]]
    groups = [text for text in form.getlist("group")[:MOST] if text]
    if any(len(text) > 64 or not text.isalnum() for text in groups):
        raise ValueError("there is no such group")
    return sorted({p for p in positions if p is not None}) if positions else None, groups


def whole(text: str, what: str, most: int = 1 << 52) -> int | None:
    """A whole number as typed, None for nothing. Raises ``ValueError`` that says ``what`` it should be."""
    text = text.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 17 and int(text) <= most):
        raise ValueError(f"{what} is a whole number up to {most:,}, not {text:.40}")
    return int(text)
