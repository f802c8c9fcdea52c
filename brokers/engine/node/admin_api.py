"""The control API's methods for users, permissions, vhosts, policies, topology and messages.

What they take and give is in ``control/__init__.py``; names and checks are those of RabbitMQ's management.
They act for the cluster's operators: no permission of a broker user binds them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from brokers.engine.control import protocol
from brokers.engine.control.protocol import ControlError
from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.errors import AmqpError
from brokers.engine.core.model import commands
from brokers.engine.core.model.arguments import arguments_from_json, arguments_to_json
from brokers.engine.core.model.commands import Command
from brokers.engine.core.model.metadata import Result
from brokers.engine.core.model.passwords import SALT_BYTES, hash_password
from brokers.engine.core.model.policies import Policy, effective_policy
from brokers.engine.core.model.state import State
from brokers.engine.core.model.vhost import VHost
from brokers.engine.node.messages_api import MessagesApi
from brokers.engine.node.params import Params, flag, names, number, optional_text, table, text

if TYPE_CHECKING:
    from brokers.engine.node.node import Node

Method = Callable[[Params], Awaitable[object]]
Row = dict[str, Any]
AskPeer = Callable[[int, str, Params], Awaitable[object]]


class AdminApi:
    """``methods`` by name. ``ask_peer(node, method, params)`` has another node answer a call."""

    def __init__(self, node: Node, ask_peer: AskPeer) -> None:
        self._node = node
        self._ask_peer = ask_peer
        messages = MessagesApi(node, ask_peer)
        self.methods: dict[str, Method] = {
            "list_users": self._list_users,
            "set_user": self._set_user,
            "delete_user": self._delete_user,
            "list_permissions": self._list_permissions,
            "set_permissions": self._set_permissions,
            "delete_permissions": self._delete_permissions,
            "list_topic_permissions": self._list_topic_permissions,
            "set_topic_permissions": self._set_topic_permissions,
            "delete_topic_permissions": self._delete_topic_permissions,
            "list_vhosts": self._list_vhosts,
            "set_vhost": self._set_vhost,
            "delete_vhost": self._delete_vhost,
            "list_vhost_limits": self._list_vhost_limits,
            "set_vhost_limits": self._set_vhost_limits,
            "delete_vhost_limits": self._delete_vhost_limits,
            "list_policies": self._list_policies,
            "set_policy": self._set_policy,
            "delete_policy": self._delete_policy,
            "list_operator_policies": self._list_operator_policies,
            "set_operator_policy": self._set_operator_policy,
            "delete_operator_policy": self._delete_operator_policy,
            "effective_policy": self._effective_policy,
            "declare_queue": self._declare_queue,
            "delete_queue": self._delete_queue,
            "purge_queue": self._purge_queue,
            "declare_exchange": self._declare_exchange,
            "delete_exchange": self._delete_exchange,
            "list_bindings": self._list_bindings,
            "bind": self._bind,
            "unbind": self._unbind,
            "close_connection": self._close_connection,
            **messages.methods,
        }

    # -- users and permissions ------------------------------------------------------------------------

    @property
    def _state(self) -> State:
        return self._node.service.metadata.state

    async def _list_users(self, params: Params) -> object:
        return [
            {"name": user.name, "tags": list(user.tags), "has_password": bool(user.password_hash)}
            for user in self._state.users.values()
        ]

    async def _set_user(self, params: Params) -> object:
        name = text(params, "name")
        if not name or "\0" in name:
            raise ControlError(protocol.BAD_PARAMS, f"{name!r} is no name for a user")
        stored = optional_text(params, "password_hash")
        password = optional_text(params, "password")
        if password is not None:
            if not password:
                raise ControlError(protocol.BAD_PARAMS, "a password must not be empty; leave it out for none")
            salt = secrets.token_bytes(SALT_BYTES)
            stored = await asyncio.to_thread(hash_password, password, salt)
        tags = names(params, "tags") if params.get("tags") is not None else None
        return await self._commit(lambda: commands.set_user(name, stored, tags))

    async def _delete_user(self, params: Params) -> object:
        return await self._commit(lambda: commands.delete_user(text(params, "name")))

    async def _list_permissions(self, params: Params) -> object:
        return [
            {
                "user": user,
                "vhost": vhost,
                "configure": granted.configure,
                "write": granted.write,
                "read": granted.read,
            }
            for user, vhosts in self._state.permissions.items()
            for vhost, granted in vhosts.items()
            if params.get("user") in (None, user) and params.get("vhost") in (None, vhost)
        ]

    async def _set_permissions(self, params: Params) -> object:
        patterns = [text(params, key) for key in ("configure", "write", "read")]
        return await self._commit(
            lambda: commands.set_permissions(text(params, "user"), text(params, "vhost"), *patterns)
        )

    async def _delete_permissions(self, params: Params) -> object:
        return await self._commit(
            lambda: commands.clear_permissions(text(params, "user"), text(params, "vhost"))
        )

    async def _list_topic_permissions(self, params: Params) -> object:
        return [
            {"user": user, "vhost": vhost, "exchange": exchange, "write": granted.write, "read": granted.read}
            for user, vhosts in self._state.topic_permissions.items()
            for vhost, exchanges in vhosts.items()
            for exchange, granted in exchanges.items()
            if params.get("user") in (None, user) and params.get("vhost") in (None, vhost)
        ]

    async def _set_topic_permissions(self, params: Params) -> object:
        fields = [text(params, key) for key in ("user", "vhost", "exchange", "write", "read")]
        return await self._commit(lambda: commands.set_topic_permissions(*fields))

    async def _delete_topic_permissions(self, params: Params) -> object:
        user, vhost = text(params, "user"), text(params, "vhost")
        exchange = optional_text(params, "exchange")
        return await self._commit(lambda: commands.clear_topic_permissions(user, vhost, exchange))

    # -- vhosts ---------------------------------------------------------------------------------------

    async def _list_vhosts(self, params: Params) -> object:
        return [
            {
                "name": vhost.name,
                "description": vhost.description,
                "tags": list(vhost.tags),
                "limits": vhost.limits,
                "queues": len(vhost.queues),
            }
            for vhost in self._state.vhosts.values()
        ]

    async def _set_vhost(self, params: Params) -> object:
        name, description = text(params, "name"), optional_text(params, "description") or ""
        return await self._commit(lambda: commands.set_vhost(name, description, names(params, "tags", ())))

    async def _delete_vhost(self, params: Params) -> object:
        return await self._commit(lambda: commands.delete_vhost(self._vhost(params, "name").name))

    async def _list_vhost_limits(self, params: Params) -> object:
        return [
            {"vhost": vhost.name, "limits": vhost.limits}
            for vhost in self._state.vhosts.values()
            if params.get("vhost") in (None, vhost.name) and vhost.limits
        ]

    async def _set_vhost_limits(self, params: Params) -> object:
        vhost, limits = self._vhost(params), table(params, "limits")
        return await self._commit(
            lambda: commands.set_vhost_limits(vhost.name, {**vhost.limits, **limits})  # type: ignore[dict-item]  # checked there
        )

    async def _delete_vhost_limits(self, params: Params) -> object:
        return await self._commit(lambda: commands.set_vhost_limits(self._vhost(params).name, {}))

    def _vhost(self, params: Params, key: str = "vhost") -> VHost:
        name = text(params, key, "/")
        vhost = self._state.vhosts.get(name)
        if vhost is None:
            raise ControlError(protocol.NOT_FOUND, f"there is no vhost {name!r}")
        return vhost

    # -- policies -------------------------------------------------------------------------------------

    async def _list_policies(self, params: Params) -> object:
        return self._policies(params, operator=False)

    async def _list_operator_policies(self, params: Params) -> object:
        return self._policies(params, operator=True)

    def _policies(self, params: Params, operator: bool) -> list[Row]:
        return [
            {"vhost": vhost.name, **_policy_row(policy)}
            for vhost in self._state.vhosts.values()
            if params.get("vhost") in (None, vhost.name)
            for policy in (vhost.operator_policies if operator else vhost.policies).values()
        ]

    async def _set_policy(self, params: Params) -> object:
        return await self._put_policy(params, operator=False)

    async def _set_operator_policy(self, params: Params) -> object:
        return await self._put_policy(params, operator=True)

    async def _put_policy(self, params: Params, operator: bool) -> object:
        policy = Policy(
            text(params, "name"),
            text(params, "pattern"),
            text(params, "apply_to", "all"),
            number(params, "priority", 0),
            arguments_from_json(table(params, "definition")),
        )
        return await self._commit(lambda: commands.set_policy(self._vhost(params).name, policy, operator))

    async def _delete_policy(self, params: Params) -> object:
        name = text(params, "name")
        return await self._commit(lambda: commands.delete_policy(self._vhost(params).name, name))

    async def _delete_operator_policy(self, params: Params) -> object:
        name = text(params, "name")
        return await self._commit(lambda: commands.delete_policy(self._vhost(params).name, name, True))

    async def _effective_policy(self, params: Params) -> object:
        vhost, name = self._vhost(params), text(params, "name")
        queue = vhost.queues.get(name)
        if queue is None:
            raise ControlError(protocol.NOT_FOUND, f"there is no queue {name!r} in vhost {vhost.name!r}")
        policy, operator = effective_policy(vhost, queue)
        return {
            "policy": policy and _policy_row(policy),
            "operator_policy": operator and _policy_row(operator),
        }

    # -- topology -------------------------------------------------------------------------------------

    async def _declare_queue(self, params: Params) -> object:
        method = m.QueueDeclare(
            queue=text(params, "name", ""),
            durable=flag(params, "durable", True),
            auto_delete=flag(params, "auto_delete", False),
            arguments=arguments_from_json(table(params, "arguments", {})),
        )
        reply = await self._do(params, method)
        return {"name": reply.queue} if isinstance(reply, m.QueueDeclareOk) else {}

    async def _delete_queue(self, params: Params) -> object:
        name = text(params, "name")
        if name not in self._vhost(params).queues:
            raise ControlError(
                protocol.NOT_FOUND, f"there is no queue {name!r} in vhost {self._vhost(params).name!r}"
            )
        unused, empty = flag(params, "if_unused", False), flag(params, "if_empty", False)
        reply = await self._do(params, m.QueueDelete(queue=name, if_unused=unused, if_empty=empty))
        return {"messages": reply.message_count if isinstance(reply, m.QueueDeleteOk) else 0}

    async def _purge_queue(self, params: Params) -> object:
        reply = await self._do(params, m.QueuePurge(queue=text(params, "name")))
        return {"messages": reply.message_count if isinstance(reply, m.QueuePurgeOk) else 0}

    async def _declare_exchange(self, params: Params) -> object:
        method = m.ExchangeDeclare(
            exchange=text(params, "name"),
            type=text(params, "type", "direct"),
            durable=flag(params, "durable", True),
            auto_delete=flag(params, "auto_delete", False),
            internal=flag(params, "internal", False),
            arguments=arguments_from_json(table(params, "arguments", {})),
        )
        await self._do(params, method)
        return {}

    async def _delete_exchange(self, params: Params) -> object:
        if_unused = flag(params, "if_unused", False)
        await self._do(params, m.ExchangeDelete(exchange=text(params, "name"), if_unused=if_unused))
        return {}

    async def _list_bindings(self, params: Params) -> object:
        return [
            {
                "vhost": binding.vhost,
                "source": binding.source,
                "kind": binding.kind.value,
                "destination": binding.destination,
                "routing_key": binding.routing_key,
                "arguments": arguments_to_json(binding.arguments),
            }
            for binding in self._vhost(params).bindings
        ]

    async def _bind(self, params: Params) -> object:
        await self._do(params, _binding(params, m.QueueBind, m.ExchangeBind))
        return {}

    async def _unbind(self, params: Params) -> object:
        await self._do(params, _binding(params, m.QueueUnbind, m.ExchangeUnbind))
        return {}

    # -- connections ----------------------------------------------------------------------------------

    async def _close_connection(self, params: Params) -> object:
        identity, reason = text(params, "id"), text(params, "reason", "closed by an operator")
        node = self._node
        if identity in node.broker.connections.values():
            node.broker.disconnect(lambda c: node.broker.connections.get(c) == identity, reason)
            return {}
        boot, _, _ = identity.partition("-")
        owner = next((n.id for n in self._state.nodes.values() if f"{n.boot:016x}" == boot), None)
        if owner is None or owner == node.me.id or owner not in node.peers.links:
            raise ControlError(protocol.NOT_FOUND, f"there is no connection {identity!r}")
        return await self._ask_peer(owner, "close_connection", params)

    # -- how it is done -------------------------------------------------------------------------------

    async def _do(self, params: Params, method: m.Method) -> m.Method | None:
        vhost = self._vhost(params).name
        answer: asyncio.Future[m.Method | AmqpError | None] = asyncio.get_running_loop().create_future()
        self._node.broker.administer(vhost, method, lambda reply: _answer(answer, reply))
        self._node.wake()
        reply = await answer
        if isinstance(reply, AmqpError):
            raise _refused(reply)
        return reply

    async def _commit(self, make: Callable[[], Command]) -> object:
        try:
            command = make()
        except (AmqpError, ValueError) as error:
            raise ControlError(protocol.BAD_PARAMS, getattr(error, "text", str(error))) from error
        answer: asyncio.Future[Result | AmqpError] = asyncio.get_running_loop().create_future()
        self._node.broker.submit(command, lambda result: _answer(answer, result))
        self._node.wake()
        result = await answer
        refusal = result if isinstance(result, AmqpError) else result.error
        if refusal is not None:
            raise _refused(refusal)
        value = result.value if isinstance(result, Result) else None
        return value if isinstance(value, dict) else {}


def _answer(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)


def _refused(error: AmqpError) -> ControlError:
    codes = {404: protocol.NOT_FOUND, 530: protocol.NOT_FOUND, 541: protocol.NO_QUORUM}
    return ControlError(codes.get(error.code, protocol.CONFLICT), error.text)


def _policy_row(policy: Policy) -> Row:
    return {
        "name": policy.name,
        "pattern": policy.pattern,
        "apply_to": policy.apply_to,
        "priority": policy.priority,
        "definition": arguments_to_json(policy.definition),
    }


def _binding(
    params: Params,
    queue: type[m.QueueBind] | type[m.QueueUnbind],
    exchange: type[m.ExchangeBind] | type[m.ExchangeUnbind],
) -> m.Method:
    source, destination = text(params, "source"), text(params, "destination")
    key = text(params, "routing_key", "")
    arguments = arguments_from_json(table(params, "arguments", {}))
    if text(params, "kind", "queue") == "queue":
        return queue(queue=destination, exchange=source, routing_key=key, arguments=arguments)
    return exchange(destination=destination, source=source, routing_key=key, arguments=arguments)
