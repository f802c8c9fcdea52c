"""The control API's methods that look into queues and put messages into them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from brokers.engine.control import protocol
from brokers.engine.control.protocol import ControlError
from brokers.engine.core.amqp.properties import BasicProperties, decode_properties, encode_header
from brokers.engine.core.amqp.table import Timestamp
from brokers.engine.core.model.arguments import arguments_from_json, arguments_to_json, to_json
from brokers.engine.core.model.entries import split
from brokers.engine.core.model.hashing import MessageHeaders
from brokers.engine.core.model.routing import route as find_queues
from brokers.engine.core.model.topology import DEFAULT_EXCHANGE, QueueInfo
from brokers.engine.node.params import Params, number, table, text
from brokers.engine.node.targets import Gather, names

if TYPE_CHECKING:
    from brokers.engine.node.hosts import Host
    from brokers.engine.node.node import Node

MAX_PEEK = 1000
"""Messages that one call shows at most."""
MAX_SHOWN = 64 * 1024
"""Bytes of a body that are shown unless told otherwise."""
MAX_ANSWER = 16 << 20
"""Bytes of bodies in one answer."""
CONFIRM_WITHIN = 15.0
"""Seconds that queues have to commit a published message."""

AskPeer = Callable[[int, str, Params], Awaitable[object]]


class MessagesApi:
    """``peek`` and ``publish``."""

    def __init__(self, node: Node, ask_peer: AskPeer) -> None:
        self._node = node
        self._ask_peer = ask_peer
        self.methods: dict[str, Callable[[Params], Awaitable[object]]] = {
            "peek": self._peek,
            "publish": self._publish,
        }

    async def _peek(self, params: Params) -> object:
        vhost, name = text(params, "vhost", "/"), text(params, "name")
        found = self._node.service.metadata.state.vhosts.get(vhost)
        info = found.queues.get(name) if found is not None else None
        if info is None:
            raise ControlError(protocol.NOT_FOUND, f"there is no queue {name!r} in vhost {vhost!r}")
        count = min(number(params, "count", 10, low=0), MAX_PEEK)
        shown = number(params, "max_bytes", MAX_SHOWN, low=0)
        host = self._node.queues.hosts.get(info.group)
        if host is not None and host.leader is not None:
            return {"messages": _messages(host, count, shown)}
        leader = self._node.queues.leaders.get(info.group)
        if leader is None or leader[0] == self._node.me.id or leader[0] not in self._node.peers.links:
            raise ControlError(protocol.NO_QUORUM, f"queue {name!r} has no leader now that could be asked")
        return await self._ask_peer(leader[0], "peek", params)

    async def _publish(self, params: Params) -> object:
        vhost_name, exchange = text(params, "vhost", "/"), text(params, "exchange", DEFAULT_EXCHANGE)
        key, body = text(params, "routing_key", ""), payload_from(params)
        properties = properties_from(table(params, "properties", {}))
        vhost = self._node.service.metadata.state.vhosts.get(vhost_name)
        if vhost is None:
            raise ControlError(protocol.NOT_FOUND, f"there is no vhost {vhost_name!r}")
        if exchange != DEFAULT_EXCHANGE and exchange not in vhost.exchanges:
            raise ControlError(
                protocol.NOT_FOUND, f"there is no exchange {exchange!r} in vhost {vhost_name!r}"
            )
        try:
            header = encode_header(properties, len(body))
        except ValueError as error:
            raise ControlError(protocol.BAD_PARAMS, str(error)) from error

        def headers() -> Mapping[str, object]:
            return MessageHeaders(properties, properties.headers or {})

        queues = find_queues(vhost, exchange, key, headers)
        if not queues:
            return {"routed": False}
        await self._put(queues, _route(exchange, key), header, body)
        return {"routed": True}

    async def _put(self, queues: tuple[QueueInfo, ...], route: bytes, header: bytes, body: bytes) -> None:
        answer = _Answer()
        gather = Gather(answer)
        gather.expect(1, len(queues))
        for queue in queues:
            self._node.queues.link(queue).add(gather, 1, route, header, body)
        self._node.wake()
        try:
            async with asyncio.timeout(CONFIRM_WITHIN):
                taken = await answer.future
        except TimeoutError:
            raise ControlError(
                protocol.OUTCOME_UNKNOWN, f"the message was not confirmed within {CONFIRM_WITHIN:g} s"
            ) from None
        if not taken:
            raise ControlError(protocol.CONFLICT, "a queue is full and refused the message")


class _Answer:
    """Takes what became of the one message."""

    def __init__(self) -> None:
        self.future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def confirmed(self, first: int, last: int) -> None:
        if not self.future.done():
            self.future.set_result(True)

    def refused(self, first: int, last: int) -> None:
        if not self.future.done():
            self.future.set_result(False)


def _messages(host: Host, count: int, shown: int) -> list[dict[str, Any]]:
    """The first messages of a queue in order of arrival, whoever holds them; nothing changes by it."""
    state = host.state
    leader = host.leader
    held = set().union(*(slot.unsettled for slot in leader.dispatcher.slots.values())) if leader else set()
    rows: list[dict[str, Any]] = []
    size = 0
    position = state.settled.floor
    while len(rows) < count and size < MAX_ANSWER:
        first, end = state.settled.next_gap(position, state.next_position)
        if first >= end:
            break
        entry, base, held_there = state.index.find(first)
        end = min(end, base + held_there, first + count - len(rows))
        messages = host.read(entry)
        ends, data = messages.slice(first - base, end - base)
        for at, (route, header, body) in enumerate(split(ends, data), first):
            row = describe(route, header, body, shown)
            size += len(row["payload"])
            row.update(
                position=at,
                at=messages.stamp / 1000,
                redelivered=at < state.redelivered_below or at in state.counts,
                state="unacked" if at in held else "ready",
            )
            rows.append(row)
            if size >= MAX_ANSWER:
                break
        position = end
    return rows


def describe(route: bytes, header: bytes, body: bytes, shown: int) -> dict[str, Any]:
    """A message as JSON, of its body the first ``shown`` bytes."""
    exchange, key = names(route)
    properties = decode_properties(header)
    present = {
        field.name: getattr(properties, field.name)
        for field in fields(properties)
        if getattr(properties, field.name) is not None
    }
    cut = body[:shown]
    try:
        payload, encoding = cut.decode(), "string"
    except UnicodeDecodeError:
        payload, encoding = base64.b64encode(cut).decode("ascii"), "base64"
    return {
        "exchange": _clean(exchange),
        "routing_key": _clean(key),
        "properties": {name: to_json(value) for name, value in present.items() if name != "headers"},
        "headers": arguments_to_json(properties.headers or {}),
        "payload": payload,
        "payload_encoding": encoding,
        "payload_bytes": len(body),
        "truncated": len(body) > shown,
    }


def _clean(name: str) -> str:
    """A name for JSON: octets that are no UTF-8 are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def payload_from(params: Params) -> bytes:
    """The body that ``payload`` and ``payload_encoding`` describe. Raises ControlError ``bad-params``."""
    payload, encoding = text(params, "payload"), text(params, "payload_encoding", "string")
    if encoding == "string":
        return payload.encode()
    if encoding != "base64":
        raise ControlError(protocol.BAD_PARAMS, f"'payload_encoding' is string or base64, not {encoding!r}")
    try:
        return base64.b64decode(payload, validate=True)
    except ValueError as error:
        raise ControlError(protocol.BAD_PARAMS, f"'payload' is no base64: {error}") from error


def properties_from(given: dict[str, object]) -> BasicProperties:
    """The properties that JSON describes. Raises ControlError ``bad-params``."""
    kinds: dict[str, type] = dict.fromkeys((field.name for field in fields(BasicProperties)), str)
    kinds.update(headers=dict, delivery_mode=int, priority=int, timestamp=int)
    values: dict[str, Any] = {}
    for name, value in given.items():
        kind = kinds.get(name)
        if kind is None or not isinstance(value, kind) or isinstance(value, bool):
            raise ControlError(protocol.BAD_PARAMS, f"property {name!r} cannot be {value!r:.200}")
        values[name] = arguments_from_json(value) if name == "headers" else value
    if "timestamp" in values:
        values["timestamp"] = Timestamp(values["timestamp"])
    return BasicProperties(**values)


def _route(exchange: str, key: str) -> bytes:
    parts = []
    for name in (exchange, key):
        raw = name.encode("utf-8", "surrogateescape")
        if len(raw) > 255:
            raise ControlError(protocol.BAD_PARAMS, f"a name of {len(raw)} bytes; 255 at most")
        parts.append(bytes((len(raw),)) + raw)
    return b"".join(parts)
