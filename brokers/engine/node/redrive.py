"""Sending dead letters on, and discarding them, in batches that are carried to their end.

A batch is *reserved* first: no consumer is handed its messages meanwhile. Redriven ones are published through
this node's links, as clients' publishes are, and only what all queues reached have committed is settled. A
batch goes on when its caller is gone; who asks again for the same gets its answer. So a message is sent twice
only where the leader itself is lost in between, and then it says so (``x-redrive-duplicate``).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from brokers.engine.control import protocol
from brokers.engine.control.protocol import ControlError
from brokers.engine.core.amqp.properties import decode_properties, encode_header
from brokers.engine.core.amqp.table import encode_field
from brokers.engine.core.model.death import annotate, join_route, long_field, split_route
from brokers.engine.core.model.delivery import Slot
from brokers.engine.core.model.entries import Settled
from brokers.engine.core.model.hashing import MessageHeaders
from brokers.engine.core.model.intervals import runs
from brokers.engine.core.model.routing import route as find_queues
from brokers.engine.core.model.topology import DEFAULT_EXCHANGE, QueueInfo
from brokers.engine.core.model.vhost import VHost
from brokers.engine.core.session.leader import QueueLeader
from brokers.engine.node.browse import MAX_PAGE, MAX_SCAN, BrowseApi, Found, Selection, scan
from brokers.engine.node.causes import cause_of, origin_of
from brokers.engine.node.messages_api import describe, payload_from, properties_from
from brokers.engine.node.params import Params, flag, number, optional_text, table, text
from brokers.engine.node.targets import Gather

if TYPE_CHECKING:
    from brokers.engine.node.hosts import Host
    from brokers.engine.node.node import Node

BATCH_BYTES = 4 << 20
"""Bytes of bodies in one batch, about."""
MAX_EDITED = 256 * 1024
"""Bytes of the largest body that can be edited: the original is kept whole."""
ANSWER_WITHIN = 4.0
"""Seconds that a call waits for its batch; it may be asked for again then."""
POLL = 0.002
"""Seconds between two looks at whether a settlement is committed."""
FROM, POSITION, RUN, DUPLICATE = (
    "x-redriven-from",
    "x-redriven-position",
    "x-redrive-id",
    "x-redrive-duplicate",
)
"""Headers of a redriven message: queue and position it comes from, the run that sent it, and (true) that it
may have been sent before."""
_DEATHS = ("x-death", "x-first-death-", "x-last-death-")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done to the messages of a batch."""

    run: str
    """The run that it belongs to."""
    discard: bool = False
    exchange: str | None = None
    """Where they go; None: back to the queue in which they died."""
    key: str | None = None
    """The routing key for ``exchange``; None: the one they had."""
    unsure: bool = False
    edit: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Batch:
    """One batch, under way or over."""

    first: int
    order: Order
    leader: QueueLeader
    task: asyncio.Task[dict[str, Any]] | None = None


