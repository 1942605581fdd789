"""Deployments: standing intent."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from controlplane.domain.condition import Condition
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import AgentId, DeploymentId, ModelId
from controlplane.domain.result_policy import ResultPolicy


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


class RedactionMethod(StrEnum):
    FILL = "FILL"
    """One grey."""
    BLUR = "BLUR"
    """A few flat tiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactedRegion:
    """A rectangle of an image, as shares of its width and height from the upper left corner."""

    x: float
    y: float
    width: float
    height: float
    method: RedactionMethod = RedactionMethod.FILL

    def __post_init__(self) -> None:
        within = all(
            start >= 0.0 and length > 0.0 and start + length <= 1.0 + 1e-9
            for start, length in ((self.x, self.width), (self.y, self.height))
        )
        if not within:
            raise FieldInvalidError(
                f"{self.x:g},{self.y:g},{self.width:g},{self.height:g} is no region of an image",
                field="deployment.sample_policy.redaction",
                remedy="give left, top, width and height as shares of the image, 0 to 1",
            )


_SHARES = MappingProxyType(
    {
        "random_fraction": "use a share from 0 (keep none) to 1 (keep all)",
        "confidence_below": "use a score from 0 (keep none) to 1 (keep all)",
        "margin_below": "use a difference of scores from 0 (keep none) to 1 (keep all)",
        "entropy_above": "use a normalised entropy from 0 (keep what is not certain) to 1 (keep none)",
    }
)
_COUNTS = ("budget_bytes_per_day", "budget_images_per_day")
NEAR_DUPLICATE_BITS_MAX = 64
"""Of the hash that says how near two images are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePolicy:
    """Which inputs are kept for training, and within what budget. The defaults are what a deployment gets that says
    nothing: `make bench-samples` shows that what they pick teaches more than as many inputs at random."""

    random_fraction: float = 0.01
    confidence_below: float = 0.0
    budget_bytes_per_day: int = 64 << 20
    margin_below: float = 0.1
    entropy_above: float = 1.0
    """Of the normalised entropy; 1 keeps none."""
    class_quota_per_day: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Inputs a day of each label; "" is every label that is not named."""
    outlier_above: float = 3.0
    """Standard deviations from what the version saw first; 0 keeps none."""
    shadow_disagreement: bool = True
    near_duplicate_distance: int | None = 2
    """Bits of a 64-bit difference hash; 0 is the same bytes only, None keeps duplicates."""
    budget_images_per_day: int = 0
    """0 means no bound."""
    redaction: tuple[RedactedRegion, ...] = ()

    def __post_init__(self) -> None:
        for name, remedy in _SHARES.items():
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise _refused(name, f"{getattr(self, name)} is not between 0 and 1", remedy)
        for name in _COUNTS:
            if getattr(self, name) < 0:
                raise _refused(name, f"{getattr(self, name)} is no budget", "use 0 or more")
        if not 0.0 <= self.outlier_above < math.inf:
            raise _refused(
                "outlier_above", f"{self.outlier_above} is no distance", "use 0 (keep none) or some standard deviations"
            )
        if self.near_duplicate_distance is not None and not 0 <= self.near_duplicate_distance < NEAR_DUPLICATE_BITS_MAX:
            raise _refused(
                "near_duplicate_distance",
                f"{self.near_duplicate_distance} is no distance",
                f"use 0 (the same bytes) to {NEAR_DUPLICATE_BITS_MAX - 1} bits, or -1 to keep duplicates",
            )
        if any(count < 0 for count in self.class_quota_per_day.values()):
            raise _refused("class_quota_per_day", "a quota is below 0", "use 0 (keep none) or more a label")


def _refused(name: str, message: str, remedy: str) -> FieldInvalidError:
    return FieldInvalidError(message, field=f"deployment.sample_policy.{name}", remedy=remedy)


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
    result_policy: ResultPolicy = field(default_factory=ResultPolicy)
    conditions: tuple[Condition, ...] = ()
    """Found by the controller's rounds, stored apart: they do not count as a change of the deployment."""

    def version_of(self, agent_id: AgentId) -> int | None:
        """What the agent should run while no rollout moves it."""
        return self.kept_versions.get(agent_id, self.version)
