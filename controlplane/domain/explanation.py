"""Explanations: why an agent runs what it runs, and what would change it."""

from dataclasses import dataclass

from controlplane.domain.ids import DeploymentId, ModelId, RolloutId


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
