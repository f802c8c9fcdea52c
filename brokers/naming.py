"""Names of virtual hosts and queues in addresses and in element ids. A name may be any text at all."""

from __future__ import annotations

import re
from hashlib import blake2b

_ESCAPED = re.compile(r"~([0-9A-F]{2})")
_UNSAFE = re.compile(r"[~/\\]")


class NameConverter:
    """A path segment that holds any name: "/" is written ~2F, so the default vhost's address is .../~2F/...

    Percent-encoding would not do: servers decode %2F before Django sees the path. A name of dots alone is
    escaped too, browsers take such segments for navigation.
    """

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        """The name that the segment stands for."""
        return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), value)

    def to_url(self, value: str) -> str:
        """The segment for a name; Django percent-encodes the rest."""
        if value in (".", ".."):
            return value.replace(".", "~2E")
        return _UNSAFE.sub(lambda match: f"~{ord(match[0]):02X}", value)


def dom_id(*names: str) -> str:
    """An element id for something with these names: the same in every process, and nothing but hex."""
    digest = blake2b("\0".join(names).encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()
    return f"x{digest}"
