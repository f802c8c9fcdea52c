"""Reading the process environment, with errors that say which variable was wrong and how to write it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"", "0", "false", "no", "off"}


def flag(name: str, default: bool = False) -> bool:
    """A yes/no variable. Raises ``ImproperlyConfigured`` for anything but yes/no, true/false, on/off, 1/0."""
    raw = os.environ.get(name)
    if raw is None:
        return default
    value = raw.strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ImproperlyConfigured(f"{name} is {raw!r}; write yes or no.")


def number(name: str, default: int, low: int, high: int) -> int:
    """A whole number within ``low`` .. ``high``. Raises ``ImproperlyConfigured`` otherwise."""
    raw = os.environ.get(name, "").strip()
    if not raw:
        return default
    try:
        value = int(raw)
    except ValueError:
        raise ImproperlyConfigured(f"{name} is {raw!r}; write a whole number.") from None
    if not low <= value <= high:
        raise ImproperlyConfigured(f"{name} is {value}; it must be from {low} to {high}.")
    return value


def words(name: str, default: str = "") -> list[str]:
    """A comma-separated variable as a list, blanks dropped."""
    return [word.strip() for word in os.environ.get(name, default).split(",") if word.strip()]


def kept_secret(name: str, path: Path, length: int = 50) -> str:
    """The variable ``name``, else what ``path`` keeps, else a new secret written there with mode 600.

    Several processes may start at the same time on a fresh machine: the file appears whole or not at all,
    and whoever loses the race reads the winner's secret.
    """
    given = os.environ.get(name, "")
    if given:
        return given
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(length) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass  # another process was first; its secret is the one that counts
    finally:
        draft.unlink()
    return path.read_text(encoding="ascii").strip()
