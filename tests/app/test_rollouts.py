"""Rollouts from start to end, by ticks and by hand."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from controlplane.app.leadership import FencedStore, Leadership
from controlplane.app.rollouts import RolloutRequest, Rollouts, WhenActive
from controlplane.domain.errors import DomainError, LeaseLostError, PreconditionError, Reason, StaleWriteError
from controlplane.domain.gate import FailureAction, GatePolicy
from controlplane.domain.ids import DeploymentId, ModelId
from controlplane.domain.rollout import Rollout, RolloutState, RolloutStrategy, WaveState
from controlplane.domain.wave import parse_wave_sizes
from tests.app.fleet import ANNA, LINE_3, SOLAR, CrashError, CrashingStore, Fleet, MeanwhileStore

STATIONS = ("st-1", "st-2", "st-3")
REQUEST_ID = "8c4ff0a6-6a3f-4d0e-9f38-0f6a3c1d2b11"


async def make_fleet(*, version: int | None = 1) -> Fleet:
    fleet = Fleet()
    await fleet.publish(1, 2, 3)
    await fleet.publish(1, model="weld")
    await fleet.enrol(*STATIONS)
    await fleet.deploy(version=version)
    await fleet.sync(*STATIONS)
    return fleet


async def versions(fleet: Fleet) -> list[int | None]:
    return [(await fleet.desired(station)).get(SOLAR) for station in STATIONS]


async def look(fleet: Fleet, rollout: Rollout) -> Rollout:
    return await fleet.rollouts.get(rollout.id)


def canary_of(rollout: Rollout) -> str:
    return rollout.waves[0].agents[0]


async def test_the_first_wave_is_offered_the_version_at_once_and_nobody_else() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out()
    assert [len(wave.agents) for wave in rollout.waves] == [1, 2]
    assert sorted(filter(None, await versions(fleet))) == [1, 1, 2]
    assert await fleet.desired(canary_of(rollout)) == {SOLAR: 2}
    assert fleet.notices.rollouts == [rollout.id]


async def test_waves_pass_one_after_the_other_and_the_deployment_gets_the_version() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(waves="1,2,100%")
    for exposed in (1, 2, 3):
        assert (await versions(fleet)).count(2) == exposed
        assert (await look(fleet, rollout)).state is RolloutState.RUNNING
        await fleet.sync(*STATIONS)
        await fleet.tick()
    ended = await look(fleet, rollout)
    assert (ended.state, ended.end_time) == (RolloutState.SUCCEEDED, fleet.clock.now())
    assert await fleet.version() == 2
    assert await versions(fleet) == [2, 2, 2]


async def test_nothing_is_admitted_before_the_bake_time_and_enough_inferences() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(strategy={"bake_seconds": 10.0}, min_inferences=20)
    await fleet.tick()
    assert (await look(fleet, rollout)).reason == "INSTALLING"
    await fleet.sync(*STATIONS)
    await fleet.tick()
    assert (await look(fleet, rollout)).reason == "TOO_FEW_INFERENCES"
    await fleet.infer(canary_of(rollout), version=2, inferences=2000)
    await fleet.tick()
    assert (await look(fleet, rollout)).reason == "BAKING"
    await fleet.tick(6.5)
    assert (await look(fleet, rollout)).waves[1].state is WaveState.PENDING
    await fleet.tick(0.5)
    assert (await look(fleet, rollout)).waves[1].state is WaveState.ADMITTED


async def test_inferences_from_before_the_wave_and_of_others_count_for_nothing() -> None:
    fleet = await make_fleet()
    await fleet.infer(*STATIONS, version=2, errors=100)
    fleet.clock.advance(1)
    rollout = await fleet.roll_out(min_inferences=20)
    others = [station for station in STATIONS if station != canary_of(rollout)]
    await fleet.infer(*others, version=2, errors=100)
    await fleet.sync(*STATIONS)
    await fleet.tick()
    seen = await look(fleet, rollout)
    assert seen.reason == "TOO_FEW_INFERENCES"
    assert seen.waves[0].verdict is not None
    assert seen.waves[0].verdict.evidence.inferences == 0


async def test_a_failed_install_rolls_back_and_ends_when_the_canary_is_back() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out()
    await fleet.sync(*STATIONS, failing=[2])
    await fleet.tick()
    back = await look(fleet, rollout)
    assert (back.state, back.reason) == (RolloutState.ROLLING_BACK, "INSTALLS_FAILED")
    assert await versions(fleet) == [1, 1, 1]
    await fleet.tick()
    assert (await look(fleet, rollout)).state is RolloutState.ROLLING_BACK
    await fleet.sync(*STATIONS)
    await fleet.tick()
    ended = await look(fleet, rollout)
    assert (ended.state, ended.reason) == (RolloutState.ROLLED_BACK, "INSTALLS_FAILED")
    assert await fleet.version() == 1


async def test_inference_errors_pause_where_the_gate_says_so() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(min_inferences=20, on_failure=FailureAction.PAUSE)
    await fleet.sync(*STATIONS)
    await fleet.infer(canary_of(rollout), version=2, inferences=2000, errors=200)
    await fleet.tick()
    paused = await look(fleet, rollout)
    assert (paused.state, paused.reason) == (RolloutState.PAUSED, "ERROR_RATE_EXCEEDED")
    assert (await versions(fleet)).count(2) == 1


async def test_a_retry_offers_again_and_old_failures_count_no_longer() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(on_failure=FailureAction.PAUSE)
    await fleet.sync(*STATIONS, failing=[2])
    await fleet.tick()
    assert (await look(fleet, rollout)).state is RolloutState.PAUSED
    await fleet.rollouts.retry(rollout.id, actor=ANNA)
    await fleet.tick()
    waiting = await look(fleet, rollout)
    assert (waiting.state, waiting.reason) == (RolloutState.RUNNING, "INSTALLING")
    await fleet.sync(*STATIONS)
    await fleet.tick()
    assert (await look(fleet, rollout)).waves[0].state is WaveState.PASSED


async def test_a_new_rollout_forgets_the_failures_of_the_one_before() -> None:
    fleet = await make_fleet()
    first = await fleet.roll_out()
    await fleet.sync(*STATIONS, failing=[2])
    await fleet.rollouts.abort(first.id, actor=ANNA)
    second = await fleet.roll_out(waves="100%")
    await fleet.tick()
    assert (await look(fleet, second)).state is RolloutState.RUNNING


async def test_a_silent_target_holds_the_wave_and_a_revoked_one_does_not() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(waves="100%")
    await fleet.sync(*STATIONS)
    fleet.clock.advance(60)
    await fleet.sync("st-1", "st-2")
    await fleet.tick()
    waiting = await look(fleet, rollout)
    assert waiting.reason == "INSTALLING"
    assert waiting.message.endswith("out of reach: st-3")
    await fleet.revoke("st-3")
    await fleet.tick()
    assert (await look(fleet, rollout)).state is RolloutState.SUCCEEDED


async def test_without_any_target_left_it_holds() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out()
    for station in STATIONS:
        await fleet.revoke(station)
    await fleet.tick()
    holding = await look(fleet, rollout)
    assert (holding.state, holding.reason) == (RolloutState.RUNNING, "HOLDING_NO_TARGETS")
    assert "goes on by itself" in holding.message


async def test_an_agent_that_joins_later_is_moved_with_the_last_wave() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out()
    await fleet.enrol("st-4")
    await fleet.convergence.run()
    assert await fleet.desired("st-4") == {SOLAR: 1}
    await fleet.sync(*STATIONS)
    await fleet.tick()
    assert "st-4" in (await look(fleet, rollout)).waves[1].agents
    assert await fleet.desired("st-4") == {SOLAR: 1}
    await fleet.sync("st-4")
    await fleet.tick()
    assert await fleet.desired("st-4") == {SOLAR: 2}


async def test_no_agent_joins_while_it_is_paused() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(waves="100%")
    await fleet.rollouts.pause(rollout.id, actor=ANNA)
    await fleet.enrol("st-4")
    await fleet.tick()
    await fleet.convergence.run()
    assert await fleet.desired("st-4") == {SOLAR: 1}
    await fleet.rollouts.resume(rollout.id, actor=ANNA)
    await fleet.sync("st-4")
    await fleet.tick()
    assert await fleet.desired("st-4") == {SOLAR: 2}


async def test_abort_returns_the_targets() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out()
    assert (await fleet.rollouts.abort(rollout.id, actor=ANNA)).state is RolloutState.ABORTED
    assert await versions(fleet) == [1, 1, 1]


async def test_the_first_rollout_of_a_deployment_returns_to_nothing() -> None:
    fleet = await make_fleet(version=None)
    rollout = await fleet.roll_out(version=1)
    assert (await versions(fleet)).count(1) == 1
    await fleet.sync(*STATIONS)
    await fleet.rollouts.rollback(rollout.id, actor=ANNA)
    await fleet.sync(*STATIONS)
    await fleet.tick()
    ended = await look(fleet, rollout)
    assert ended.state is RolloutState.ROLLED_BACK
    assert "no version" in ended.message
    assert await versions(fleet) == [None, None, None]


async def succeed(fleet: Fleet, version: int) -> Rollout:
    rollout = await fleet.roll_out(version=version, waves="100%")
    await fleet.sync(*STATIONS)
    await fleet.tick()
    return await look(fleet, rollout)


async def test_the_last_succeeded_rollout_can_be_rolled_back() -> None:
    fleet = await make_fleet()
    rollout = await succeed(fleet, 2)
    assert rollout.state is RolloutState.SUCCEEDED
    rolling = await fleet.rollouts.rollback(rollout.id, actor=ANNA)
    assert (rolling.state, rolling.end_time) == (RolloutState.ROLLING_BACK, None)
    assert await fleet.version() == 1
    await fleet.sync(*STATIONS)
    await fleet.tick()
    assert (await look(fleet, rollout)).state is RolloutState.ROLLED_BACK
    assert await versions(fleet) == [1, 1, 1]


async def test_a_succeeded_rollout_that_another_followed_cannot_be_rolled_back() -> None:
    fleet = await make_fleet()
    first, second = await succeed(fleet, 2), await succeed(fleet, 3)
    with pytest.raises(PreconditionError) as refusal:
        await fleet.rollouts.rollback(first.id, actor=ANNA)
    assert f"rollouts/{second.id}" in refusal.value.message
    third = await fleet.roll_out(version=1)
    with pytest.raises(PreconditionError) as active:
        await fleet.rollouts.rollback(second.id, actor=ANNA)
    assert active.value.reason is Reason.ROLLOUT_ACTIVE
    assert f"rollouts/{third.id}" in active.value.message
    assert await fleet.version() == 3


async def test_a_rollout_to_the_present_version_verifies_it() -> None:
    fleet = await make_fleet()
    rollout = await succeed(fleet, 1)
    assert (rollout.state, rollout.previous_version) == (RolloutState.SUCCEEDED, 1)


async def test_a_tick_that_finds_nothing_new_writes_nothing() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(strategy={"bake_seconds": 100.0})
    await fleet.tick()
    before, notices = await look(fleet, rollout), list(fleet.notices.rollouts)
    generations = [await fleet.generation(station) for station in STATIONS]
    for _ in range(5):
        await fleet.tick()
    assert await look(fleet, rollout) == before
    assert fleet.notices.rollouts == notices
    assert [await fleet.generation(station) for station in STATIONS] == generations


async def test_what_an_operator_decides_during_a_tick_counts_in_it() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out()
    await fleet.sync(*STATIONS)
    whole = fleet.store
    fleet.store = MeanwhileStore(whole, lambda: fleet.yank(2))
    await fleet.tick()
    fleet.store = whole
    stopped = await look(fleet, rollout)
    assert stopped.state is RolloutState.ROLLING_BACK
    assert [len(wave.releases) for wave in stopped.waves] == [1, 0]


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("outcome", ["pass", "fail"])
async def test_a_crash_around_the_commit_is_made_good_by_the_next_tick(committed: bool, outcome: str) -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(waves="100%")
    await fleet.sync(*STATIONS, failing=[2] if outcome == "fail" else [])
    whole, fleet.store = fleet.store, CrashingStore(fleet.store, at_write=0, committed=committed)
    with pytest.raises((CrashError, ExceptionGroup)):
        await fleet.tick()
    fleet.store = whole
    await fleet.tick()
    ended = await look(fleet, rollout)
    wanted = RolloutState.SUCCEEDED if outcome == "pass" else RolloutState.ROLLING_BACK
    assert ended.state is wanted
    assert await versions(fleet) == ([2, 2, 2] if outcome == "pass" else [1, 1, 1])
    assert await fleet.version() == (2 if outcome == "pass" else 1)


@pytest.mark.parametrize(
    ("overrides", "reason", "field"),
    [
        ({"deployment_id": DeploymentId("unknown")}, Reason.RESOURCE_NOT_FOUND, "rollout.deployment"),
        ({"model_id": ModelId("weld"), "target_version": 1}, Reason.FIELD_INVALID, "rollout.target_version"),
        ({"target_version": 9}, Reason.RESOURCE_NOT_FOUND, "rollout.target_version"),
        ({"bake_seconds": -1.0}, Reason.FIELD_INVALID, "rollout.strategy.bake"),
        ({"bake_seconds": float("nan")}, Reason.FIELD_INVALID, "rollout.strategy.bake"),
        ({"gate": GatePolicy(min_inferences=-1)}, Reason.FIELD_INVALID, "rollout.strategy.gate.min_inferences"),
        (
            {"gate": GatePolicy(max_errors_per_mille=1001)},
            Reason.FIELD_INVALID,
            "rollout.strategy.gate.max_errors_per_mille",
        ),
        (
            {"gate": GatePolicy(max_failed_installs=-1)},
            Reason.FIELD_INVALID,
            "rollout.strategy.gate.max_failed_installs",
        ),
        ({"request_id": "once"}, Reason.FIELD_INVALID, "request_id"),
    ],
)
async def test_a_refused_start_names_field_and_remedy_and_changes_nothing(
    overrides: dict[str, Any], reason: Reason, field: str
) -> None:
    fleet = await make_fleet()
    strategy = RolloutStrategy(
        waves=parse_wave_sizes("1,100%"),
        bake_seconds=overrides.pop("bake_seconds", 0.0),
        gate=overrides.pop("gate", GatePolicy()),
    )
    request = RolloutRequest(deployment_id=LINE_3, model_id=SOLAR, target_version=2, strategy=strategy, actor=ANNA)
    with pytest.raises(DomainError) as refusal:
        await fleet.rollouts.create(replace(request, **overrides))
    assert (refusal.value.reason, refusal.value.field) == (reason, field)
    assert refusal.value.remedy
    assert (await fleet.rollouts.list()).items == []
    assert await versions(fleet) == [1, 1, 1]
    assert await fleet.generation("st-1") == 1


async def test_a_second_rollout_of_a_deployment_is_refused_where_that_is_asked_for() -> None:
    fleet = await make_fleet()
    first = await fleet.roll_out()
    with pytest.raises(PreconditionError) as refusal:
        await fleet.roll_out(version=3, when_active=WhenActive.REFUSE)
    assert refusal.value.reason is Reason.ROLLOUT_ACTIVE
    assert f"rollouts/{first.id}" in refusal.value.message


async def test_a_rollout_without_targets_is_refused() -> None:
    fleet = await make_fleet()
    for station in STATIONS:
        await fleet.revoke(station)
    with pytest.raises(PreconditionError) as refusal:
        await fleet.roll_out()
    assert refusal.value.reason is Reason.SELECTION_EMPTY


async def test_a_repeated_request_starts_one_rollout() -> None:
    fleet = await make_fleet()
    first = await fleet.roll_out(request_id=REQUEST_ID)
    assert await fleet.roll_out(request_id=REQUEST_ID) == first
    with pytest.raises(PreconditionError) as refusal:
        await fleet.roll_out(version=3, request_id=REQUEST_ID)
    assert refusal.value.reason is Reason.REQUEST_ID_REUSED


async def test_a_command_with_an_old_etag_is_refused() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out()
    await fleet.rollouts.pause(rollout.id, actor=ANNA, revision=rollout.revision)
    with pytest.raises(StaleWriteError):
        await fleet.rollouts.resume(rollout.id, actor=ANNA, revision=rollout.revision)


async def test_a_list_is_newest_first_and_of_one_deployment() -> None:
    fleet = await make_fleet()
    first = await fleet.roll_out()
    await fleet.rollouts.abort(first.id, actor=ANNA)
    second = await fleet.roll_out()
    page = await fleet.rollouts.list(deployment_id=LINE_3, page_size=1)
    rest = await fleet.rollouts.list(deployment_id=LINE_3, page_size=1, page_token=page.next_token)
    assert [rollout.id for rollout in (*page.items, *rest.items)] == [second.id, first.id]
    assert (await fleet.rollouts.list(deployment_id=DeploymentId("other"))).items == []


async def test_a_watch_shows_each_change_and_ends_with_the_rollout() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out()
    seen: asyncio.Queue[RolloutState] = asyncio.Queue()

    async def watch() -> None:
        async with aclosing(fleet.rollouts.watch(rollout.id)) as watched:
            async for one in watched:
                seen.put_nowait(one.rollout.state)

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        assert await seen.get() is RolloutState.RUNNING
        await fleet.rollouts.pause(rollout.id, actor=ANNA)
        assert await seen.get() is RolloutState.PAUSED
        await fleet.rollouts.abort(rollout.id, actor=ANNA)
        await watching
    assert await seen.get() is RolloutState.ABORTED
    assert seen.empty()
    assert fleet.notices._watchers == {}


async def test_one_broken_rollout_does_not_hold_up_the_others() -> None:
    fleet = await make_fleet()
    broken = await fleet.roll_out(waves="100%")
    await fleet.enrol("st-9", line="9")
    await fleet.deploy(deployment_id="line-9", model_id="weld", selector="line=9")
    await fleet.sync("st-9")
    strategy = RolloutStrategy(waves=parse_wave_sizes("100%"), gate=GatePolicy(min_inferences=0))
    other = await fleet.rollouts.create(
        RolloutRequest(
            deployment_id=DeploymentId("line-9"),
            model_id=ModelId("weld"),
            target_version=1,
            strategy=strategy,
            actor=ANNA,
        )
    )
    await fleet.sync(*STATIONS, "st-9")
    whole, fleet.store = fleet.store, CrashingStore(fleet.store, at_write=0, committed=False)
    with pytest.raises(ExceptionGroup) as failures:
        await fleet.tick()
    fleet.store = whole
    assert [type(error) for error in failures.value.exceptions] == [CrashError]
    assert (await look(fleet, broken)).state is RolloutState.RUNNING
    assert (await look(fleet, other)).state is RolloutState.SUCCEEDED


async def test_a_tick_ends_at_once_where_another_controller_leads() -> None:
    """It is told as such, so that whoever runs the tick knows it for no failure."""
    fleet = await make_fleet()
    rollout = await fleet.roll_out(waves="100%")
    await fleet.sync(*STATIONS)
    deposed = Leadership(store=fleet.store, clock=fleet.clock, ids=fleet.ids, monotonic=lambda: 0.0, holder="deposed")
    whole, fleet.store = fleet.store, FencedStore(fleet.store, deposed)
    with pytest.raises(LeaseLostError):
        await fleet.tick()
    fleet.store = whole
    assert (await look(fleet, rollout)).state is RolloutState.RUNNING


async def test_what_an_operator_decides_is_announced_before_the_deciding_ends() -> None:
    fleet, announced = await make_fleet(), list[list[str]]()

    @contextmanager
    def deciding() -> Iterator[None]:
        fleet.notices.rollouts.clear()
        yield
        announced.append(list(fleet.notices.rollouts))

    rollouts = Rollouts(store=fleet.store, clock=fleet.clock, ids=fleet.ids, notices=fleet.notices, deciding=deciding)
    strategy = RolloutStrategy(waves=parse_wave_sizes("100%"))
    request = RolloutRequest(
        deployment_id=DeploymentId(LINE_3), model_id=ModelId(SOLAR), target_version=2, strategy=strategy, actor=ANNA
    )
    rollout = await rollouts.create(request)
    await rollouts.pause(rollout.id, actor=ANNA)
    await rollouts.abort(rollout.id, actor=ANNA)
    assert announced == [[rollout.id]] * 3
