"""A gate that is asked every second: bad versions are stopped in the canary, good ones are not failed."""

import random
from dataclasses import replace

import pytest

from controlplane.domain.evidence import TOGETHER, GroupEvidence, Tally
from controlplane.domain.gate import Evidence, GateOutcome, GatePolicy, GateVerdict, evaluate
from tests.support.factories import NOW, after_seconds

LOOKS = 900
"""Seconds of a canary: a quarter of an hour."""
SEEDS = 100


def canary(seed: int, *, error_shares: dict[str, float], policy: GatePolicy) -> tuple[GateVerdict, int]:
    """Ask the gate each second until it passes or fails; return its last verdict and what the worst class
    inferred. Each device class makes 6 to 14 inferences a second."""
    rng = random.Random(seed)
    counts = dict.fromkeys(error_shares, (0, 0))
    verdict: GateVerdict | None = None
    for second in range(1, LOOKS + 1):
        for name, share in error_shares.items():
            inferences, errors = counts[name]
            made = rng.randint(6, 14)
            counts[name] = (inferences + made, errors + sum(rng.random() < share for _ in range(made)))
        groups = tuple(
            GroupEvidence(
                device_class=name,
                installed=1,
                target=Tally(agent_id=TOGETHER, inferences=inferences, errors=errors),
                quiet_since=after_seconds(second),
            )
            for name, (inferences, errors) in counts.items()
        )
        evidence = Evidence(
            targets=len(groups),
            installed=len(groups),
            failed=0,
            inferences=sum(inferences for inferences, _ in counts.values()),
            errors=sum(errors for _, errors in counts.values()),
            wave_inferences=0,
            wave_errors=0,
            wave_age_seconds=second,
            groups=groups,
        )
        verdict = evaluate(policy, evidence, bake_seconds=60, now=after_seconds(second))
        if verdict.outcome in {GateOutcome.PASS, GateOutcome.FAIL}:
            break
    assert verdict is not None
    return verdict, counts[max(error_shares, key=lambda name: error_shares[name])][0]


def test_a_version_that_fails_two_percent_on_one_device_class_is_stopped_in_the_canary() -> None:
    shares = {"x86_64/CPU()": 0.0005, "x86_64/GPU()": 0.02, "x86_64/NPU()": 0.0005}
    ends = [canary(seed, error_shares=shares, policy=GatePolicy()) for seed in range(SEEDS)]
    failed = [verdict for verdict, _ in ends if verdict.outcome is GateOutcome.FAIL]
    assert len(failed) >= SEEDS - 1
    assert not [verdict for verdict, _ in ends if verdict.outcome is GateOutcome.PASS]
    assert all("x86_64/GPU()" in verdict.message for verdict in failed if verdict.reason == "ERROR_RATE_EXCEEDED")
    inferences = sorted(count for _, count in ends)
    assert inferences[SEEDS // 2] < 2_500, "half of them are stopped soon"


@pytest.mark.parametrize("share", [0.0, 0.001])
@pytest.mark.parametrize("min_inferences", [1, 20])
def test_a_good_version_is_not_failed_and_passes(share: float, min_inferences: int) -> None:
    shares = {"x86_64/CPU()": share, "x86_64/GPU()": share}
    policy = GatePolicy(min_inferences=min_inferences)
    ends = [canary(seed, error_shares=shares, policy=policy)[0].outcome for seed in range(SEEDS)]
    assert ends.count(GateOutcome.FAIL) == 0
    assert ends.count(GateOutcome.PASS) == SEEDS


def test_a_version_at_the_limit_is_rarely_decided_wrongly() -> None:
    """It may stay undecided for good: that is what the deadline of a rollout is for."""
    outcomes = [canary(seed, error_shares={"x86_64/CPU()": 0.01}, policy=GatePolicy())[0].outcome for seed in range(30)]
    assert outcomes.count(GateOutcome.PENDING) >= 28


@pytest.mark.parametrize("confidence", [900, 990, 999])
def test_more_confidence_takes_more_evidence(confidence: int) -> None:
    policy = GatePolicy(confidence_per_mille=confidence)
    verdict, inferences = canary(1, error_shares={"x86_64/CPU()": 0.0}, policy=policy)
    assert verdict.outcome is GateOutcome.PASS
    stricter = replace(policy, max_errors_per_mille=5)
    assert canary(1, error_shares={"x86_64/CPU()": 0.0}, policy=stricter)[1] > inferences
    assert verdict.evaluate_time > NOW
