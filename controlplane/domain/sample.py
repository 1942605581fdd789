"""Samples: inputs kept for training, with the reason why and the result they got."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from controlplane.domain.evidence import Result
from controlplane.domain.ids import AgentId, Digest, ModelId, SampleId
from controlplane.domain.lake import Place


class SampleReason(StrEnum):
    RANDOM = "RANDOM"
    LEAST_CONFIDENCE = "LEAST_CONFIDENCE"
    MARGIN = "MARGIN"
    ENTROPY = "ENTROPY"
    CLASS_QUOTA = "CLASS_QUOTA"
    OUTLIER = "OUTLIER"
    SHADOW_DISAGREEMENT = "SHADOW_DISAGREEMENT"
    IMPORTED = "IMPORTED"
    """Brought by an operator, seen by no agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """An input of `model_id`; its content is the blob `digest` in the object store."""

    id: SampleId
    agent_id: AgentId
    model_id: ModelId
    capture_time: datetime
    create_time: datetime
    reason: SampleReason
    result: Result
    """Its `batch` and `index` are -1 where the agent does not know them."""
    content_type: str
    digest: Digest
    size_bytes: int
    input_name: str
    value: float = 0.0
    """How useful it seemed to the agent, 0 to 1."""
    input_statistics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """As MetricWindow.input_statistics names them; empty where they were not computed."""
    label_hint: str = ""
    """What seems right to whoever sent it, for people who label; never a label."""
    place: Place = field(default_factory=Place)
    """Where an imported sample was taken, or where its agent was labelled to be when the sample came."""
