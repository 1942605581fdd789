"""Samples: inputs kept for training, with the reason why and the result they got."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from controlplane.domain.evidence import Result
from controlplane.domain.ids import AgentId, Digest, ModelId, SampleId


class SampleReason(StrEnum):
    RANDOM = "RANDOM"
    LEAST_CONFIDENCE = "LEAST_CONFIDENCE"


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
