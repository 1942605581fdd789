"""The stage of a rehearsal: the copy of the inventory, and what is assumed to go wrong on it. Plain values, so that
they can be handed to another process."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from controlplane.domain.ids import AgentId, DeploymentId, ModelId
from controlplane.domain.inventory import Device
from controlplane.domain.rollout import RolloutStrategy, Wave


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What goes wrong, and how often. What is not named here goes well: latencies, confidences and classes stay as they
    were, so gate checks of them pass, and approvals come at once."""

    message_loss_per_mille: int = 0
    offline_per_mille: int = 0
    """Agents out of reach at a time."""
    outage_seconds: float = 600.0
    """How long one stays so, on average."""
    restarts_per_day: float = 0.0
    """Of each agent."""
    install_failures_per_mille: int = 0
    errors_per_mille: int = 0
    """Inferences of the version that fail."""
    errors_device_class: str = ""
    """Only on agents whose device class contains it."""
    inferences_per_second: float = 0.0
    """Of each agent; 0 means as measured in the last hour, or one where nothing was."""
    fetch_bytes_per_second: int = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxSpec:
    """One target of the rollout as the inventory knows it."""

    agent_id: AgentId
    labels: Mapping[str, str]
    """Its own, a plain dict."""
    facts: Mapping[str, str]
    """What selectors see, a plain dict."""
    architecture: str
    devices: tuple[Device, ...]
    device_class: str
    fetch_bytes: int
    serving_version: int
    """0 for none."""
    connected: bool
    inferences_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A rollout that is about to start."""

    deployment_id: DeploymentId
    model_id: ModelId
    version: int | None
    target_version: int
    strategy: RolloutStrategy
    waves: tuple[Wave, ...]
    boxes: tuple[BoxSpec, ...]
    artifact_bytes: int
    now: datetime
    silent_seconds_max: float
    ticks_max: int
    """A play that took so many decisions is cut off."""
    horizon_seconds: float
    """And one that lasts for so long."""
