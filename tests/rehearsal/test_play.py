"""Plays: the real decisions over drawn boxes."""

import random
import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from controlplane.app.windows import Windows
from controlplane.domain.gate import FailureAction, GatePolicy
from controlplane.domain.ids import AgentId, DeploymentId, ModelId
from controlplane.domain.inventory import Device
from controlplane.domain.rollout import (
    ApprovalScope,
    MaintenanceWindow,
    RolloutState,
    RolloutStrategy,
    ShadowPolicy,
)
from controlplane.domain.wave import parse_wave_sizes, plan_waves
from controlplane.rehearsal.draws import draw_binomial, draw_exponential, draw_poisson
from controlplane.rehearsal.play import play
from controlplane.rehearsal.report import Play, spread_of, summarise
from controlplane.rehearsal.stage import Assumptions, BoxSpec, Stage
from tests.support.factories import NOW

CPU, GPU = "x86_64/CPU(FP32)", "x86_64/CPU(FP32)+GPU(FP16)"
MEGABYTES_10 = 10_000_000


def make_box(number: int, **overrides: Any) -> BoxSpec:
    agent_id = AgentId(f"st-{number}")
    labels = {"site": "s1", "line": f"l{number % 4}"}
    has_gpu = number % 3 == 0
    devices = [Device(device="CPU", capabilities=("FP32",))]
    if has_gpu:
        devices.append(Device(device="GPU", capabilities=("FP16",)))
    fields: dict[str, Any] = {
        "agent_id": agent_id,
        "labels": labels,
        "facts": {**labels, "agent": agent_id},
        "architecture": "x86_64",
        "devices": tuple(devices),
        "device_class": GPU if has_gpu else CPU,
        "fetch_bytes": MEGABYTES_10,
        "serving_version": 1,
        "connected": True,
        "inferences_per_second": 10.0,
    }
    return BoxSpec(**(fields | overrides))


def make_stage(boxes: int = 12, *, waves: str = "1,50%,100%", now: datetime = NOW, **overrides: Any) -> Stage:
    specs = overrides.pop("specs", tuple(make_box(number) for number in range(1, boxes + 1)))
    strategy = RolloutStrategy(waves=parse_wave_sizes(waves), **overrides)
    classes = {spec.agent_id: spec.device_class for spec in specs}
    return Stage(
        deployment_id=DeploymentId("solar"),
        model_id=ModelId("solar"),
        version=1,
        target_version=2,
        strategy=strategy,
        waves=plan_waves(strategy.waves, classes, seed="s", device_classes=classes),
        boxes=specs,
        artifact_bytes=MEGABYTES_10,
        now=now,
        silent_seconds_max=15.0,
        ticks_max=5000,
        horizon_seconds=7 * 86400.0,
    )


def run(stage: Stage, *, seed: int = 1, **assumptions: Any) -> Play:
    return play(stage, Assumptions(**assumptions), Windows(stage.strategy.windows), seed=seed)


def test_a_good_version_succeeds_everywhere_and_each_box_fetches_it_once() -> None:
    played = run(make_stage())
    assert (played.state, played.exposed_agents, played.stopped_in_wave) == (RolloutState.SUCCEEDED, 12, None)
    assert played.fetch_bytes == 12 * MEGABYTES_10
    assert played.failed_inferences == 0


def test_a_seed_gives_one_play() -> None:
    rough = {"message_loss_per_mille": 400, "offline_per_mille": 100, "install_failures_per_mille": 50}
    assert run(make_stage(), seed=7, **rough) == run(make_stage(), seed=7, **rough)
    assert run(make_stage(), seed=7, **rough) != run(make_stage(), seed=8, **rough)


def test_a_version_that_fails_on_one_device_class_is_stopped_in_the_canary_wave() -> None:
    plays = [run(make_stage(), seed=seed, errors_per_mille=50, errors_device_class="GPU") for seed in range(20)]
    assert {played.state for played in plays} == {RolloutState.ROLLED_BACK}
    assert {played.stopped_in_wave for played in plays} == {0}
    assert max(played.exposed_agents for played in plays) == 2
    assert min(played.failed_inferences for played in plays) > 0


def test_a_gate_that_pauses_leaves_the_play_to_an_operator() -> None:
    gate = GatePolicy(on_failure=FailureAction.PAUSE)
    played = run(make_stage(gate=gate), install_failures_per_mille=1000)
    assert (played.state, played.stopped_in_wave) == (RolloutState.PAUSED, 0)


