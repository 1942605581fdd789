"""Gates: the condition to admit the next wave, from measured evidence."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class GateOutcome(StrEnum):
    PASS = "PASS"
    FAIL = "FAIL"
    PENDING = "PENDING"
    INCONCLUSIVE = "INCONCLUSIVE"


class FailureAction(StrEnum):
    ROLLBACK = "ROLLBACK"
    PAUSE = "PAUSE"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePolicy:
    """When a wave's gate passes, and what happens when it fails. Integers, so that no rounding decides."""

    min_inferences: int = 20
    max_errors_per_mille: int = 10
    max_failed_installs: int = 0
    on_failure: FailureAction = FailureAction.ROLLBACK


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was measured of the target version. `targets` are the agents admitted so far;
    counts are of inferences received since the wave was admitted."""

    targets: int
    installed: int
    failed: int
    inferences: int
    errors: int
    wave_inferences: int
    """Of `inferences`, those by the newest wave's own agents."""
    wave_errors: int
    wave_age_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """What a gate said, with the evidence it saw."""

    outcome: GateOutcome
    reason: str
    message: str
    evidence: Evidence
    evaluate_time: datetime
