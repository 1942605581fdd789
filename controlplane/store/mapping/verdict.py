"""What gates said, as JSON."""

from typing import Any

from controlplane.domain.gate import Evidence, GateCheck, GateOutcome, GateVerdict
from controlplane.store.mapping.values import Row, float_from_json, float_to_json, time_from_json, time_to_json


def verdict_to_json(verdict: GateVerdict) -> dict[str, Any]:
    return {
        "outcome": verdict.outcome.value,
        "reason": verdict.reason,
        "message": verdict.message,
        "evidence": {
            "targets": verdict.evidence.targets,
            "installed": verdict.evidence.installed,
            "failed": verdict.evidence.failed,
            "inferences": verdict.evidence.inferences,
            "errors": verdict.evidence.errors,
            "wave_inferences": verdict.evidence.wave_inferences,
            "wave_errors": verdict.evidence.wave_errors,
            "wave_age_seconds": float_to_json(verdict.evidence.wave_age_seconds),
            "first_failure": verdict.evidence.first_failure,
        },
        "evaluate_time": time_to_json(verdict.evaluate_time),
        "checks": [_check_to_json(check) for check in verdict.checks],
    }


def verdict_from_json(value: Row) -> GateVerdict:
    evidence = value["evidence"]
    evaluate_time = time_from_json(value["evaluate_time"])
    assert evaluate_time is not None
    return GateVerdict(
        outcome=GateOutcome(value["outcome"]),
        reason=value["reason"],
        message=value["message"],
        evidence=Evidence(
            targets=evidence["targets"],
            installed=evidence["installed"],
            failed=evidence["failed"],
            inferences=evidence["inferences"],
            errors=evidence["errors"],
            wave_inferences=evidence["wave_inferences"],
            wave_errors=evidence["wave_errors"],
            wave_age_seconds=float_from_json(evidence["wave_age_seconds"]),
            first_failure=evidence.get("first_failure", ""),
        ),
        evaluate_time=evaluate_time,
        checks=tuple(_check_from_json(check) for check in value.get("checks", ())),
    )


def _check_to_json(check: GateCheck) -> dict[str, Any]:
    return {
        "name": check.name,
        "outcome": check.outcome.value,
        "reason": check.reason,
        "message": check.message,
        "device_class": check.device_class,
        "observed": float_to_json(check.observed),
        "low": float_to_json(check.low),
        "high": float_to_json(check.high),
        "limit": float_to_json(check.limit),
        "samples": check.samples,
    }


def _check_from_json(value: Row) -> GateCheck:
    return GateCheck(
        name=value["name"],
        outcome=GateOutcome(value["outcome"]),
        reason=value["reason"],
        message=value["message"],
        device_class=value["device_class"],
        observed=float_from_json(value["observed"]),
        low=float_from_json(value["low"]),
        high=float_from_json(value["high"]),
        limit=float_from_json(value["limit"]),
        samples=value["samples"],
    )
