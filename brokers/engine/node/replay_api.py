"""The control API's methods for replay: what would be replayed, and starting, following and ending a job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

from brokers.engine.control import protocol
from brokers.engine.control.protocol import ControlError
from brokers.engine.core.model.topology import DEFAULT_EXCHANGE, QueueInfo
from brokers.engine.core.model.vhost import VHost
from brokers.engine.core.session.link import Sink
from brokers.engine.node.history import Filter, Kept, Walk, oldest, position_at
from brokers.engine.node.history_api import SHOWN_IN_LIST, AskPeer, HistoryApi
from brokers.engine.node.hosts import Host
from brokers.engine.node.messages_api import describe
from brokers.engine.node.params import Params, number, optional_text, table, text
from brokers.engine.node.replay import Destination, ReplayJob

if TYPE_CHECKING:
    from brokers.engine.node.node import Node

LOOK_FOR = 1.5
"""Seconds that one call counts; then the caller goes on from where it got to."""
MAX_PREVIEW = 100
REMEMBERED = 200
"""Jobs that have ended and can still be asked for."""
CANCEL_WITHIN = 4.0
"""Seconds that messages on their way have to be confirmed when a job is cancelled."""


class ReplayApi:
    """``replay_plan``, ``replay_start``, ``replay_status`` and ``replay_cancel``. Also a job's ``Broker``."""

    def __init__(self, node: Node, ask_peer: AskPeer, history: HistoryApi) -> None:
        self._node = node
        self._ask_peer = ask_peer
        self._at_leader = history.at_leader
        self._jobs: dict[str, ReplayJob] = {}
        self.methods: dict[str, Callable[[Params], Awaitable[object]]] = {
            "replay_plan": self._plan,
            "replay_start": self._start,
            "replay_status": self._status,
            "replay_cancel": self._cancel,
        }

    # -- methods --------------------------------------------------------------------------------------

    async def _plan(self, params: Params) -> object:
        wanted = _filter(params)
        if params.get("to_queue") is not None or params.get("to_exchange") is not None:
            self._destination(params)

        async def act(info: QueueInfo, host: Host) -> object:
            first, end = _range(host, params)
            begin = max(first, number(params, "from", first, low=0))
            preview = min(number(params, "preview", 0, low=0), MAX_PREVIEW)
            count, size, shown, at = await _count(host, (begin, end), wanted, preview)
            return {
                "oldest": oldest(host.state),
                "first": first,
                "end": end,
                "counted_to": at,
                "count": count,
                "bytes": size,
                "messages": shown,
            }

        return await self._at_leader("replay_plan", params, act)

    async def _start(self, params: Params) -> object:
        wanted = _filter(params)
        job_id = text(params, "id")
        destination = self._destination(params)
        rate = number(params, "rate", 0, low=0)

        async def act(info: QueueInfo, host: Host) -> object:
            running = self._jobs.get(job_id)
            if running is not None and running.state == "running":
                return self._report(running)
            first, end = number(params, "first", low=0), number(params, "end", low=0)
            if end > host.state.next_position:
                raise ControlError(
                    protocol.BAD_PARAMS,
                    f"'end' is {end}, and queue {info.name!r} has had {host.state.next_position} messages",
                )
            self._forget()
            job = ReplayJob(job_id, info, host, (first, end, wanted), destination, rate, self, self._node.now)
            self._jobs[job_id] = job
            return self._report(job)

        return await self._at_leader("replay_start", params, act)

    async def _status(self, params: Params) -> object:
        return await self._where_it_runs("replay_status", params, self._report_soon)

    async def _cancel(self, params: Params) -> object:
        async def act(job: ReplayJob) -> object:
            await job.cancel(CANCEL_WITHIN)
            return self._report(job)

        return await self._where_it_runs("replay_cancel", params, act)

    async def _where_it_runs(
        self, method: str, params: Params, act: Callable[[ReplayJob], Awaitable[object]]
    ) -> object:
        node = self._node
        where, job_id = text(params, "node"), text(params, "id")
        if where == node.me.name:
            job = self._jobs.get(job_id)
            if job is None:
                raise ControlError(protocol.NOT_FOUND, f"{where} runs no replay {job_id!r} since it started")
            return await act(job)
        peer = next((peer for peer in node.peers.links if node.node_name(peer) == where), None)
        if peer is None:
            raise ControlError(protocol.UNAVAILABLE, f"{where} is not in reach of {node.me.name}")
        return await self._ask_peer(peer, method, params)

    async def _report_soon(self, job: ReplayJob) -> object:
        return self._report(job)

    def _report(self, job: ReplayJob) -> dict[str, Any]:
        return {"node": self._node.me.name, **job.report()}

    def _destination(self, params: Params) -> Destination:
        vhost_name = text(params, "to_vhost", text(params, "vhost", "/"))
        queue, exchange = optional_text(params, "to_queue"), optional_text(params, "to_exchange")
        key = optional_text(params, "to_routing_key")
        if (queue is None) == (exchange is None):
            raise ControlError(
                protocol.BAD_PARAMS, "one of 'to_queue' and 'to_exchange' says where to replay to"
            )
        vhost = self.vhost(vhost_name)
        if vhost is None:
            raise ControlError(protocol.NOT_FOUND, f"there is no vhost {vhost_name!r}")
        if queue is not None and queue not in vhost.queues:
            raise ControlError(protocol.NOT_FOUND, f"there is no queue {queue!r} in vhost {vhost_name!r}")
        if exchange not in (None, DEFAULT_EXCHANGE) and exchange not in vhost.exchanges:
            raise ControlError(
                protocol.NOT_FOUND, f"there is no exchange {exchange!r} in vhost {vhost_name!r}"
            )
        if key is not None and len(key.encode("utf-8", "surrogateescape")) > 255:
            raise ControlError(protocol.BAD_PARAMS, "'to_routing_key' has over 255 octets")
        return Destination(vhost_name, queue, exchange, key)

    def _forget(self) -> None:
        ended = sorted((job for job in self._jobs.values() if job.state != "running"), key=lambda j: j.ended)
        for job in ended[: max(0, len(ended) - REMEMBERED + 1)]:
            del self._jobs[job.id]

    # -- what a job needs of the node -----------------------------------------------------------------

    def vhost(self, name: str) -> VHost | None:
        """See ``replay.Broker``."""
        return self._node.service.metadata.state.vhosts.get(name)

    def publish(
        self, queues: tuple[QueueInfo, ...], sink: Sink, tag: int, route: bytes, header: bytes, body: bytes
    ) -> None:
        """See ``replay.Broker``."""
        for queue in queues:
            self._node.queues.link(queue).add(sink, tag, route, header, body)

    def blocked(self) -> str:
        """See ``replay.Broker``."""
        return self._node.pressure.blocked

    def keeps(self, host: Host) -> bool:
        """See ``replay.Broker``."""
        return self._node.queues.hosts.get(host.group) is host


