"""The control API of a node: what the console and the command line may ask and do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from brokers.engine import __version__
from brokers.engine.control import protocol
from brokers.engine.control.protocol import ControlError
from brokers.engine.core.model.topology import QueueInfo
from brokers.engine.core.raft.types import Refused
from brokers.engine.node.admin_api import AdminApi
from brokers.engine.node.backup import BackupApi
from brokers.engine.node.browse import BrowseApi
from brokers.engine.node.digest import digest
from brokers.engine.node.history_api import HistoryApi
from brokers.engine.node.peers import JSON
from brokers.engine.node.redrive import RedriveApi
from brokers.engine.node.replay_api import ReplayApi
from brokers.engine.node.survey import SurveyApi
from brokers.engine.node.view import ClusterView

if TYPE_CHECKING:
    from brokers.engine.node.node import Node

TRANSFER_TIMEOUT = 5.0
"""Seconds that a hand-over may take before it is called failed."""

Params = dict[str, Any]
Method = Callable[[Params], Awaitable[object]]


class NodeApi:
    """Answers calls itself or has the node answer that leads the queue in question."""

    def __init__(self, node: Node, shutdown: Callable[[], None]) -> None:
        self.view = ClusterView(node)
        self._node = node
        self._shutdown = shutdown
        self._calls: dict[int, asyncio.Future[object]] = {}
        self._next_call = 0
        self._tasks: set[asyncio.Task[None]] = set()
        admin = AdminApi(node, self._ask_peer).methods
        browse = BrowseApi(node, self._ask_peer)
        history = HistoryApi(node, self._ask_peer)
        self._methods: dict[str, Method] = {
            "ping": self._ping,
            "snapshot": self._snapshot,
            "queue": self._queue,
            "transfer_leadership": self._transfer,
            "digest": self._digest,
            "shutdown": self._shut_down,
            **admin,
            **history.methods,
            **ReplayApi(node, self._ask_peer, history).methods,
            **BackupApi(node, admin).methods,
            **browse.methods,
            **SurveyApi(node, self._ask_peer, browse).methods,
            **RedriveApi(node, browse).methods,
        }
        node.on_json = self._on_json

    async def call(self, method: str, params: Params) -> object:
        """See ``control.server.ControlApi``."""
        found = self._methods.get(method)
        if found is None:
            known = ", ".join(sorted(self._methods))
            raise ControlError(protocol.UNKNOWN_METHOD, f"there is no method {method!r}; there are {known}")
        return await found(params)

    def watch(self) -> AsyncIterator[dict[str, Any]]:
        """See ``control.server.ControlApi``."""
        return self.view.watch()

    # -- methods --------------------------------------------------------------------------------------

    async def _ping(self, params: Params) -> object:
        return {"node": self._node.me.name, "version": __version__}

    async def _snapshot(self, params: Params) -> object:
        self.view.refresh()
        return self.view.snapshot()

    async def _queue(self, params: Params) -> object:
        info = self._info(params)
        self.view.refresh()
        return self.view.queue(info.vhost, info.name)

    async def _digest(self, params: Params) -> object:
        info = self._info(params)
        host = self._node.queues.hosts.get(info.group)
        if host is None:
            raise ControlError(protocol.NOT_FOUND, f"{self._node.me.name} has no replica of {info.name!r}")
        return digest(host)

    async def _shut_down(self, params: Params) -> object:
        self._shutdown()
        return {}

    async def _transfer(self, params: Params) -> object:
        info = self._info(params)
        if not info.replicas:
            raise ControlError(
                protocol.CONFLICT, f"queue {info.name!r} lives in the memory of one node: it has no replica"
            )
        host = self._node.queues.hosts.get(info.group)
        if host is not None and host.leader is not None:
            return await self._transfer_here(info, params.get("target"))
        leader = self._node.queues.leaders.get(info.group)
        if leader is None or leader[0] == self._node.me.id or leader[0] not in self._node.peers.links:
            raise ControlError(
                protocol.NO_QUORUM, f"queue {info.name!r} has no leader now, so there is nothing to hand over"
            )
        return await self._ask_peer(leader[0], "transfer_leadership", params)

    async def _transfer_here(self, info: QueueInfo, target: object) -> object:
        node = self._node
        status = node.replication.multi.status(info.group)
        voters = [f for f in status.followers if f.node in status.membership.voters]
        if target is None:
            best = max((f for f in voters if f.reachable), key=lambda f: f.match, default=None)
        else:
            best = next((f for f in voters if node.node_name(f.node) == target), None)
            if target == node.me.name:
                raise ControlError(protocol.CONFLICT, f"{target} leads queue {info.name!r} already")
        if best is None or not best.reachable:
            which = "no other replica" if target is None else f"no replica on {target}"
            raise ControlError(
                protocol.CONFLICT, f"queue {info.name!r} has {which} in reach that could take over"
            )
        heard: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()

        def on_hello(who: int, term: int) -> None:
            if not heard.done():
                heard.set_result((who, term))

        node.queues.on_hello[info.group] = on_hello
        begin = node.now()
        try:
            node.replication.multi.transfer(info.group, best.node)
            node.wake()
            async with asyncio.timeout(TRANSFER_TIMEOUT):
                leader, term = await heard
        except Refused as refused:
            raise ControlError(protocol.CONFLICT, str(refused)) from refused
        except TimeoutError:
            raise ControlError(
                protocol.TIMEOUT,
                f"{node.node_name(best.node)} has not taken over within {TRANSFER_TIMEOUT:g} s",
            ) from None
        finally:
            node.queues.on_hello.pop(info.group, None)
        gap = round((node.now() - begin) * 1000, 1)
        note = {"failover": info.group, "unavailable_ms": gap}
        node.peers.send(leader, JSON, [json.dumps(note).encode()])
        node.peers.flush()
        return {
            "from": node.me.name,
            "to": node.node_name(leader),
            "unavailable_ms": gap,
            "term": term,
        }

    def _info(self, params: Params) -> QueueInfo:
        vhost, name = params.get("vhost", "/"), params.get("name")
        if not isinstance(vhost, str) or not isinstance(name, str):
            raise ControlError(protocol.BAD_PARAMS, f"'vhost' and 'name' must be texts, not {params!r:.200}")
        found = self._node.service.metadata.state.vhosts.get(vhost)
        info = found.queues.get(name) if found is not None else None
        if info is None:
            raise ControlError(protocol.NOT_FOUND, f"there is no queue {name!r} in vhost {vhost!r}")
        return info

    # -- asking other nodes ---------------------------------------------------------------------------

    async def _ask_peer(self, node: int, method: str, params: Params) -> object:
        self._next_call += 1
        number = self._next_call
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        self._send(node, {"call": number, "method": method, "params": params})
        try:
            async with asyncio.timeout(TRANSFER_TIMEOUT + 1):
                return await answer
        except TimeoutError:
            raise ControlError(
                protocol.TIMEOUT, f"{self._node.node_name(node)} has not answered {method!r} in time"
            ) from None
        finally:
            del self._calls[number]

    def _send(self, node: int, message: dict[str, Any]) -> None:
        self._node.peers.send(node, JSON, [json.dumps(message).encode()])
        self._node.peers.flush()

    def _on_json(self, node: int, data: bytes) -> None:
        message = json.loads(data)
        if "call" in message:
            task = asyncio.get_running_loop().create_task(self._answer(node, message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif "reply" in message:
            waiting = self._calls.get(message["reply"])
            if waiting is None or waiting.done():
                return
            if "error" in message:
                waiting.set_exception(ControlError.from_wire(message["error"]))
            else:
                waiting.set_result(message["result"])
        else:
            self.view.on_report(node, message)

    async def _answer(self, node: int, message: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"reply": message["call"]}
        try:
            reply["result"] = await self.call(message["method"], message["params"])
        except ControlError as error:
            reply["error"] = error.as_dict()
        self._send(node, reply)