def test_lost_messages_and_outages_do_not_fail_a_good_version() -> None:
    plays = [
        run(make_stage(), seed=seed, message_loss_per_mille=400, offline_per_mille=100, restarts_per_day=5.0)
        for seed in range(20)
    ]
    assert {played.state for played in plays} <= {RolloutState.SUCCEEDED, RolloutState.RUNNING}
    assert [played.state for played in plays].count(RolloutState.SUCCEEDED) >= 18


def test_nobody_in_reach_holds_the_rollout_until_the_horizon() -> None:
    specs = tuple(make_box(number, connected=False) for number in range(1, 5))
    played = run(make_stage(specs=specs), offline_per_mille=1000, message_loss_per_mille=1000)
    assert (played.state, played.exposed_agents) == (RolloutState.RUNNING, 0)
    assert played.seconds >= 86400.0


def test_bake_time_and_pace_take_their_time() -> None:
    gate = GatePolicy(min_inferences=0)
    quick = run(make_stage(gate=gate))
    assert run(make_stage(gate=gate, bake_seconds=3600.0)).seconds >= 3 * 3600.0
    assert run(make_stage(gate=gate, agents_per_minute=1)).seconds >= 11 * 60 - 5
    assert quick.seconds < 11 * 60


def test_swaps_wait_for_the_window() -> None:
    window = MaintenanceWindow(selector="", cron="0 22 * * *", duration_seconds=3600.0, time_zone="UTC")
    played = run(make_stage(windows=(window,), gate=GatePolicy(min_inferences=0), waves="100%"))
    assert played.state is RolloutState.SUCCEEDED
    opens = (NOW.replace(hour=22, minute=0) - NOW).total_seconds()
    assert opens <= played.seconds <= opens + 3600.0


def test_approvals_come_at_once_from_another_person() -> None:
    stage = make_stage(approval=ApprovalScope.EVERY_WAVE, second_person=True)
    assert run(stage).state is RolloutState.SUCCEEDED


def test_a_shadow_run_comes_first_and_exposes_nobody_to_a_failing_candidate() -> None:
    shadow = ShadowPolicy(min_comparisons=2000)
    assert run(make_stage(shadow=shadow)).state is RolloutState.SUCCEEDED
    bad = run(make_stage(shadow=shadow), errors_per_mille=300)
    assert (bad.state, bad.exposed_agents, bad.stopped_in_wave) == (RolloutState.ROLLED_BACK, 0, 0)


def test_a_hundred_boxes_are_played_in_well_under_a_second() -> None:
    stage = make_stage(100)
    begin = time.process_time()
    assert run(stage).state is RolloutState.SUCCEEDED
    assert time.process_time() - begin < 1.0


def test_draws_have_the_means_that_they_claim() -> None:
    rng = random.Random(3)
    for mean in (0.5, 5.0, 200.0):
        drawn = [draw_poisson(rng, mean) for _ in range(2000)]
        assert sum(drawn) / 2000 == pytest.approx(mean, rel=0.1)
    for trials, share in ((10, 0.3), (1000, 0.001), (10_000, 0.2)):
        drawn = [draw_binomial(rng, trials, share) for _ in range(2000)]
        assert sum(drawn) / 2000 == pytest.approx(trials * share, rel=0.1)
        assert 0 <= min(drawn) <= max(drawn) <= trials
    assert sum(draw_exponential(rng, 60.0) for _ in range(5000)) / 5000 == pytest.approx(60.0, rel=0.1)
    assert (draw_binomial(rng, 5, 0.0), draw_binomial(rng, 5, 1.0), draw_poisson(rng, 0.0)) == (0, 5, 0)


def test_a_spread_names_numbers_that_were_seen() -> None:
    spread = spread_of([float(number) for number in range(100, 0, -1)])
    assert (spread.min, spread.p50, spread.p95, spread.max) == (1.0, 50.0, 95.0, 100.0)


def test_a_report_counts_how_plays_ended() -> None:
    plays = [run(make_stage(), seed=seed, errors_per_mille=30 * seed) for seed in (0, 1, 2)]
    report = summarise(plays, horizon_seconds=timedelta(days=1).total_seconds())
    assert sum(report.outcomes.values()) == 3
    assert report.stopped_in_wave == {0: 2}