class _Answers:
    """What became of the published messages, by tag: a ``Sink``."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.safe: set[int] = set()
        self.full: set[int] = set()

    def confirmed(self, first: int, last: int) -> None:
        """These are committed wherever they went."""
        self.safe.update(range(first, last + 1))
        self.changed.set()

    def refused(self, first: int, last: int) -> None:
        """A queue had no room for these."""
        self.full.update(range(first, last + 1))
        self.changed.set()


class RedriveApi:
    """``redrive`` and ``discard``."""

    def __init__(self, node: Node, browse: BrowseApi) -> None:
        self._node = node
        self._batches: dict[int, Batch] = {}
        """The last one of each queue led here."""
        self._reservations = 0
        self.methods: dict[str, Callable[[Params], Awaitable[object]]] = {
            "redrive": browse.at_leader("redrive", self._redrive),
            "discard": browse.at_leader("discard", self._discard),
        }

    async def _redrive(
        self, params: Params, info: QueueInfo, host: Host, leader: QueueLeader
    ) -> dict[str, Any]:
        exchange = optional_text(params, "exchange")
        vhost = self._vhost(info)
        if exchange and exchange not in vhost.exchanges:
            raise ControlError(protocol.NOT_FOUND, f"there is no exchange {exchange!r} in {info.vhost!r}")
        edit = None if params.get("edit") is None else table(params, "edit")
        if edit is not None and len(params.get("positions") or ()) != 1:
            raise ControlError(protocol.BAD_PARAMS, "only a single message can be edited: name its position")
        order = Order(
            text(params, "run"),
            exchange=exchange,
            key=optional_text(params, "routing_key"),
            unsure=flag(params, "unsure", False),
            edit=edit,
        )
        return await self._carry_out(params, info, host, leader, order)

    async def _discard(
        self, params: Params, info: QueueInfo, host: Host, leader: QueueLeader
    ) -> dict[str, Any]:
        return await self._carry_out(params, info, host, leader, Order(text(params, "run"), discard=True))

    async def _carry_out(
        self, params: Params, info: QueueInfo, host: Host, leader: QueueLeader, order: Order
    ) -> dict[str, Any]:
        selection = Selection.parse(params)
        batch = self._batches.get(info.group)
        if batch is None or batch.leader is not leader or batch.task is None:
            batch = None
        same = batch is not None and (batch.order.run, batch.first) == (order.run, selection.first)
        if batch is None or (not same and batch.task is not None and batch.task.done()):
            count = min(number(params, "count", 100, low=1), MAX_PAGE)
            batch = Batch(selection.first, order, leader)
            batch.task = asyncio.get_running_loop().create_task(
                self._work(batch, info, host, selection, count)
            )
            self._batches[info.group] = batch
        elif not same:
            raise ControlError(
                protocol.BUSY, f"another run has messages of queue {info.name!r} under way; try again soon"
            )
        assert batch.task is not None  # noqa: S101  # set above, or found so
        done, _ = await asyncio.wait([batch.task], timeout=ANSWER_WITHIN)
        if not done:
            raise ControlError(
                protocol.NO_QUORUM,
                f"what was sent from queue {info.name!r} is not confirmed yet; it stays where it is until then",
            )
        try:
            answer = dict(batch.task.result())
        except ControlError:
            del self._batches[info.group]
            raise
        watched = number(params, "watch", -1)
        if watched >= 0:
            answer["came_back"], answer["watched"] = await _came_back(host, watched, order.run)
        return answer

    # -- a batch --------------------------------------------------------------------------------------

    async def _work(
        self, batch: Batch, info: QueueInfo, host: Host, selection: Selection, count: int
    ) -> dict[str, Any]:
        found, onward = await _gather(host, selection, count)
        self._reservations += 1
        key = (self._node.me.id, -self._reservations)
        leader = batch.leader
        _check(host, leader)
        slot = Slot(key, 0, holder=True)
        wanted = [m.position for m in found if m.position not in host.state.dying]
        leader.dispatcher.attach(slot, runs(wanted))
        kept: Counter[str] = Counter()
        try:
            mine = [message for message in found if message.position in slot.unsettled]
            kept["held by consumers"] = len(found) - len(mine)
            originals: list[dict[str, Any]] = []
            if batch.order.discard:
                done = [message.position for message in mine]
            else:
                done = await self._publish(batch, info, host, mine, kept, originals)
            _check(host, leader)
            await self._settle(host, leader, key, done, batch.order)
        finally:
            if host.leader is leader:
                leader.dispatcher.detach(key)
                self._node.queues.mark(host)
        return {
            "next": onward,
            "done": len(done),
            "kept": {why: number for why, number in kept.items() if number},
            "originals": originals,
        }

    async def _publish(
        self,
        batch: Batch,
        info: QueueInfo,
        host: Host,
        messages: list[Found],
        kept: Counter[str],
        originals: list[dict[str, Any]],
    ) -> list[int]:
        """Publish the messages; the positions of those that are safe where they went."""
        answers = _Answers()
        gather = Gather(answers)
        tags: dict[int, int] = {}
        for message in messages:
            if batch.order.edit is not None:
                originals.append(_original(message))
            try:
                queues, route, header, body = self._prepare(batch.order, info, message)
            except _Kept as reason:
                kept[str(reason)] += 1
                continue
            tag = len(tags) + 1
            tags[tag] = message.position
            gather.expect(tag, len(queues))
            for queue in queues:
                self._node.queues.link(queue).add(gather, tag, route, header, body)
        self._node.wake()
        while len(answers.safe) + len(answers.full) < len(tags):
            answers.changed.clear()
            try:
                async with asyncio.timeout(1.0):
                    await answers.changed.wait()
            except TimeoutError:
                _check(host, batch.leader)
        kept["refused by a full queue"] += len(answers.full)
        return [tags[tag] for tag in sorted(answers.safe)]

    def _prepare(
        self, order: Order, info: QueueInfo, message: Found
    ) -> tuple[tuple[QueueInfo, ...], bytes, bytes, bytes]:
        """Where a message goes, and what goes there. Raises ``_Kept`` when it can go nowhere."""
        vhost = self._vhost(info)
        properties = decode_properties(message.header)
        headers: Mapping[str, object] = properties.headers or {}
        origin = origin_of(headers)
        header, body = message.header, message.body
        if order.edit is not None:
            header, body = _edited(order.edit, headers)
            properties = decode_properties(header)
        header = annotate(header, self._marks(order, info, message), frozenset({DUPLICATE}))
        if order.exchange is None:
            if origin is None:
                raise _Kept("without a word of where it came from")
            back = vhost.queues.get(origin.queue)
            if back is None:
                raise _Kept(f"from queue {origin.queue!r}, which is no more")
            return (back,), join_route(origin.exchange, origin.routing_key), header, body
        key = order.key
        if key is None:
            key = origin.routing_key if origin is not None else split_route(message.route)[1]
        if order.exchange != DEFAULT_EXCHANGE and order.exchange not in vhost.exchanges:
            raise _Kept("its exchange is no more")
        queues = find_queues(
            vhost, order.exchange, key, lambda: MessageHeaders(properties, properties.headers or {})
        )
        if not queues:
            raise _Kept("no queue takes it")
        return queues, join_route(order.exchange, key), header, body

    def _marks(self, order: Order, info: QueueInfo, message: Found) -> dict[str, bytes]:
        marks = {
            FROM: encode_field(FROM, info.name),
            POSITION: long_field(POSITION, message.position),
            RUN: encode_field(RUN, order.run),
        }
        if order.unsure:
            marks[DUPLICATE] = encode_field(DUPLICATE, True)
        return marks

    async def _settle(
        self, host: Host, leader: QueueLeader, key: tuple[int, int], positions: list[int], order: Order
    ) -> None:
        """Take messages out of the queue, and wait until that is committed."""
        taken = leader.dispatcher.settle(key, runs(positions))
        if not taken:
            return
        leader.upkeep.doomed.append((Settled.PURGE if order.discard else Settled.ACK, taken))
        self._node.queues.mark(host)
        last = taken[-1][1] - 1
        while last not in host.state.settled:
            await asyncio.sleep(POLL)
            _check(host, leader)

    def _vhost(self, info: QueueInfo) -> VHost:
        return self._node.service.metadata.state.vhosts[info.vhost]


class _Kept(Exception):
    """A message that stays in the dead-letter queue, and why."""


def _check(host: Host, leader: QueueLeader) -> None:
    if host.leader is not leader:
        raise ControlError(
            protocol.OUTCOME_UNKNOWN,
            "the queue has another leader now; what was under way may have been done",
        )


async def _gather(host: Host, selection: Selection, count: int) -> tuple[list[Found], int | None]:
    """The next messages of a selection, and from where to go on (None: there are no more)."""
    found: list[Found] = []
    size = scanned = 0
    async for message in scan(host, selection):
        scanned += 1
        if len(found) >= count or size >= BATCH_BYTES or scanned > MAX_SCAN:
            return found, message.position
        if selection.has(message):
            found.append(message)
            size += len(message.body)
    return found, None


async def _came_back(host: Host, first: int, run: str) -> tuple[int, int]:
    """How many messages of ``run`` have come (back) into the queue from ``first`` on, and how far that is
    known."""
    mark = encode_field(RUN, run)
    count = scanned = 0
    position = first
    async for message in scan(host, Selection(first)):
        scanned += 1
        if scanned > MAX_SCAN:
            break
        count += mark in message.header
        position = message.position + 1
    return count, position


def _original(message: Found) -> dict[str, Any]:
    if len(message.body) > MAX_EDITED:
        raise ControlError(
            protocol.CONFLICT,
            f"a body of {len(message.body)} bytes is too large to be edited; {MAX_EDITED} at most",
        )
    row = describe(message.route, message.header, message.body, MAX_EDITED)
    return {**row, "position": message.position, "group": cause_of(*message[2:]).identity}


def _edited(edit: Mapping[str, Any], headers: Mapping[str, object]) -> tuple[bytes, bytes]:
    """Header and body as an operator wrote them. How the message died stays with it."""
    body = payload_from(dict(edit))
    properties = properties_from(table(dict(edit), "properties", {}))
    deaths = {name: value for name, value in headers.items() if name.startswith(_DEATHS)}
    own = {n: v for n, v in (properties.headers or {}).items() if not n.startswith(_DEATHS)}
    try:
        return encode_header(replace(properties, headers={**own, **deaths}), len(body)), body
    except ValueError as error:
        raise ControlError(protocol.BAD_PARAMS, str(error)) from error
