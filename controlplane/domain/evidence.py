"""Results and metric windows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from controlplane.domain.ids import AgentId, Digest, ModelId

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
    lot: str = ""
    application: str = ""


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
class Histogram:
    """Counts of equal bins over [`low`, `high`]; values outside are in the nearest bin. Equal bins merge by adding."""

    low: float
    high: float
    bin_counts: tuple[int, ...]

    @property
    def count(self) -> int:
        return sum(self.bin_counts)


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
    label_counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Of the top label of each inference that did not fail; those beyond the agent's bound under ""."""
    input_statistics: Mapping[str, Histogram] = field(default_factory=lambda: MappingProxyType({}))
    """Statistics of the inputs by name, of all inferences or of a random share."""
    omitted_count: int = 0
    """Of the inferences, those whose results the deployment's policy does not keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowWindow:
    """How a candidate compared with the serving version on the same inputs over one window of one agent."""

    agent_id: AgentId
    batch: int
    slot: ModelId
    serving_version: int
    candidate_version: int
    device: str
    start_time: datetime
    end_time: datetime
    compared: int
    agreed: int
    errors: int
    skipped: int
    candidate_latency: LatencySketch
    serving_latency: LatencySketch
    score_distance_histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SentResults:
    """A file of results as an agent announces it: its content, or the key under which the agent has put it."""

    digest: Digest
    size_bytes: int
    rows: int
    content: bytes = b""
    upload_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceBatch:
    """One batch of an agent's spool: windows computed from exactly its results."""

    agent_id: AgentId
    batch: int
    receive_time: datetime
    windows: tuple[MetricWindow, ...]
    results: tuple[Result, ...]
    dropped_results: int = 0
    shadow_windows: tuple[ShadowWindow, ...] = ()
    files: tuple["SentResults", ...] = ()
    """Results in columns, instead of `results`."""
    omitted_results: int = 0
    """Results that the deployment's policy does not keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceCount:
    """Inferences of one version on one agent since some time."""

    agent_id: AgentId
    inferences: int
    errors: int
    last_receive_time: datetime | None = None
    """When the newest of their windows came, by the controller's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What one version did on one agent: windows of any times, added up."""

    agent_id: AgentId
    inferences: int = 0
    errors: int = 0
    latency: LatencySketch | None = None
    """None while no inference succeeded."""
    confidence_histogram: tuple[int, ...] = ()
    label_counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    active_seconds: float = 0.0
    """Time from the first to the last inference of each window, added up, by the agent's clock."""
    paced_inferences: int = 0
    """Inferences that followed another in their window: `active_seconds` is the time that they took."""
    last_receive_time: datetime | None = None
    """When the newest window came, by the controller's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowTally:
    """What a candidate did in shadow on one agent, added up."""

    agent_id: AgentId
    compared: int = 0
    agreed: int = 0
    errors: int = 0
    skipped: int = 0
    candidate_latency: LatencySketch | None = None
    serving_latency: LatencySketch | None = None
    score_distance_histogram: tuple[int, ...] = ()
    last_receive_time: datetime | None = None
    """When the newest window came, by the controller's clock."""


TOGETHER = AgentId("")
"""Whose tally it is when several agents' are added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEvidence:
    """What was measured on the released agents of one device class, or on all of them."""

    device_class: str = ""
    installed: int = 0
    failed: int = 0
    waiting: int = 0
    """Of those that may still install: in reach, or not silent for long."""
    target: Tally = field(default_factory=lambda: Tally(agent_id=TOGETHER))
    compared: Tally = field(default_factory=lambda: Tally(agent_id=TOGETHER))
    """Of `target`, what the agents did that also measured the version before."""
    previous: Tally | None = None
    """What those agents did with the version before."""
    quiet_since: datetime | None = None
    """When the newest inference was heard of; when the newest agent was released, until there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowEvidence:
    """What the candidate did in shadow on the agents of one device class."""

    device_class: str = ""
    tally: ShadowTally
    running: int = 0
    """Agents that still compare, or may begin to."""
    ended: int = 0
    """Agents that are done, were stopped or could not run it."""
    first_end: str = ""
    """Which agent's run ended early and why, of the first by name that says so."""
    quiet_since: datetime | None = None
