"""Slots: what should run, and what does. Versions are numbers of the slot's model; 0 means none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from agent.domain.artifact import Artifact, ModelSignature
from agent.domain.device import DeviceChoice, RuntimePolicy
from agent.domain.result_policy import ResultPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactedRegion:
    """A rectangle of an image, as shares of its width and height from the upper left corner."""

    x: float
    y: float
    width: float
    height: float
    blur: bool = False
    """A few flat tiles instead of one grey."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePolicy:
    """Which inputs are kept for training. What is left out asks for nothing."""

    random_fraction: float
    confidence_below: float
    budget_bytes_per_day: int
    margin_below: float = 0.0
    entropy_above: float = 1.0
    class_quota_per_day: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Inputs a day of each label; "" is every label that is not named."""
    outlier_above: float = 0.0
    shadow_disagreement: bool = False
    near_duplicate_distance: int | None = None
    """Bits of a 64-bit difference hash; 0 is the same bytes only, None keeps duplicates."""
    budget_images_per_day: int = 0
    """0 is no bound."""
    redaction: tuple[RedactedRegion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateVersion:
    """A version that is not the one to serve."""

    version: int
    artifact: Artifact
    signature: ModelSignature


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowRun:
    """A candidate to run beside the serving version on the same inputs."""

    candidate: CandidateVersion
    comparisons_max: int
    """Enough comparisons; the run is complete then."""
    serving_latency_ms_p99_max: float = 0.0
    """The run stops itself above this; 0 means no bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredSlot:
    slot: str
    """The model's id, which applications address."""
    version: int
    deployment: str
    artifact: Artifact
    signature: ModelSignature
    runtime_policy: RuntimePolicy
    sample_policy: SamplePolicy
    offer: int = 0
    prefetch: CandidateVersion | None = None
    """To fetch and prepare, and not yet to serve."""
    shadow: ShadowRun | None = None
    fetch_bytes_per_second_max: int = 0
    """Of this slot's downloads; 0 means no bound."""
    result_policy: ResultPolicy = field(default_factory=ResultPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    generation: int = 0
    slots: tuple[DesiredSlot, ...] = ()


class SlotState(StrEnum):
    PENDING = "PENDING"
    DOWNLOADING = "DOWNLOADING"
    PREPARING = "PREPARING"
    SERVING = "SERVING"
    FAILED = "FAILED"


class ShadowState(StrEnum):
    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    STOPPED = "STOPPED"
    """By itself: the serving version became too slow."""
    FAILED = "FAILED"
    """The candidate could not be fetched, compiled or run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedShadow:
    candidate_version: int
    state: ShadowState
    compared: int = 0
    """Inputs that the candidate was given after the serving version, those on which it failed included."""
    message: str = ""
    offer: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedSlot:
    slot: str
    serving_version: int = 0
    target_version: int = 0
    state: SlotState = SlotState.PENDING
    device_choice: DeviceChoice | None = None
    """Of the serving version."""
    failure_reason: str = ""
    failure_message: str = ""
    downloaded_bytes: int = 0
    offer: int = 0
    serving_time: datetime | None = None
    last_known_good: bool = False
    serving: DesiredSlot | None = None
    """How the serving version was asked for; None when none serves."""
    prefetched_version: int = 0
    """Fetched and prepared, and waiting to be asked for."""
    prefetch_failure: str = ""
    shadow: ObservedShadow | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCondition:
    type: str
    state: str
    """TRUE, FALSE or UNKNOWN."""
    reason: str
    message: str
    transition_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleCounts:
    """What became of inputs that were picked to be kept for training, since the start."""

    kept: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """By reason."""
    skipped: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """By why."""
    waiting: int = 0
    waiting_bytes: int = 0

    @property
    def kept_total(self) -> int:
        return sum(self.kept.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedState:
    generation: int
    slots: tuple[ObservedSlot, ...]
    boot_count: int
    agent_time: datetime
    conditions: tuple[AgentCondition, ...] = ()
    nack_message: str = ""
    """Why a desired state is refused as a whole; empty while none is."""
    nack_generation: int = 0
    """Which one that is."""
    sample_counts: SampleCounts = field(default_factory=SampleCounts)
