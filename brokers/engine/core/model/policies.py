"""Policies: settings for all queues and exchanges of a vhost whose names match a pattern.

Of the policies that match, the one with the highest priority is in force; an operator policy may stand beside
it and bounds what the policy, and the queue's own arguments, may ask for. As in RabbitMQ
(https://www.rabbitmq.com/docs/policies), with the keys of queue arguments without their ``x-``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from brokers.engine.core.model.authorize import compile_pattern
from brokers.engine.core.model.topology import DELAY_QUEUE, QueueInfo

if TYPE_CHECKING:
    from brokers.engine.core.model.vhost import VHost

APPLY_TO = ("all", "queues", "exchanges", "classic_queues", "quorum_queues")
MAX_CONNECTIONS, MAX_QUEUES = "max-connections", "max-queues"
LIMITS = (MAX_CONNECTIONS, MAX_QUEUES)
"""What may be limited in a vhost."""
ALTERNATE_EXCHANGE = "alternate-exchange"


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy, or operator policy, of a vhost."""

    name: str
    pattern: str
    apply_to: str = "all"
    priority: int = 0
    definition: Mapping[str, object] = field(default_factory=dict, hash=False)

    def covers(self, name: str, *kinds: str) -> bool:
        """Whether it is for something called ``name`` that goes by any of ``kinds`` in ``APPLY_TO``."""
        return self.apply_to in ("all", *kinds) and compile_pattern(self.pattern).search(name) is not None


def effective(policies: Iterable[Policy], name: str, *kinds: str) -> Policy | None:
    """The policy in force for ``name``: of those that cover it the one with the highest priority (among
    equals the first by name)."""
    covering = [policy for policy in policies if policy.covers(name, *kinds)]
    return min(covering, key=lambda policy: (-policy.priority, policy.name), default=None)


def effective_policy(vhost: VHost, queue: QueueInfo) -> tuple[Policy | None, Policy | None]:
    """The policy and the operator policy in force for a queue."""
    if queue.type == DELAY_QUEUE:
        return None, None
    kinds = ("queues", f"{queue.type}_queues")
    return (
        effective(vhost.policies.values(), queue.name, *kinds),
        effective(vhost.operator_policies.values(), queue.name, *kinds),
    )


def policy_definition(vhost: VHost, queue: QueueInfo) -> dict[str, object]:
    """What policies set for a queue, the operator's limits merged in."""
    policy, operator = effective_policy(vhost, queue)
    definition = dict(policy.definition) if policy is not None else {}
    for key, limit in operator.definition.items() if operator is not None else ():
        wanted = definition.get(key)
        if isinstance(wanted, int) and isinstance(limit, int):
            limit = min(wanted, limit)
        definition[key] = limit
    return definition


def alternate_exchange(vhost: VHost, exchange: str) -> str | None:
    """The alternate exchange that a policy gives to an exchange, if any."""
    policy = effective(vhost.policies.values(), exchange, "exchanges")
    name = policy.definition.get(ALTERNATE_EXCHANGE) if policy is not None else None
    return name if isinstance(name, str) else None