async def _count(
    host: Host, stretch: tuple[int, int], wanted: Filter, preview: int
) -> tuple[int, int, list[dict[str, Any]], int]:
    """How many messages are meant, their bytes, the first ones, and up to where this was found out in time."""
    begin, end = stretch
    walk = Walk(host, begin, end, wanted)
    count = size = 0
    shown: list[dict[str, Any]] = []
    began = perf_counter()
    async for found in walk.entries():
        count += len(found)
        size += sum(len(message.body) for message in found)
        shown += [_preview(message) for message in found[: preview - len(shown)]]
        if perf_counter() - began > LOOK_FOR or (wanted.everything and len(shown) >= preview):
            break
    if wanted.everything:
        # Positions are dense: nothing has to be read to count them. The bytes are projected.
        whole = end - max(begin, oldest(host.state))
        return whole, size if count == whole else round(size * whole / max(count, 1)), shown, end
    return count, size, shown, walk.position


def _preview(message: Kept) -> dict[str, Any]:
    row = describe(message.route, message.header, message.body, SHOWN_IN_LIST)
    return {**row, "position": message.position, "at": message.stamp / 1000}


def _range(host: Host, params: Params) -> tuple[int, int]:
    """The positions asked for, as far as they are retained."""
    low, high = oldest(host.state), host.state.next_position
    first = low if params.get("first") is None else number(params, "first", low=0)
    end = high if params.get("end") is None else number(params, "end", low=0)
    if params.get("since") is not None:
        first = max(first, position_at(host, number(params, "since", low=0)))
    if params.get("until") is not None:
        end = min(end, position_at(host, number(params, "until", low=0)))
    first = max(low, min(first, high))
    return first, max(first, min(end, high))


def _filter(params: Params) -> Filter:
    headers = table(params, "match_headers", {})
    if not all(isinstance(value, str) for value in headers.values()):
        raise ControlError(
            protocol.BAD_PARAMS, f"'match_headers' must have texts as values, not {headers!r:.200}"
        )
    chosen: Mapping[str, str] = {name: str(value) for name, value in headers.items()}
    return Filter(text(params, "match_key", ""), chosen)
