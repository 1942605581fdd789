"""Agents, the boxes and devices they run on, and what they observe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from controlplane.domain.condition import Condition
from controlplane.domain.ids import AgentId, ModelId


class AgentState(StrEnum):
    ENROLLED = "ENROLLED"
    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Facts of the box; field by field as `lineside.v1.Host`."""

    hostname: str = ""
    os: str = ""
    os_release: str = ""
    architecture: str = ""
    cpu_model: str = ""
    cpu_count: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    disk_free_bytes: int = 0
    agent_version: str = ""
    openvino_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An accelerator; `device` as OpenVINO names it ("CPU", "GPU.0", "NPU")."""

    device: str
    full_name: str = ""
    device_type: str = ""
    capabilities: tuple[str, ...] = ()
    memory_bytes: int = 0
    driver_version: str = ""
    auto_choice: bool = False
    properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class SlotState(StrEnum):
    PENDING = "PENDING"
    DOWNLOADING = "DOWNLOADING"
    PREPARING = "PREPARING"
    SERVING = "SERVING"
    FAILED = "FAILED"


class Parity(StrEnum):
    """Whether outputs are those of the version's golden files, within its tolerance."""

    NOT_CHECKED = "NOT_CHECKED"
    PASSED = "PASSED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMeasurement:
    """One short measurement of a version in one configuration."""

    device: str
    ok: bool
    latency_ms_p50: float = 0.0
    throughput_per_second: float = 0.0
    compile_seconds: float = 0.0
    error: str = ""
    chosen: bool = False
    latency_ms_p99: float = 0.0
    streams: int = 0
    """Those that were asked for; 0 leaves them to the device."""
    precision: str = ""
    memory_bytes: int = 0
    parity: Parity = Parity.NOT_CHECKED
    difference: float = 0.0
    """Largest difference from a golden output, as a share of that output's largest value."""
    remark: str = ""
    """Why it was chosen, or why not."""


class ShadowState(StrEnum):
    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    STOPPED = "STOPPED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedShadow:
    """How a shadow run stands on one agent."""

    candidate_version: int
    state: ShadowState
    compared: int = 0
    message: str = ""
    """Why it stopped or failed."""
    offer: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedSlot:
    """What one slot runs. Versions are numbers of `slot`'s model; 0 means none."""

    slot: ModelId
    serving_version: int = 0
    target_version: int = 0
    state: SlotState = SlotState.PENDING
    device: str = ""
    device_reason: str = ""
    measurements: tuple[DeviceMeasurement, ...] = ()
    failure_reason: str = ""
    failure_message: str = ""
    downloaded_bytes: int = 0
    offer: int = 0
    serving_time: datetime | None = None
    last_known_good: bool = False
    prefetched_version: int = 0
    """Fetched, prepared and not served; 0 while none is."""
    prefetch_failure: str = ""
    shadow: ObservedShadow | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleCounts:
    """What became of inputs that were to be kept for training, since the agent's start."""

    kept: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """By reason."""
    skipped: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """By why; those that were dropped from a full spool too."""
    waiting: int = 0
    waiting_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedState:
    """Everything an agent reports, whole."""

    generation: int = 0
    slots: tuple[ObservedSlot, ...] = ()
    conditions: tuple[Condition, ...] = ()
    agent_time: datetime | None = None
    nack_message: str = ""
    """Why a desired state is refused as a whole; empty while none is."""
    nack_generation: int = 0
    """Which one that is."""
    boot_count: int = 0
    sample_counts: SampleCounts = field(default_factory=SampleCounts)

    def slot(self, model_id: ModelId) -> ObservedSlot | None:
        # A plain loop: a tick asks half a million times over a fleet of ten thousand.
        for slot in self.slots:
            if slot.slot == model_id:
                return slot
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An enrolled agent. `revision` counts changes other than observations."""

    id: AgentId
    uid: str
    create_time: datetime
    labels: Mapping[str, str]
    revoked: bool = False
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was last heard of an agent; replaced whole, never merged. Host and devices keep
    their last value when a sync leaves them out."""

    agent_id: AgentId
    observed: ObservedState
    receive_time: datetime
    """The controller's clock."""
    host: Host | None = None
    devices: tuple[Device, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRecord:
    """An agent with what was last heard of it."""

    agent: Agent
    observation: Observation | None = None
    desired_generation: int = 0
    certificate_expire_time: datetime | None = None

    def state(self, *, now: datetime, silent_seconds_max: float) -> AgentState:
        """Where the agent stands; DISCONNECTED once it was silent for longer than `silent_seconds_max`."""
        if self.agent.revoked:
            return AgentState.REVOKED
        if self.observation is None:
            return AgentState.ENROLLED
        silent_seconds = (now - self.observation.receive_time).total_seconds()
        return AgentState.CONNECTED if silent_seconds <= silent_seconds_max else AgentState.DISCONNECTED
