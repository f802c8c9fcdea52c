"""What an operation is: a plan that says what will happen, and a run that does it and says how it went."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from brokers import models
from brokers.adapters.base import Cluster

Report = Callable[[int, str], None]
"""Called with percent done and what is being done, as the run goes on."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an operation would do now, in sentences for the operator.

    ``refusal`` says why it can't be done (then it must not be run). ``basis`` is what the plan rests on: when
    it has changed by the time of the confirmation, the operator has to see the new plan first.
    """

    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refusal: str = ""
    basis: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    """The parameters with what was left to choice filled in."""

    def as_json(self) -> dict[str, Any]:
        """As it is kept with the operation."""
        return asdict(self)


class Kind(ABC):
    """One kind of operation."""

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def plan(self, row: models.Cluster, cluster: Cluster, params: Mapping[str, Any]) -> Plan:
        """What would happen now. Changes nothing. Raises ``ClusterError``."""

    @abstractmethod
    def run(self, cluster: Cluster, params: Mapping[str, Any], report: Report) -> dict[str, Any]:
        """Do it; the result, as JSON. Raises ``ClusterError``."""

    @abstractmethod
    def summary(self, result: Mapping[str, Any]) -> str:
        """A result in one sentence."""
