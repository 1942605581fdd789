"""Gates: the condition to admit the next wave, from measured evidence."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
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
    max_latency_ms_p95: float = 0.0
    """0 asks for nothing, as in the next five."""
    max_latency_ms_p99: float = 0.0
    max_latency_p99_percent: int = 0
    min_throughput_percent: int = 0
    max_confidence_drift_per_mille: int = 0
    max_class_drift_per_mille: int = 0
    max_silent_per_mille: int = 200
    confidence_per_mille: int = 990
    idle_seconds: float = 900.0


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
    first_failure: str = ""
    """Which agent's install failed and why, of the first by name that says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCheck:
    """What one condition of a gate said, with the interval that decided it. Numbers are in the unit of `limit`."""

    name: str
    outcome: GateOutcome
    reason: str
    message: str
    device_class: str = ""
    """Empty for all targets together."""
    observed: float = 0.0
    low: float = 0.0
    high: float = 0.0
    limit: float = 0.0
    samples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """What a gate said, with the evidence it saw."""

    outcome: GateOutcome
    reason: str
    message: str
    evidence: Evidence
    evaluate_time: datetime
    checks: tuple[GateCheck, ...] = ()
    """The verdict is the worst of them."""


_SEVERITY = (GateOutcome.FAIL, GateOutcome.INCONCLUSIVE, GateOutcome.PENDING, GateOutcome.PASS)


def rank(outcome: GateOutcome) -> int:
    """Order of outcomes from worst (0) to best: turning a success into a failure never raises it."""
    return _SEVERITY.index(outcome)


def evaluate(policy: GatePolicy, evidence: Evidence, *, bake_seconds: float, now: datetime) -> GateVerdict:
    """Return what the gate says of the newest wave.

    - FAIL as soon as more installs failed than allowed, or more than the allowed share of at least
      `min_inferences` inferences failed: of all targets' together, or of the newest wave's own.
    - INCONCLUSIVE when no evidence can come: no target is left, or none could install.
    - PENDING while a target has neither installed nor failed, inferences are too few, or the wave bakes.
    - PASS else. Missing evidence never passes.
    """
    said = (
        (GateOutcome.FAIL, _failure(policy, evidence)),
        (GateOutcome.INCONCLUSIVE, _dead_end(evidence)),
        (GateOutcome.PENDING, _missing(policy, evidence, bake_seconds, now)),
        (GateOutcome.PASS, ("GATE_PASSED", _numbers(evidence))),
    )
    outcome, (reason, message) = next((outcome, words) for outcome, words in said if words is not None)
    return GateVerdict(outcome=outcome, reason=reason, message=message, evidence=evidence, evaluate_time=now)


def says_the_same(verdict: GateVerdict, other: GateVerdict | None) -> bool:
    """Whether two verdicts differ in nothing but when they were given."""
    if other is None:
        return False
    evidence = replace(other.evidence, wave_age_seconds=verdict.evidence.wave_age_seconds)
    return verdict == replace(other, evaluate_time=verdict.evaluate_time, evidence=evidence)


def _exceeds(errors: int, inferences: int, policy: GatePolicy) -> bool:
    return inferences >= policy.min_inferences and errors * 1000 > policy.max_errors_per_mille * inferences


def _failure(policy: GatePolicy, evidence: Evidence) -> tuple[str, str] | None:
    if evidence.failed > policy.max_failed_installs:
        return (
            "INSTALLS_FAILED",
            f"{evidence.failed} of {evidence.targets} installs failed, allowed are {policy.max_failed_installs}"
            + _first_failure(evidence),
        )
    allowed = f"allowed are {policy.max_errors_per_mille} per 1000"
    if _exceeds(evidence.errors, evidence.inferences, policy):
        return "ERROR_RATE_EXCEEDED", f"{evidence.errors} of {evidence.inferences} inferences failed, {allowed}"
    if _exceeds(evidence.wave_errors, evidence.wave_inferences, policy):
        return (
            "WAVE_ERROR_RATE_EXCEEDED",
            f"{evidence.wave_errors} of {evidence.wave_inferences} inferences in the newest wave failed, {allowed}",
        )
    return None


def _dead_end(evidence: Evidence) -> tuple[str, str] | None:
    if evidence.targets == 0:
        return "NO_TARGETS", "no target is left: each was revoked or no longer matches"
    if evidence.failed == evidence.targets:
        return (
            "NOTHING_INSTALLED",
            f"all {evidence.targets} installs failed, so nothing can be measured" + _first_failure(evidence),
        )
    return None


def _first_failure(evidence: Evidence) -> str:
    return f"; {evidence.first_failure}" if evidence.first_failure else ""


def _missing(policy: GatePolicy, evidence: Evidence, bake_seconds: float, now: datetime) -> tuple[str, str] | None:
    """What is waited for, the first as the reason and all in the message; None when nothing is missing."""
    waits: list[tuple[str, str]] = []
    unsettled = evidence.targets - evidence.installed - evidence.failed
    if unsettled > 0:
        waits.append(("INSTALLING", f"{unsettled} of {evidence.targets} targets to install"))
    if evidence.inferences < policy.min_inferences:
        waits.append(("TOO_FEW_INFERENCES", f"{policy.min_inferences - evidence.inferences} more inferences"))
    if evidence.wave_age_seconds < bake_seconds:
        end = now + timedelta(seconds=bake_seconds - evidence.wave_age_seconds)
        waits.append(("BAKING", f"the bake time to end at {end:%Y-%m-%dT%H:%M:%SZ}"))
    if not waits:
        return None
    return waits[0][0], f"waits for {' and '.join(text for _, text in waits)}; so far {_numbers(evidence)}"


def _numbers(evidence: Evidence) -> str:
    return (
        f"{evidence.installed} of {evidence.targets} installed, {evidence.failed} failed to, "
        f"{evidence.errors} of {evidence.inferences} inferences failed"
    )
