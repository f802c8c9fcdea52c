"""The control API's methods for backups: what is to be saved, the messages themselves, and putting them back.

A backup of several queues is cut in two steps (see docs/backups.md): ``backup_open`` notes which messages
are unsettled, on any replica; when all queues are open, ``backup_end`` asks their leaders how far they go. What
a consumer moved from one queue to another in between is then in both, never in neither.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from brokers.engine.control import protocol
from brokers.engine.control.protocol import ControlError
from brokers.engine.core.amqp.properties import check_header
from brokers.engine.core.model.blocks import Block, BlockReader
from brokers.engine.core.model.death import annotate
from brokers.engine.core.model.entries import split
from brokers.engine.core.model.topology import QueueInfo
from brokers.engine.node.definitions import export, import_definitions
from brokers.engine.node.hosts import Host
from brokers.engine.node.params import Params, flag, number, optional_text, table, text

if TYPE_CHECKING:
    from brokers.engine.node.node import Node

MAX_CHUNK = 8 << 20
"""Bytes that one ``backup_read`` gives at most."""
MAX_RUNS = 1_000_000
"""Stretches of unsettled messages that one queue may have; more do not fit an answer."""
HOLD = 120.0
"""Seconds for which a queue keeps what a backup has yet to read, from its last read on."""
CONFIRM_WITHIN = 15.0
"""Seconds that a queue has to commit what is put back."""
CATCH_UP = 5.0
"""Seconds that a follower has to reach the position that it is to be read up to."""
MAX_UPLOAD = 256 << 20
MAX_UPLOADS = 4
"""Parts of messages too long for one line that are kept until the rest comes."""
RESTORED_FROM = "x-restored-from"

Method = Callable[[Params], Awaitable[object]]


class BackupApi:
    """``methods`` by name; ``admin`` are those that definitions are imported with."""

    def __init__(self, node: Node, admin: Mapping[str, Method]) -> None:
        self._node = node
        self._admin = admin
        self._uploads: dict[str, bytes] = {}
        self.methods: dict[str, Method] = {
            "definitions": self._definitions,
            "import_definitions": self._import,
            "backup_open": self._open,
            "backup_end": self._end,
            "backup_hold": self._hold,
            "backup_read": self._read,
            "backup_write": self._write,
        }

    async def _definitions(self, params: Params) -> object:
        state = self._node.service.metadata.state
        return {"cluster": state.cluster, "definitions": export(state)}

    async def _import(self, params: Params) -> object:
        return await import_definitions(
            self._node.service.metadata.state, self._admin, table(params, "definitions")
        )

    # -- saving ---------------------------------------------------------------------------------------

    async def _open(self, params: Params) -> object:
        """What is unsettled here of queues ``[[vhost, name], ...]``."""
        answer = []
        for info in self._queues(params):
            host = self._host(info)
            state = host.state
            gaps: list[int] = []
            for first, end in state.settled.gaps(state.settled.floor, state.next_position):
                gaps += (first, end)
                if len(gaps) > 2 * MAX_RUNS:
                    raise ControlError(
                        protocol.CONFLICT,
                        f"queue {info.name!r} has more than {MAX_RUNS} stretches of unsettled messages; "
                        f"acknowledge the old ones first",
                    )
            host.hold(state.settled.floor, self._node.now() + HOLD)
            answer.append(
                {
                    "group": info.group,
                    "runs": gaps,
                    "next": state.next_position,
                    "messages": state.messages,
                    "bytes": state.bytes,
                }
            )
            await asyncio.sleep(0)
        return {"node": self._node.me.name, "queues": answer}

    async def _end(self, params: Params) -> object:
        """How far queues ``[[vhost, name], ...]`` led here go: all that was confirmed lies below."""
        ends = []
        for info in self._queues(params):
            host = self._host(info)
            if host.leader is None:
                raise ControlError(
                    protocol.CONFLICT, f"{self._node.me.name} does not lead queue {info.name!r} any more"
                )
            ends.append({"group": info.group, "end": host.state.next_position})
        return {"node": self._node.me.name, "queues": ends}

    async def _hold(self, params: Params) -> object:
        """Keep queues ``[[vhost, name], ...]`` readable from their ``positions`` on for a while."""
        positions = params.get("positions")
        queues = self._queues(params)
        if not isinstance(positions, list) or len(positions) != len(queues):
            raise ControlError(protocol.BAD_PARAMS, "'positions' must be a list as long as 'queues'")
        until = self._node.now() + HOLD
        for info, position in zip(queues, positions, strict=True):
            self._host(info).hold(int(position), until)
        return {}

    async def _read(self, params: Params) -> object:
        """Messages at ``runs`` ([first, end, first, end ...]) as a stream of blocks, from byte ``skip`` on.

        Gives ``data`` (base64), ``done``, and where to go on: ``at`` (a position) and ``skip``. ``gone`` counts
        messages that were settled since and are not kept any more.
        """
        info = self._info(text(params, "vhost", "/"), text(params, "name"))
        if info.group != number(params, "group"):
            raise ControlError(protocol.NOT_FOUND, f"queue {info.name!r} was deleted and declared anew")
        host = self._host(info)
        wanted = _runs(params)
        skip = number(params, "skip", 0, low=0)
        limit = min(number(params, "max_bytes", MAX_CHUNK, low=1), MAX_CHUNK)
        if not wanted:
            return {"data": "", "done": True, "at": 0, "skip": 0, "gone": 0}
        await self._catch_up(host, wanted[-1][1])
        host.hold(wanted[0][0], self._node.now() + HOLD)
        kept = host.state.kept
        if skip and wanted[0][0] < kept:
            raise ControlError(
                protocol.CONFLICT, f"the rest of a block of queue {info.name!r} is not kept any more"
            )
        gone = sum(max(0, min(end, kept) - first) for first, end in wanted)
        parts: list[bytes] = []
        size = 0
        for block in _blocks(host, [(max(first, kept), end) for first, end in wanted if end > kept]):
            raw = block.encode()
            piece = raw[skip : skip + limit - size]
            parts.append(piece)
            size += len(piece)
            if skip + len(piece) < len(raw):
                return _chunk(parts, block.first, skip + len(piece), gone)
            skip = 0
            if size >= limit:
                return _chunk(parts, block.first + len(block.ends), 0, gone)
        return _chunk(parts, wanted[-1][1], 0, gone, done=True)

    async def _catch_up(self, host: Host, position: int) -> None:
        try:
            async with asyncio.timeout(CATCH_UP):
                while host.state.next_position < position:  # noqa: ASYNC110  a state tells nobody that it moves
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise ControlError(
                protocol.TIMEOUT,
                f"the replica on {self._node.me.name} has not caught up within {CATCH_UP:g} s",
            ) from None

    # -- putting back ---------------------------------------------------------------------------------

    async def _write(self, params: Params) -> object:
        """Publish blocks (``data``, base64) straight into a queue and wait until they are committed.

        ``mark`` (optional) goes into each message's header ``x-restored-from``, with its former position.
        What is too long for one line comes in several with the same ``upload``, all but the last with ``more``.
        """
        info = self._info(text(params, "vhost", "/"), text(params, "name"))
        mark = optional_text(params, "mark")
        try:
            data = base64.b64decode(text(params, "data"), validate=True)
            upload = optional_text(params, "upload")
            if upload is not None:
                data = self._collect(upload, data)
                if flag(params, "more", False):
                    return {"written": 0, "refused": 0}
                del self._uploads[upload]
            reader = BlockReader()
            blocks = reader.feed(data)
            reader.finish()
            messages = [message for block in blocks for message in _messages(block, mark)]
        except ValueError as error:
            raise ControlError(protocol.BAD_PARAMS, f"'data' holds no messages: {error}") from error
        if not messages:
            return {"written": 0, "refused": 0}
        answer = _Answer(len(messages))
        link = self._node.queues.link(info)
        for tag, (route, header, body) in enumerate(messages, 1):
            link.add(answer, tag, route, header, body)
        self._node.wake()
        try:
            async with asyncio.timeout(CONFIRM_WITHIN):
                await answer.done
        except TimeoutError:
            raise ControlError(
                protocol.OUTCOME_UNKNOWN, f"the messages were not confirmed within {CONFIRM_WITHIN:g} s"
            ) from None
        return {"written": len(messages) - answer.refusals, "refused": answer.refusals}

    def _collect(self, upload: str, data: bytes) -> bytes:
        data = self._uploads.pop(upload, b"") + data
        if len(data) > MAX_UPLOAD:
            raise ControlError(protocol.BAD_PARAMS, f"more than {MAX_UPLOAD} bytes of messages in one call")
        self._uploads[upload] = data
        while len(self._uploads) > MAX_UPLOADS:
            del self._uploads[next(iter(self._uploads))]
        return data

    # -- finding --------------------------------------------------------------------------------------

    def _queues(self, params: Params) -> list[QueueInfo]:
        named = params.get("queues")
        if not isinstance(named, list):
            raise ControlError(protocol.BAD_PARAMS, f"'queues' must be a list, not {named!r:.200}")
        return [self._info(*pair) for pair in named]

    def _info(self, vhost: str, name: str) -> QueueInfo:
        found = self._node.service.metadata.state.vhosts.get(vhost)
        info = found.queues.get(name) if found is not None else None
        if info is None:
            raise ControlError(protocol.NOT_FOUND, f"there is no queue {name!r} in vhost {vhost!r}")
        return info

    def _host(self, info: QueueInfo) -> Host:
        host = self._node.queues.hosts.get(info.group)
        if host is None:
            raise ControlError(protocol.NOT_FOUND, f"{self._node.me.name} has no replica of {info.name!r}")
        return host


class _Answer:
    """Waits until all messages are answered for."""

    def __init__(self, missing: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.refusals = 0
        self._missing = missing

    def confirmed(self, first: int, last: int) -> None:
        self._missing -= last - first + 1
        if not self._missing and not self.done.done():
            self.done.set_result(None)

    def refused(self, first: int, last: int) -> None:
        self.refusals += last - first + 1
        self.confirmed(first, last)


def _runs(params: Params) -> list[tuple[int, int]]:
    flat = params.get("runs")
    if (
        not isinstance(flat, list)
        or len(flat) % 2
        or not all(isinstance(value, int) for value in flat)
        or any(low >= high for low, high in pairwise(flat))
    ):
        raise ControlError(
            protocol.BAD_PARAMS, f"'runs' must be pairs of rising positions, not {flat!r:.200}"
        )
    return list(zip(flat[0::2], flat[1::2], strict=True))


def _blocks(host: Host, wanted: list[tuple[int, int]]) -> Iterator[Block]:
    for first, end in wanted:
        while first < end:
            entry, base, count = host.state.index.find(first)
            stop = min(end, base + count)
            messages = host.read(entry)
            yield Block(first, messages.stamp, *messages.slice(first - base, stop - base))
            first = stop


def _chunk(parts: list[bytes], at: int, skip: int, gone: int, *, done: bool = False) -> dict[str, Any]:
    data = base64.b64encode(b"".join(parts)).decode("ascii")
    return {"data": data, "done": done, "at": at, "skip": skip, "gone": gone}


def _messages(block: Block, mark: str | None) -> Iterator[tuple[bytes, bytes, bytes]]:
    for position, (route, header, body) in enumerate(split(block.ends, block.data), block.first):
        if len(route) < 2 or 1 + route[0] > len(route):
            raise ValueError(f"the message at position {position} has no sound routing key")
        check_header(header)
        if mark is not None:
            header = annotate(header, {RESTORED_FROM: _text_field(RESTORED_FROM, f"{mark}@{position}")})
        yield route, header, body


def _text_field(name: str, value: str) -> bytes:
    raw, content = name.encode(), value.encode()
    return b"".join((bytes((len(raw),)), raw, b"S", len(content).to_bytes(4, "big"), content))
