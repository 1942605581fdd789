"""Gates decide by integers, on evidence alone."""

from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.gate import Evidence, GateOutcome, GatePolicy, evaluate, rank, says_the_same
from tests.domain import strategies
from tests.support.factories import NOW, after_seconds


def make_evidence(**overrides: Any) -> Evidence:
    fields: dict[str, Any] = {
        "targets": 2,
        "installed": 2,
        "failed": 0,
        "inferences": 100,
        "errors": 0,
        "wave_inferences": 50,
        "wave_errors": 0,
        "wave_age_seconds": 10.0,
    }
    return Evidence(**(fields | overrides))


bakes = st.integers(0, 4)


@given(strategies.policies, strategies.evidences(), bakes)
def test_too_little_evidence_never_passes(policy: GatePolicy, evidence: Evidence, bake: int) -> None:
    verdict = evaluate(policy, evidence, bake_seconds=bake, now=NOW)
    settled = evidence.installed + evidence.failed == evidence.targets and evidence.installed > 0
    enough = evidence.inferences >= policy.min_inferences and evidence.wave_age_seconds >= bake
    if verdict.outcome is GateOutcome.PASS:
        assert settled
        assert enough


@given(strategies.policies, strategies.evidences(), bakes)
def test_it_fails_exactly_by_the_written_shares(policy: GatePolicy, evidence: Evidence, bake: int) -> None:
    def exceeds(errors: int, inferences: int) -> bool:
        share = Fraction(errors, inferences) if inferences else Fraction(0)
        return inferences >= policy.min_inferences and share > Fraction(policy.max_errors_per_mille, 1000)

    fails = (
        evidence.failed > policy.max_failed_installs
        or exceeds(evidence.errors, evidence.inferences)
        or exceeds(evidence.wave_errors, evidence.wave_inferences)
    )
    verdict = evaluate(policy, evidence, bake_seconds=bake, now=NOW)
    assert (verdict.outcome is GateOutcome.FAIL) is fails


@given(strategies.policies, strategies.evidences(), bakes, st.data())
def test_one_more_failure_never_improves_the_verdict(
    policy: GatePolicy, evidence: Evidence, bake: int, data: st.DataObject
) -> None:
    worse = []
    if evidence.installed:
        worse.append(replace(evidence, installed=evidence.installed - 1, failed=evidence.failed + 1))
        worse.append(replace(evidence, installed=evidence.installed - 1))
    if evidence.wave_errors < evidence.wave_inferences:
        worse.append(replace(evidence, errors=evidence.errors + 1, wave_errors=evidence.wave_errors + 1))
    if evidence.errors - evidence.wave_errors < evidence.inferences - evidence.wave_inferences:
        worse.append(replace(evidence, errors=evidence.errors + 1))
    before = evaluate(policy, evidence, bake_seconds=bake, now=NOW)
    for one in worse:
        assert rank(evaluate(policy, one, bake_seconds=bake, now=NOW).outcome) <= rank(before.outcome)


@given(strategies.policies, strategies.evidences(), bakes)
def test_a_verdict_names_its_reason_and_keeps_its_evidence(policy: GatePolicy, evidence: Evidence, bake: int) -> None:
    verdict = evaluate(policy, evidence, bake_seconds=bake, now=NOW)
    assert verdict.reason == verdict.reason.upper().replace(" ", "_")
    assert verdict.message
    assert verdict.evidence == evidence


@pytest.mark.parametrize(
    ("changes", "outcome", "reason", "says"),
    [
        ({}, GateOutcome.PASS, "GATE_PASSED", "2 of 2 installed"),
        ({"installed": 1}, GateOutcome.PENDING, "INSTALLING", "1 of 2 targets to install"),
        ({"inferences": 15}, GateOutcome.PENDING, "TOO_FEW_INFERENCES", "waits for 5 more inferences"),
        ({"wave_age_seconds": 4.0}, GateOutcome.PENDING, "BAKING", "to end at 2026-03-01T12:00:06Z"),
        ({"installed": 1, "failed": 1}, GateOutcome.FAIL, "INSTALLS_FAILED", "1 of 2 installs failed, allowed are 0"),
        ({"errors": 2}, GateOutcome.FAIL, "ERROR_RATE_EXCEEDED", "2 of 100 inferences failed, allowed are 10 per 1000"),
        ({"errors": 1}, GateOutcome.PASS, "GATE_PASSED", "1 of 100 inferences failed"),
        (
            {"errors": 1, "wave_errors": 1},
            GateOutcome.FAIL,
            "WAVE_ERROR_RATE_EXCEEDED",
            "1 of 50 inferences in the newest wave failed",
        ),
        ({"targets": 0, "installed": 0}, GateOutcome.INCONCLUSIVE, "NO_TARGETS", "no target is left"),
    ],
)
def test_each_verdict_says_why_with_numbers(
    changes: dict[str, Any], outcome: GateOutcome, reason: str, says: str
) -> None:
    verdict = evaluate(GatePolicy(), make_evidence(**changes), bake_seconds=10.0, now=NOW)
    assert (verdict.outcome, verdict.reason) == (outcome, reason)
    assert says in verdict.message


def test_installs_that_all_failed_within_the_allowance_are_inconclusive() -> None:
    evidence = make_evidence(installed=0, failed=2, inferences=0, wave_inferences=0)
    policy = GatePolicy(min_inferences=0, max_failed_installs=5)
    verdict = evaluate(policy, evidence, bake_seconds=0, now=NOW)
    assert (verdict.outcome, verdict.reason) == (GateOutcome.INCONCLUSIVE, "NOTHING_INSTALLED")


def test_all_that_is_missing_is_in_the_message() -> None:
    evidence = make_evidence(installed=1, inferences=3, wave_age_seconds=1.0)
    message = evaluate(GatePolicy(), evidence, bake_seconds=10.0, now=NOW).message
    assert "1 of 2 targets to install and 17 more inferences and the bake time to end" in message


def test_verdicts_that_differ_in_time_alone_say_the_same() -> None:
    first = evaluate(GatePolicy(), make_evidence(wave_age_seconds=1.0), bake_seconds=10.0, now=NOW)
    later = evaluate(GatePolicy(), make_evidence(wave_age_seconds=3.0), bake_seconds=10.0, now=after_seconds(2))
    other = evaluate(GatePolicy(), make_evidence(inferences=101), bake_seconds=10.0, now=NOW + timedelta(seconds=2))
    assert says_the_same(later, first)
    assert not says_the_same(other, first)
    assert not says_the_same(first, None)
