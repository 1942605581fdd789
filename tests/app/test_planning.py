"""Plans: the waves that a start will have, what speaks against them, and nothing changed."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controlplane.app.pins import Pins
from controlplane.app.planning import Planning
from controlplane.app.rollouts import RolloutRequest, WhenActive
from controlplane.domain.catalog import Artifact, Yank
from controlplane.domain.errors import DomainError, Reason
from controlplane.domain.gate import GatePolicy
from controlplane.domain.ids import AgentId, ModelId
from controlplane.domain.rollout import MaintenanceWindow, RolloutStrategy, WindowScope
from controlplane.domain.wave import parse_wave_sizes
from tests.app.fleet import ANNA, LINE_3, SOLAR, Fleet
from tests.support.factories import make_artifact, make_host, make_version

STATIONS = tuple(f"st-{number}" for number in range(1, 8))


async def make_fleet() -> Fleet:
    fleet = Fleet()
    await fleet.publish(1, 2, 3)
    await fleet.publish(1, model="weld")
    await fleet.enrol(*STATIONS)
    await fleet.deploy()
    await fleet.sync(*STATIONS)
    return fleet


def make_request(version: int = 2, *, waves: str = "1,50%,100%", **overrides: Any) -> RolloutRequest:
    when_active = overrides.pop("when_active", WhenActive.RULE)
    fields: dict[str, Any] = {"gate": GatePolicy(min_inferences=0), **overrides}
    strategy = RolloutStrategy(waves=parse_wave_sizes(waves), **fields)
    return RolloutRequest(
        deployment_id=LINE_3,
        model_id=SOLAR,
        target_version=version,
        strategy=strategy,
        actor=ANNA,
        when_active=when_active,
    )


def planning(fleet: Fleet) -> Planning:
    return Planning(store=fleet.store, clock=fleet.clock)


async def set_artifact(fleet: Fleet, number: int, artifact: Artifact) -> None:
    async with fleet.store.write() as work:
        version = make_version(model_id=ModelId(SOLAR), number=number, artifact=artifact)
        work.models._tables.versions[SOLAR, number] = version  # type: ignore[attr-defined]


async def set_free(fleet: Fleet, agent: str, free: int) -> None:
    async with fleet.store.write() as work:
        observation = (await work.agents.get(AgentId(agent))).observation
        assert observation is not None
        await work.agents.record([replace(observation, host=make_host(disk_bytes=1 << 30, disk_free_bytes=free))])


async def test_a_plan_shows_the_very_waves_of_the_rollout() -> None:
    fleet = await make_fleet()
    await fleet.report_devices("st-5", "CPU", "GPU.0")
    plan = await planning(fleet).plan(make_request())
    rollout = await fleet.rollouts.create(make_request())
    assert [wave.agents for wave in plan.waves] == [wave.agents for wave in rollout.waves]
    assert [str(wave.size) for wave in plan.waves] == ["1", "50%", "100%"]
    assert len(plan.waves[0].device_classes) == 2
    assert [(target.wave, target.agent_id) for target in plan.targets] == [
        (wave.index, agent) for wave in rollout.waves for agent in wave.agents
    ]


async def test_a_plan_changes_nothing() -> None:
    fleet = await make_fleet()
    before = fleet.store._tables.copy()  # type: ignore[attr-defined]
    await planning(fleet).plan(make_request())
    assert fleet.store._tables == before  # type: ignore[attr-defined]
    assert not fleet.notices.rollouts


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({"version": 9}, Reason.RESOURCE_NOT_FOUND, "rollout.target_version"),
        ({"version": 3}, Reason.VERSION_YANKED, "rollout.target_version"),
        ({"bake_seconds": -1.0}, Reason.FIELD_INVALID, "rollout.strategy.bake"),
        ({"when_active": WhenActive.REFUSE}, Reason.ROLLOUT_ACTIVE, "rollout.deployment"),
    ],
)
async def test_a_plan_is_refused_for_what_the_start_is_refused_for(
    change: dict[str, Any], reason: Reason, field: str
) -> None:
    fleet = await make_fleet()
    async with fleet.store.write() as work:
        version = work.models._tables.versions[SOLAR, 3]  # type: ignore[attr-defined]
        work.models._tables.versions[SOLAR, 3] = replace(  # type: ignore[attr-defined]
            version, yank=Yank(time=fleet.clock.now(), reason="wrong", actor=ANNA)
        )
    if reason is Reason.ROLLOUT_ACTIVE:
        await fleet.rollouts.create(make_request())
    refusals = []
    for attempt in (planning(fleet).plan, fleet.rollouts.create):
        with pytest.raises(DomainError) as refused:
            await attempt(make_request(**change))
        refusals.append((refused.value.reason, refused.value.field, refused.value.message))
    assert refusals[0] == refusals[1]
    assert refusals[0][:2] == (reason, field)


async def test_bytes_are_those_of_files_that_the_agent_lacks() -> None:
    fleet = await make_fleet()
    await set_artifact(fleet, 1, make_artifact("shared", "old"))
    await set_artifact(fleet, 2, make_artifact("shared", "new-weights"))
    await fleet.enrol("st-8")
    plan = await planning(fleet).plan(make_request())
    fetched = {target.agent_id: target.fetch_bytes for target in plan.targets}
    assert fetched[AgentId("st-1")] == len("new-weights")
    assert fetched[AgentId("st-8")] == len("new-weights") + len("shared")
    assert sum(wave.fetch_bytes for wave in plan.waves) == sum(fetched.values())


async def test_too_little_disk_and_out_of_reach_are_warned_of() -> None:
    fleet = await make_fleet()
    await set_free(fleet, "st-3", 3)
    await fleet.enrol("st-8")
    plan = await planning(fleet).plan(make_request())
    warned = {target.agent_id: target.warning for target in plan.targets if target.warning}
    assert "too little disk" in warned[AgentId("st-3")]
    assert warned[AgentId("st-8")] == "never heard"
    assert any("too little disk: st-3" in warning for warning in plan.warnings)
    assert any("out of reach: st-8" in warning for warning in plan.warnings)


async def test_who_is_left_out_is_named_with_the_reason() -> None:
    fleet = await make_fleet()
    pins = Pins(store=fleet.store, clock=fleet.clock, ids=fleet.ids, notifier=fleet.notices)
    await pins.pin(AgentId("st-1"), ModelId(SOLAR), 1, reason="a test", actor=ANNA)
    await fleet.revoke("st-2")
    await fleet.enrol("st-9", line="4")
    await fleet.deploy(deployment_id="one", selector="agent=st-3", priority=5)
    plan = await planning(fleet).plan(make_request())
    assert [(left.agent_id, left.reason) for left in plan.left_out] == [
        ("st-1", "PINNED"),
        ("st-2", "REVOKED"),
        ("st-3", "HELD_BY_OTHER_DEPLOYMENT"),
    ]
    assert "deployments/one" in plan.left_out[2].message
    assert not {"st-1", "st-2", "st-3", "st-9"} & {target.agent_id for target in plan.targets}


async def test_estimates_add_up_bake_pace_and_approval_free_waves() -> None:
    fleet = await make_fleet()
    plan = await planning(fleet).plan(make_request(bake_seconds=600.0, waves="1,100%"))
    now = fleet.clock.now()
    first, second = plan.waves
    assert (first.admit_time_estimate, first.pass_time_estimate) == (now, now + timedelta(seconds=600))
    assert second.admit_time_estimate == first.pass_time_estimate
    assert second.pass_time_estimate == now + timedelta(seconds=1200)
    paced = await planning(fleet).plan(make_request(agents_per_minute=1, waves="100%"))
    assert paced.waves[0].pass_time_estimate is not None
    assert paced.waves[0].pass_time_estimate - now >= timedelta(minutes=6)


async def test_evidence_is_expected_at_the_rate_of_the_last_hour() -> None:
    fleet = await make_fleet()
    request = make_request(gate=GatePolicy(min_inferences=1000, max_errors_per_mille=1000), waves="100%")
    unknown = await planning(fleet).plan(request)
    assert unknown.waves[0].pass_time_estimate is None
    assert any("no inferences in the last hour" in warning for warning in unknown.warnings)
    await fleet.infer(*STATIONS, version=1, inferences=3600)
    plan = await planning(fleet).plan(request)
    end = plan.waves[0].pass_time_estimate
    assert end is not None
    seconds = (end - fleet.clock.now()).total_seconds()
    assert 1000 / len(STATIONS) <= seconds <= 1000 / len(STATIONS) + 60


async def test_windows_move_swaps_and_starts() -> None:
    fleet = await make_fleet()
    window = MaintenanceWindow(selector="", cron="0 22 * * *", duration_seconds=3600.0, time_zone="UTC")
    plan = await planning(fleet).plan(make_request(windows=(window,), waves="100%"))
    opens = fleet.clock.now().replace(hour=22, minute=0)
    assert {target.swap_time_earliest for target in plan.targets} == {opens}
    assert plan.waves[0].admit_time_estimate == fleet.clock.now()
    assert plan.waves[0].pass_time_estimate is not None
    assert plan.waves[0].pass_time_estimate > opens
    start = replace(window, scope=WindowScope.START)
    plan = await planning(fleet).plan(make_request(windows=(start,), waves="100%"))
    assert plan.waves[0].admit_time_estimate == opens


async def test_a_line_swaps_one_after_the_other() -> None:
    fleet = await make_fleet()
    at_once = await planning(fleet).plan(make_request(waves="100%"))
    in_turn = await planning(fleet).plan(make_request(waves="100%", max_unavailable_per_line=1))
    now = fleet.clock.now()
    assert at_once.waves[0].pass_time_estimate is not None
    assert in_turn.waves[0].pass_time_estimate is not None
    one = at_once.waves[0].pass_time_estimate - now
    assert in_turn.waves[0].pass_time_estimate - now == len(STATIONS) * one


async def test_a_plan_behind_another_rollout_names_it_and_estimates_nothing() -> None:
    fleet = await make_fleet()
    running = await fleet.rollouts.create(make_request())
    plan = await planning(fleet).plan(make_request(3))
    assert plan.related_id == running.id
    assert plan.waves[0].admit_time_estimate is None
    assert any(running.id in warning for warning in plan.warnings)


async def test_a_deadline_that_would_be_missed_is_warned_of() -> None:
    fleet = await make_fleet()
    plan = await planning(fleet).plan(make_request(bake_seconds=600.0, deadline_seconds=900.0))
    assert any("deadline" in warning for warning in plan.warnings)
    plan = await planning(fleet).plan(make_request(bake_seconds=100.0, deadline_seconds=900.0))
    assert not any("deadline" in warning for warning in plan.warnings)
