"""Results and metric windows."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from controlplane.domain.ids import AgentId, ModelId

CONFIDENCE_BINS = 20


class ResultOutcome(StrEnum):
    OK = "OK"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScore:
    label: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One inference's outcome. (`agent_id`, `batch`, `index`) is unique for good."""

    agent_id: AgentId
    batch: int
    index: int
    slot: ModelId
    version: int
    device: str
    infer_time: datetime
    part_id: str
    request_id: str
    outcome: ResultOutcome
    labels: tuple[LabelScore, ...]
    latency_us: int
    error: str = ""
    batch_index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySketch:
    """A DDSketch's bins: mergeable quantiles of milliseconds within `relative_accuracy`."""

    relative_accuracy: float
    first_bin_key: int = 0
    bin_counts: tuple[int, ...] = ()
    zero_count: int = 0
    count: int = 0
    sum_ms: float = 0.0
    min_ms: float = 0.0
    max_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricWindow:
    """Measurements of one slot, version and device over one window of one agent."""

    agent_id: AgentId
    batch: int
    slot: ModelId
    version: int
    device: str
    start_time: datetime
    end_time: datetime
    inference_count: int
    error_count: int
    refused_count: int
    latency: LatencySketch
    confidence_histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceBatch:
    """One batch of an agent's spool: windows computed from exactly its results."""

    agent_id: AgentId
    batch: int
    receive_time: datetime
    windows: tuple[MetricWindow, ...]
    results: tuple[Result, ...]
    dropped_results: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceCount:
    """Inferences of one version on one agent since some time."""

    agent_id: AgentId
    inferences: int
    errors: int
