"""Explanations: why an agent runs what it runs, and what would change it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from controlplane.domain.admission import Hold
from controlplane.domain.assignment import Standing
from controlplane.domain.ids import DeploymentId, ModelId, RolloutId
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.rollout import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One fact or rule: a stable UPPER_SNAKE word, and a sentence with the names and numbers."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotExplanation:
    """Of one slot that the agent has, should have, or would have but for a rule."""

    slot: ModelId
    desired_version: int | None
    serving_version: int | None
    deployment_id: DeploymentId | None
    rollout_id: RolloutId | None
    because: tuple[Explanation, ...]
    """In the order in which they apply."""
    would_change: tuple[Explanation, ...]
    """In the order in which an operator would try."""


@dataclass(slots=True)
class Account:
    """An explanation while it is put together."""

    because: list[Explanation] = field(default_factory=list)
    would_change: list[Explanation] = field(default_factory=list)

    def tell(self, reason: str, message: str) -> None:
        self.because.append(Explanation(reason=reason, message=message))

    def advise(self, reason: str, message: str) -> None:
        """The same advice is given once."""
        advice = Explanation(reason=reason, message=message)
        if advice not in self.would_change:
            self.would_change.append(advice)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One agent, everything that decides what it runs, and how to judge what it said."""

    record: AgentRecord
    standing: Standing
    """Of the agents only `record` is looked at."""
    queued: Sequence[Rollout] = ()
    """Rollouts that wait for another one."""
    holds: Mapping[RolloutId, Hold] = field(default_factory=lambda: MappingProxyType({}))
    """Why a rollout does not release the agent now, where its wave is admitted."""
    now: datetime
    silent_seconds_max: float
    clock_skew_seconds_max: float
