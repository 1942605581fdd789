"""Deployments: standing intent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from controlplane.domain.condition import Condition
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import AgentId, DeploymentId, ModelId


class PerformanceHint(StrEnum):
    LATENCY = "LATENCY"
    THROUGHPUT = "THROUGHPUT"
    CUMULATIVE_THROUGHPUT = "CUMULATIVE_THROUGHPUT"
    """As THROUGHPUT, and several devices may share the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimePolicy:
    """How a slot is run."""

    hint: PerformanceHint = PerformanceHint.LATENCY
    inference_precision: str = ""
    """"f32", "bf16", "f16"; empty means f32, or less where golden files show that it suffices."""
    devices: tuple[str, ...] = ()
    """Devices that may be used; empty means every one."""
    swap_wait_seconds: float = 0.0
    """How long a swap waits for applications to begin their next lot; 0 means not at all."""

    def __post_init__(self) -> None:
        if self.inference_precision not in {"", "f32", "bf16", "f16"}:
            raise FieldInvalidError(
                f"{self.inference_precision!r} is not a precision",
                field="deployment.runtime_policy.inference_precision",
                remedy="use f32, bf16 or f16, or leave it empty",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePolicy:
    """Which inputs are kept for training, and within what budget."""

    random_fraction: float = 0.01
    confidence_below: float = 0.6
    budget_bytes_per_day: int = 64 << 20

    def __post_init__(self) -> None:
        for name in ("random_fraction", "confidence_below"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise FieldInvalidError(
                    f"{getattr(self, name)} is not between 0 and 1",
                    field=f"deployment.sample_policy.{name}",
                    remedy="use a share from 0 (keep none) to 1 (keep all)",
                )
        if self.budget_bytes_per_day < 0:
            raise FieldInvalidError(
                f"{self.budget_bytes_per_day} bytes are no budget",
                field="deployment.sample_policy.budget_bytes_per_day",
                remedy="use 0 (keep none) or more",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Model `model_id` on every agent that matches `selector`, at `version`."""

    id: DeploymentId
    uid: str
    create_time: datetime
    update_time: datetime
    model_id: ModelId
    version: int | None
    """None until the first rollout, where the deployment was created without one."""
    selector: str
    runtime_policy: RuntimePolicy
    sample_policy: SamplePolicy
    offer: int = 0
    """Rises with each Retry: failed versions are tried again."""
    revision: int = 0
    priority: int = 0
    """Where deployments of one model match one agent the highest holds it, then the oldest."""
    kept_versions: Mapping[AgentId, int] = field(default_factory=lambda: MappingProxyType({}))
    """Agents that stay on another version than `version`: an ended rollout left them there on purpose. Only a rollout
    that succeeds clears them; one that returns its targets returns these to what they kept."""
    conditions: tuple[Condition, ...] = ()
    """Found by the controller's rounds, stored apart: they do not count as a change of the deployment."""

    def version_of(self, agent_id: AgentId) -> int | None:
        """What the agent should run while no rollout moves it."""
        return self.kept_versions.get(agent_id, self.version)
