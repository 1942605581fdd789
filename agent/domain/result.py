"""Results of inferences, and what is offered as a sample."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Outcome(StrEnum):
    OK = "OK"
    ERROR = "ERROR"


class SampleReason(StrEnum):
    RANDOM = "RANDOM"
    LEAST_CONFIDENCE = "LEAST_CONFIDENCE"
    MARGIN = "MARGIN"
    ENTROPY = "ENTROPY"
    CLASS_QUOTA = "CLASS_QUOTA"
    OUTLIER = "OUTLIER"
    SHADOW_DISAGREEMENT = "SHADOW_DISAGREEMENT"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScore:
    label: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One inference's outcome; one a batch item."""

    slot: str
    version: int
    device: str
    infer_time: datetime
    part_id: str
    request_id: str
    outcome: Outcome
    labels: tuple[LabelScore, ...]
    """Best first, at most 5; empty where the outputs are not scores of classes."""
    latency_us: int
    error: str = ""
    batch_index: int = 0
    lot: str = ""
    application: str = ""

    @property
    def confidence(self) -> float | None:
        """The top score, None where there are no labels."""
        return self.labels[0].score if self.labels else None
