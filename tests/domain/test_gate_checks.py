"""Each check of a gate, and what they say together as Argo Rollouts would."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from controlplane.domain.evidence import TOGETHER, GroupEvidence, ShadowEvidence, ShadowTally, Tally
from controlplane.domain.gate import Evidence, GateCheck, GateOutcome, GatePolicy, conclude, evaluate
from controlplane.domain.interval import share_interval
from controlplane.domain.rollout import ShadowPolicy
from controlplane.domain.shadow_gate import evaluate_shadow
from tests.domain.test_distribution import make_sketch
from tests.support.factories import NOW, after_seconds

# --- Argo Rollouts' table, written anew from its analysis controller ------------------------------------------------


def argo_measurement(*, succeeds: bool, fails: bool) -> str:
    """Of a metric with a condition of success and one of failure: failure wins, neither is Inconclusive."""
    if fails:
        return "Failed"
    return "Successful" if succeeds else "Inconclusive"


def argo_run(phases: Sequence[str]) -> str:
    """Of a run of several metrics: a failed one ends it, then an inconclusive one; while a metric still runs and none
    ended it, it runs; else the worst counts, which is then success."""
    for phase in ("Failed", "Inconclusive", "Running"):
        if phase in phases:
            return phase
    return "Successful"


OURS = {
    "Failed": GateOutcome.FAIL,
    "Inconclusive": GateOutcome.INCONCLUSIVE,
    "Running": GateOutcome.PENDING,
    "Successful": GateOutcome.PASS,
}


@pytest.mark.parametrize("errors", [0, 1, 8, 12, 30, 60, 500])
@pytest.mark.parametrize("inferences", [500, 585, 586, 1_000, 5_000])
@pytest.mark.parametrize("idle", [False, True])
def test_a_check_ends_as_a_metric_of_argo_does(errors: int, inferences: int, idle: bool) -> None:
    found = share_interval(errors, inferences, limit=0.01, miss=0.01)
    measured = argo_measurement(succeeds=found.high <= 0.01, fails=found.low > 0.01)
    expected = "Running" if measured == "Inconclusive" and not idle else measured
    (check,) = checks_of(make_group(errors=errors, inferences=inferences, idle=idle))
    assert check.outcome is OURS[expected]


@pytest.mark.parametrize("phases", list(product(OURS, repeat=3)))
def test_checks_together_end_as_a_run_of_argo_does(phases: Sequence[str]) -> None:
    checks = tuple(GateCheck(name="errors", outcome=OURS[each], reason=each.upper(), message=each) for each in phases)
    verdict = conclude(checks, make_evidence(), "so far", now=NOW)
    assert verdict.outcome is OURS[argo_run(phases)]
    assert verdict.reason == ("GATE_PASSED" if verdict.outcome is GateOutcome.PASS else argo_run(phases).upper())


# --- checks ------------------------------------------------------------------------------------------------------


def make_group(*, idle: bool = False, errors: int = 0, inferences: int = 2_000, **overrides: Any) -> GroupEvidence:
    measured = {key: overrides.pop(key) for key in ("latency", "label_counts") if key in overrides}
    fields: dict[str, Any] = {
        "device_class": "x86_64/CPU()",
        "installed": 1,
        "target": Tally(agent_id=TOGETHER, inferences=inferences, errors=errors, **measured),
        "quiet_since": after_seconds(-901 if idle else -899),
    }
    return GroupEvidence(**(fields | overrides))


def make_evidence(*groups: GroupEvidence, **overrides: Any) -> Evidence:
    fields: dict[str, Any] = {
        "targets": sum(group.installed + group.failed + group.waiting for group in groups),
        "installed": sum(group.installed for group in groups),
        "failed": sum(group.failed for group in groups),
        "inferences": sum(group.target.inferences for group in groups),
        "errors": sum(group.target.errors for group in groups),
        "wave_inferences": 0,
        "wave_errors": 0,
        "wave_age_seconds": 10.0,
        "groups": groups,
    }
    return Evidence(**(fields | overrides))


def checks_of(*groups: GroupEvidence, policy: GatePolicy | None = None, name: str = "errors") -> list[GateCheck]:
    verdict = evaluate(policy or GatePolicy(), make_evidence(*groups), bake_seconds=0, now=NOW)
    return [check for check in verdict.checks if check.name == name]


def test_an_idle_line_is_inconclusive_until_inferences_come() -> None:
    idle, again = make_group(idle=True, inferences=100), make_group(inferences=101)
    (check,) = checks_of(idle)
    assert (check.outcome, check.reason) == (GateOutcome.INCONCLUSIVE, "LINE_IDLE")
    assert check.message.startswith("no inference since 2026-03-01T11:44:59Z; to pass it takes 486 more inferences")
    assert checks_of(again)[0].outcome is GateOutcome.PENDING
    assert checks_of(replace(idle, waiting=1))[0].outcome is GateOutcome.PENDING


def test_an_idle_line_is_said_once_and_not_anew_each_second() -> None:
    evidence = make_evidence(make_group(idle=True, inferences=100))
    said = {evaluate(GatePolicy(), evidence, bake_seconds=0, now=after_seconds(second)).message for second in range(60)}
    assert len(said) == 1


def test_without_a_minimum_errors_can_only_fail() -> None:
    policy = GatePolicy(min_inferences=0)
    assert [check.outcome for check in checks_of(make_group(inferences=0, idle=True), policy=policy)] == [
        GateOutcome.PASS
    ]
    assert checks_of(make_group(errors=9, inferences=9), policy=policy)[0].outcome is GateOutcome.FAIL
    assert checks_of(make_group(errors=1, inferences=99), policy=policy)[0].outcome is GateOutcome.PASS


def test_a_check_keeps_its_numbers() -> None:
    (check,) = checks_of(make_group(errors=4, inferences=2_000))
    assert (check.observed, check.limit, check.samples) == (2.0, 10.0, 2_000)
    assert 0 < check.low < 2.0 < check.high <= 10.0


def test_each_device_class_is_judged_by_itself() -> None:
    good = make_group(device_class="a", inferences=50_000)
    bad = make_group(device_class="b", inferences=1_000, errors=50)
    assert [(check.device_class, check.outcome) for check in checks_of(good, bad)] == [
        ("", GateOutcome.PASS),
        ("a", GateOutcome.PASS),
        ("b", GateOutcome.FAIL),
    ]
    young = make_group(device_class="b", inferences=5)
    assert [check.outcome for check in checks_of(good, young)][1:] == [GateOutcome.PASS, GateOutcome.PENDING]
    away = replace(young, installed=0)
    assert [check.device_class for check in checks_of(good, away)] == ["", "a"]
    broken = replace(young, installed=0, failed=1)
    policy = GatePolicy(max_failed_installs=1)
    verdict = evaluate(policy, make_evidence(good, broken), bake_seconds=0, now=NOW)
    assert (verdict.outcome, verdict.reason) == (GateOutcome.INCONCLUSIVE, "NOTHING_INSTALLED")


@pytest.mark.parametrize(
    ("latency_ms", "count", "outcome"),
    [
        (8.0, 600, GateOutcome.PASS),
        (8.0, 500, GateOutcome.PENDING),
        (11.0, 600, GateOutcome.FAIL),
        (11.0, 19, GateOutcome.PENDING),
    ],
)
def test_the_takt_time_is_kept_or_broken(latency_ms: float, count: int, outcome: GateOutcome) -> None:
    policy = GatePolicy(max_latency_ms_p99=10.0)
    (check,) = checks_of(make_group(latency=make_sketch([latency_ms] * count)), policy=policy, name="latency_p99")
    assert check.outcome is outcome
    assert (check.limit, check.samples) == (10.0, count)
    assert check.observed == pytest.approx(latency_ms, rel=0.02)
    assert check.low <= latency_ms <= check.high


COMPARED = {
    "latency_p99_ratio": GatePolicy(max_latency_p99_percent=120),
    "throughput": GatePolicy(min_throughput_percent=80),
    "confidence_drift": GatePolicy(max_confidence_drift_per_mille=300),
    "class_drift": GatePolicy(max_class_drift_per_mille=300),
}


def make_measured(factor: float, *, count: int = 5_000, shift: int = 0) -> Tally:
    return Tally(
        agent_id=TOGETHER,
        inferences=count,
        latency=make_sketch([5.0 * factor + place / 1_000 for place in range(count)]),
        confidence_histogram=(0,) * (10 + shift) + (count,),
        label_counts={f"label {shift}": count},
        active_seconds=count * factor,
        paced_inferences=count,
    )


@pytest.mark.parametrize("name", COMPARED)
def test_a_version_is_held_against_the_one_before(name: str) -> None:
    def outcome(newer: Tally, older: Tally | None, **overrides: Any) -> GateOutcome:
        group = make_group(compared=newer, previous=older, target=newer, **overrides)
        (check,) = checks_of(group, policy=COMPARED[name], name=name)
        assert check.message
        return check.outcome

    before = make_measured(1.0)
    assert outcome(make_measured(1.0), before) is GateOutcome.PASS
    assert outcome(make_measured(3.0, shift=5), before) is GateOutcome.FAIL
    assert outcome(make_measured(1.0, count=25), before) is GateOutcome.PENDING
    assert outcome(make_measured(1.0, count=25), before, idle=True) is GateOutcome.INCONCLUSIVE
    assert outcome(make_measured(1.0), make_measured(1.0, count=2)) is GateOutcome.INCONCLUSIVE
    assert outcome(make_measured(1.0), None) is GateOutcome.INCONCLUSIVE
    assert outcome(make_measured(1.0), None, waiting=1) is GateOutcome.PENDING


@pytest.mark.parametrize("name", COMPARED)
def test_the_first_version_has_nothing_to_be_compared_with(name: str) -> None:
    verdict = evaluate(COMPARED[name], make_evidence(make_group(), has_previous=False), bake_seconds=0, now=NOW)
    assert verdict.outcome is GateOutcome.PASS
    assert "NOTHING_TO_COMPARE" in {check.reason for check in verdict.checks}


# --- shadow runs -------------------------------------------------------------------------------------------------


def make_shadow(**overrides: Any) -> ShadowEvidence:
    counts = {key: overrides.pop(key) for key in ("compared", "agreed", "errors") if key in overrides}
    fields: dict[str, Any] = {"compared": 1_000, "agreed": 990}
    tally = ShadowTally(agent_id=TOGETHER, **(fields | counts))
    standing: dict[str, Any] = {"tally": tally, "running": 1, "quiet_since": after_seconds(-1)}
    return ShadowEvidence(**(standing | overrides))


POLICY = ShadowPolicy(min_comparisons=500, min_agreement_per_mille=950)


@pytest.mark.parametrize(
    ("shadows", "outcome", "reason"),
    [
        ([make_shadow()], GateOutcome.PASS, "GATE_PASSED"),
        ([make_shadow(compared=499, agreed=499)], GateOutcome.PENDING, "SHADOWING"),
        ([make_shadow(agreed=950)], GateOutcome.PENDING, "SHADOWING"),
        ([make_shadow(agreed=950, quiet_since=after_seconds(-901))], GateOutcome.INCONCLUSIVE, "SHADOW_IDLE"),
        ([make_shadow(agreed=950, quiet_since=None)], GateOutcome.PENDING, "SHADOWING"),
        ([make_shadow(agreed=950, running=0, ended=1)], GateOutcome.INCONCLUSIVE, "SHADOW_ENDED"),
        ([make_shadow(running=0, ended=1)], GateOutcome.PASS, "GATE_PASSED"),
        ([make_shadow(agreed=800)], GateOutcome.FAIL, "SHADOW_DISAGREES"),
        ([make_shadow(errors=40, agreed=960, compared=1_000)], GateOutcome.FAIL, "SHADOW_ERRORS"),
        (
            [make_shadow(device_class="a", compared=9_000, agreed=9_000), make_shadow(device_class="b", agreed=900)],
            GateOutcome.FAIL,
            "SHADOW_DISAGREES",
        ),
        (
            [make_shadow(device_class="a"), make_shadow(device_class="b", compared=5, agreed=5, running=0)],
            GateOutcome.PASS,
            "GATE_PASSED",
        ),
        ([], GateOutcome.INCONCLUSIVE, "SHADOW_ENDED"),
    ],
)
def test_a_shadow_run_is_judged_by_agreement(shadows: list[ShadowEvidence], outcome: GateOutcome, reason: str) -> None:
    verdict = evaluate_shadow(POLICY, make_evidence(shadows=tuple(shadows)), gate=GatePolicy(), now=NOW)
    assert (verdict.outcome, verdict.reason) == (outcome, reason)
    assert verdict.evidence.shadows == ()
    assert {check.name for check in verdict.checks} == {"shadow"}


def test_a_shadow_run_that_stopped_says_why() -> None:
    shadow = make_shadow(agreed=950, running=0, ended=1, first_end="st-1: the serving version became too slow")
    verdict = evaluate_shadow(POLICY, make_evidence(shadows=(shadow,)), gate=GatePolicy(), now=NOW)
    assert verdict.message.endswith("; st-1: the serving version became too slow")
