"""Gates decide by intervals, on evidence alone."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.evidence import GroupEvidence
from controlplane.domain.gate import Evidence, GateOutcome, GatePolicy, evaluate, rank, says_the_same
from controlplane.domain.interval import share_interval
from tests.domain import strategies
from tests.support.factories import NOW, after_seconds


def make_evidence(**overrides: Any) -> Evidence:
    fields: dict[str, Any] = {
        "targets": 2,
        "installed": 2,
        "failed": 0,
        "inferences": 1000,
        "errors": 0,
        "wave_inferences": 500,
        "wave_errors": 0,
        "wave_age_seconds": 10.0,
    }
    return Evidence(**(fields | overrides))


bakes = st.integers(0, 4)


@given(strategies.policies, strategies.evidences(), bakes)
def test_too_little_evidence_never_passes(policy: GatePolicy, evidence: Evidence, bake: int) -> None:
    verdict = evaluate(policy, evidence, bake_seconds=bake, now=NOW)
    settled = evidence.installed + evidence.failed + evidence.away == evidence.targets and evidence.installed > 0
    enough = evidence.inferences >= policy.min_inferences and evidence.wave_age_seconds >= bake
    shown = not policy.min_inferences or _shown(policy, evidence.errors, evidence.inferences)
    if verdict.outcome is GateOutcome.PASS:
        assert settled
        assert enough
        assert shown


def _shown(policy: GatePolicy, errors: int, inferences: int) -> bool:
    """Whether the whole interval keeps the limit; a limit of 0 and of everything need none."""
    limit = policy.max_errors_per_mille / 1000
    if limit in {0.0, 1.0}:
        return errors == 0 or limit == 1.0
    return share_interval(errors, inferences, limit=limit, miss=policy.miss).high <= limit


def _broken(policy: GatePolicy, errors: int, inferences: int) -> bool:
    limit = policy.max_errors_per_mille / 1000
    low = share_interval(errors, inferences, limit=limit, miss=policy.miss).low
    return inferences >= policy.min_inferences and (low > limit if limit else errors > 0)


@given(strategies.policies, strategies.evidences(), bakes)
def test_it_fails_exactly_where_the_interval_breaks_the_limit(
    policy: GatePolicy, evidence: Evidence, bake: int
) -> None:
    fails = (
        evidence.failed > policy.max_failed_installs
        or _broken(policy, evidence.errors, evidence.inferences)
        or _broken(policy, evidence.wave_errors, evidence.wave_inferences)
        or any(_broken(policy, group.target.errors, group.target.inferences) for group in evidence.groups)
    )
    evidence = replace(evidence, silent_taken_up=0)
    verdict = evaluate(policy, evidence, bake_seconds=bake, now=NOW)
    assert (verdict.outcome is GateOutcome.FAIL) is fails


def _add_error(group: GroupEvidence) -> GroupEvidence:
    return replace(group, target=replace(group.target, errors=group.target.errors + 1))


@given(strategies.policies, strategies.evidences(), bakes)
def test_one_more_failure_never_improves_the_verdict(policy: GatePolicy, evidence: Evidence, bake: int) -> None:
    worse = []
    if evidence.installed and not evidence.groups:
        worse.append(replace(evidence, installed=evidence.installed - 1, failed=evidence.failed + 1))
    if evidence.wave_errors < evidence.wave_inferences and not evidence.groups:
        worse.append(replace(evidence, errors=evidence.errors + 1, wave_errors=evidence.wave_errors + 1))
    if evidence.errors - evidence.wave_errors < evidence.inferences - evidence.wave_inferences and not evidence.groups:
        worse.append(replace(evidence, errors=evidence.errors + 1))
    if evidence.silent_taken_up < evidence.taken_up:
        worse.append(replace(evidence, silent_taken_up=evidence.silent_taken_up + 1))
    for place, group in enumerate(evidence.groups):
        before, after = evidence.groups[:place], evidence.groups[place + 1 :]
        if group.target.errors < group.target.inferences:
            errors = evidence.errors + 1
            worse.append(replace(evidence, errors=errors, groups=(*before, _add_error(group), *after)))
        if group.installed:
            failed = replace(group, installed=group.installed - 1, failed=group.failed + 1)
            groups = (*before, failed, *after)
            installs = evidence.installed - 1
            worse.append(replace(evidence, installed=installs, failed=evidence.failed + 1, groups=groups))
    verdict = evaluate(policy, evidence, bake_seconds=bake, now=NOW)
    for one in worse:
        assert rank(evaluate(policy, one, bake_seconds=bake, now=NOW).outcome) <= rank(verdict.outcome)


@given(strategies.policies, strategies.evidences(), bakes)
def test_an_agent_that_turns_out_not_installed_never_makes_it_pass(
    policy: GatePolicy, evidence: Evidence, bake: int
) -> None:
    if evidence.installed and not evidence.groups:
        fewer = replace(evidence, installed=evidence.installed - 1)
        assert evaluate(policy, fewer, bake_seconds=bake, now=NOW).outcome is not GateOutcome.PASS


@given(strategies.policies, strategies.evidences(), bakes)
def test_the_verdict_is_the_worst_of_its_checks(policy: GatePolicy, evidence: Evidence, bake: int) -> None:
    verdict = evaluate(policy, evidence, bake_seconds=bake, now=NOW)
    assert rank(verdict.outcome) == min(rank(check.outcome) for check in verdict.checks)
    for check in verdict.checks:
        assert check.low <= check.high
        assert check.message


@given(strategies.policies, strategies.evidences(), bakes, st.randoms(use_true_random=False))
def test_the_order_of_device_classes_does_not_matter(
    policy: GatePolicy, evidence: Evidence, bake: int, random: Any
) -> None:
    mixed = list(evidence.groups)
    random.shuffle(mixed)
    one = evaluate(policy, evidence, bake_seconds=bake, now=NOW)
    other = evaluate(policy, replace(evidence, groups=tuple(mixed)), bake_seconds=bake, now=NOW)
    assert one.outcome is other.outcome
    assert set(one.checks) == set(other.checks)


@given(strategies.policies, strategies.evidences(), bakes)
def test_a_verdict_names_its_reason_and_keeps_its_evidence(policy: GatePolicy, evidence: Evidence, bake: int) -> None:
    verdict = evaluate(policy, evidence, bake_seconds=bake, now=NOW)
    assert verdict.reason == verdict.reason.upper().replace(" ", "_")
    assert verdict.message
    assert verdict.evidence == evidence.counts()


@pytest.mark.parametrize(
    ("changes", "outcome", "reason", "says"),
    [
        ({}, GateOutcome.PASS, "GATE_PASSED", "2 of 2 installed"),
        ({"installed": 1}, GateOutcome.PENDING, "INSTALLING", "1 of 2 targets to install"),
        (
            {"inferences": 15, "wave_inferences": 15},
            GateOutcome.PENDING,
            "TOO_FEW_INFERENCES",
            "waits for 571 more inferences without an error (errors 0 of 15, allowed 1 %)",
        ),
        ({"wave_age_seconds": 4.0}, GateOutcome.PENDING, "BAKING", "to end at 2026-03-01T12:00:06Z"),
        ({"installed": 1, "failed": 1}, GateOutcome.FAIL, "INSTALLS_FAILED", "1 of 2 installs failed, allowed are 0"),
        (
            {"errors": 40},
            GateOutcome.FAIL,
            "ERROR_RATE_EXCEEDED",
            "errors 40 of 1000 (4 %, at least 2.02 % at 99 % confidence), allowed 1 %",
        ),
        ({"errors": 1}, GateOutcome.PASS, "GATE_PASSED", "1 of 1000 inferences failed"),
        (
            {"errors": 12},
            GateOutcome.PENDING,
            "TOO_FEW_INFERENCES",
            "errors 12 of 1000 (1.2 %, at least 0.35 % at 99 % confidence)",
        ),
        (
            {"inferences": 5000, "errors": 20, "wave_errors": 20},
            GateOutcome.FAIL,
            "WAVE_ERROR_RATE_EXCEEDED",
            "errors 20 of 500 (4 %, at least 1.49 % at 99 % confidence), allowed 1 % in the newest wave",
        ),
        ({"installed": 1, "away": 1}, GateOutcome.PASS, "GATE_PASSED", "1 of 2 installed"),
        ({"installed": 0, "away": 2}, GateOutcome.INCONCLUSIVE, "NOBODY_IN_REACH", "none of 2 targets is in reach"),
        ({"taken_up": 2, "silent_taken_up": 1}, GateOutcome.INCONCLUSIVE, "AGENTS_SILENT", "1 of 2 agents fell silent"),
        ({"taken_up": 9, "silent_taken_up": 9}, GateOutcome.FAIL, "AGENTS_SILENT", "9 of 9 agents fell silent"),
        (
            {"taken_up": 9, "silent_taken_up": 9, "silent_others_per_mille": 1000},
            GateOutcome.PASS,
            "GATE_PASSED",
            "2 of 2 installed",
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
    evidence = make_evidence(installed=1, inferences=3, wave_inferences=3, wave_age_seconds=1.0)
    message = evaluate(GatePolicy(), evidence, bake_seconds=10.0, now=NOW).message
    assert "1 of 2 targets to install and 583 more inferences without an error (errors 0 of 3, " in message
    assert ") and the bake time to end" in message


def test_verdicts_that_differ_in_time_alone_say_the_same() -> None:
    first = evaluate(GatePolicy(), make_evidence(wave_age_seconds=1.0), bake_seconds=10.0, now=NOW)
    later = evaluate(GatePolicy(), make_evidence(wave_age_seconds=3.0), bake_seconds=10.0, now=after_seconds(2))
    other = evaluate(GatePolicy(), make_evidence(inferences=1001), bake_seconds=10.0, now=NOW + timedelta(seconds=2))
    assert says_the_same(later, first)
    assert not says_the_same(other, first)
    assert not says_the_same(first, None)
