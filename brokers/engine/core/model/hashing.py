"""The consistent-hash exchange (RabbitMQ's plugin ``x-consistent-hash``): each message goes to one
destination, the same one for the same routing key (or header, or property) as long as the bindings stay.

The binding key is the binding's weight. Destinations are chosen by weighted rendezvous hashing (Thaler and
Ravishankar, 1998; weights as Schindelhauer and Schomaker, 2005): every binding scores the message, the
highest score has it. So a binding added or removed moves only the messages that are its own, the shares
follow the weights exactly, memory is one number a binding, and all nodes choose alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING

from brokers.engine.core.amqp import errors
from brokers.engine.core.model.arguments import Arguments, to_json

if TYPE_CHECKING:
    from brokers.engine.core.model.tables import Headers
    from brokers.engine.core.model.topology import Binding, BindingKey, Destination

CONSISTENT_HASH = "x-consistent-hash"
HASH_HEADER, HASH_PROPERTY = "hash-header", "hash-property"
PROPERTIES = ("correlation_id", "message_id", "timestamp")
"""The properties that may be hashed on."""

_MASK = 2**64 - 1


def check_hash_arguments(arguments: Arguments) -> None:
    """Check the arguments of a declaration, in the plugin's words. Raises ``AmqpError`` 406."""
    if HASH_PROPERTY not in arguments:
        return
    if HASH_HEADER in arguments:
        raise errors.precondition_failed("hash-header and hash-property are mutually exclusive")
    if arguments[HASH_PROPERTY] not in PROPERTIES:
        raise errors.precondition_failed(f"Unsupported property: {arguments[HASH_PROPERTY]}")


def check_weight(key: str) -> None:
    """Check a binding key. Raises ``AmqpError`` 406 unless it is a whole number above 0."""
    weight = _weight(key)
    if weight is None:
        raise errors.precondition_failed(f'The binding key must be an integer: <<"{key}">>')
    if weight < 1:
        raise errors.precondition_failed("The binding key must be greater than 0")


def _weight(key: str) -> int | None:
    digits = key[1:] if key[:1] in ("+", "-") else key
    return int(key) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None


class ConsistentHashTable:
    """The bindings of one consistent-hash exchange."""

    def __init__(self, arguments: Arguments) -> None:
        self._header = arguments.get(HASH_HEADER)
        self._property = arguments.get(HASH_PROPERTY)
        self.needs_headers = self._header is not None or self._property is not None
        self._bindings: dict[BindingKey, tuple[int, float, Destination]] = {}

    def add(self, binding: Binding) -> None:
        weight = _weight(binding.routing_key)
        if weight is None or weight < 1:
            return  # bound before the exchange was this one's; it gets nothing
        seed = _hash(f"{binding.kind.value}\0{binding.destination}\0{binding.routing_key}".encode())
        self._bindings[binding.key] = (seed, float(weight), binding.target)

    def remove(self, binding: Binding) -> None:
        self._bindings.pop(binding.key, None)

    def match(self, routing_key: str, headers: Headers) -> Iterable[Destination]:
        if not self._bindings:
            return ()
        key = _hash(self._hashed(routing_key, headers))
        best, chosen = -1.0, None
        for seed, weight, target in self._bindings.values():
            mixed = _mix(key ^ seed)
            score = -weight / math.log((mixed + 0.5) / 2**64) if mixed < _MASK else math.inf
            if score > best:
                best, chosen = score, target
        return (chosen,) if chosen is not None else ()

    def _hashed(self, routing_key: str, headers: Headers) -> bytes:
        if self._header is not None:
            return _octets(headers().get(str(self._header)))
        if self._property is not None:
            properties = getattr(headers(), "properties", None)
            return _octets(getattr(properties, str(self._property), None))
        return routing_key.encode("utf-8", "surrogateescape")


class MessageHeaders(dict[str, object]):
    """A message's headers, with the properties they stood among."""

    def __init__(self, properties: object, headers: Mapping[str, object]) -> None:
        super().__init__(headers)
        self.properties = properties


def _octets(value: object) -> bytes:
    """A header's value as octets to hash; what is not there counts as empty."""
    if value is None:
        return b""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    text = value if isinstance(value, str) else repr(to_json(value))
    return text.encode("utf-8", "surrogateescape")


def _hash(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def _mix(value: int) -> int:
    """Spread the bits of a 64-bit number (the finalizer of SplitMix64; Steele, Lea and Flood, 2014)."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
