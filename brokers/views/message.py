"""One message as the templates show it: body as text, JSON or hex, and nothing of it believed."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

SHOWN: Final = 64 * 1024
"""Bytes of a body that a page shows."""
HEX_BYTES: Final = 4 * 1024
"""Bytes of a body that are shown in hex."""
BRIEF: Final = 120
"""Characters of a body in a list."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A message ready for ``_message.html``."""

    row: Mapping[str, Any]
    form: str
    """What the body was taken for: JSON, text or binary."""
    body: str
    hex: str
    properties: Mapping[str, Any]
    headers: Mapping[str, str]
    deaths: str


def shown(row: Mapping[str, Any]) -> Shown:
    """A message of the control API, prepared for a page."""
    raw = body_of(row)
    headers = {name: as_text(value) for name, value in row["headers"].items() if name != "x-death"}
    deaths = row["headers"].get("x-death")
    form, body = "binary", ""
    if row["payload_encoding"] == "string":
        form, body = "text", row["payload"]
        if not row["truncated"] and (pretty := _pretty(body)) is not None:
            form, body = "JSON", pretty
    return Shown(
        row,
        form,
        body,
        hex_dump(raw[:HEX_BYTES]),
        row["properties"],
        headers,
        "" if deaths is None else json.dumps(deaths, indent=2, ensure_ascii=False),
    )


def body_of(row: Mapping[str, Any]) -> bytes:
    """The body's bytes, as far as they were sent."""
    payload: str = row["payload"]
    return base64.b64decode(payload) if row["payload_encoding"] == "base64" else payload.encode()


def brief(row: Mapping[str, Any]) -> str:
    """A body in one short line."""
    text = row["payload"] if row["payload_encoding"] == "string" else body_of(row).hex(" ")
    line = " ".join(text[: 2 * BRIEF].split())
    return line if len(line) <= BRIEF and not row["truncated"] else line[:BRIEF] + "…"


def as_text(value: object) -> str:
    """A header's value in one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def hex_dump(data: bytes) -> str:
    """Sixteen bytes a line: offset, bytes, printable characters."""
    lines = []
    for offset in range(0, len(data), 16):
        part = data[offset : offset + 16]
        printable = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{offset:08x}  {part.hex(' '):<47}  {printable}")
    return "\n".join(lines)


def _pretty(text: str) -> str | None:
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
