"""Slots: what should run, and what does. Versions are numbers of the slot's model; 0 means none."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from agent.domain.artifact import Artifact, ModelSignature
from agent.domain.device import DeviceChoice, RuntimePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePolicy:
    random_fraction: float
    confidence_below: float
    budget_bytes_per_day: int


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


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCondition:
    type: str
    state: str
    """TRUE, FALSE or UNKNOWN."""
    reason: str
    message: str
    transition_time: datetime


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
