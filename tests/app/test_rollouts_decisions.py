"""Rollouts that meet, approvals, deadlines, yanks, kept versions, and what is written down of it all."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from controlplane import limits
from controlplane.app.audit import LogFollower
from controlplane.app.ports import AuditFilter
from controlplane.app.rollouts import RolloutChange, WhenActive
from controlplane.app.strategies import check_strategy
from controlplane.domain.audit import AuditEvent, Happening
from controlplane.domain.catalog import Yank
from controlplane.domain.errors import DomainError, PreconditionError, Reason, StaleWriteError
from controlplane.domain.gate import FailureAction, GatePolicy
from controlplane.domain.ids import AgentId
from controlplane.domain.pin import Pin
from controlplane.domain.rollout import (
    ApprovalScope,
    MaintenanceWindow,
    Rollout,
    RolloutState,
    RolloutStrategy,
    ShadowPolicy,
    WaveState,
)
from controlplane.domain.wave import parse_wave_sizes
from tests.app.fleet import ANNA, LINE_3, SOLAR, Fleet

BERND = "operators/bernd"
STATIONS = ("st-1", "st-2", "st-3")


async def make_fleet() -> Fleet:
    fleet = Fleet()
    await fleet.publish(1, 2, 3)
    await fleet.enrol(*STATIONS)
    await fleet.deploy()
    await fleet.sync(*STATIONS)
    return fleet


async def versions(fleet: Fleet) -> list[int | None]:
    return [(await fleet.desired(station)).get(SOLAR) for station in STATIONS]


async def look(fleet: Fleet, rollout: Rollout) -> Rollout:
    return await fleet.rollouts.get(rollout.id)


async def yank(fleet: Fleet, number: int) -> None:
    async with fleet.store.write() as work:
        await work.models.set_yank(SOLAR, number, Yank(time=fleet.clock.now(), reason="bad", actor=ANNA))


async def pass_on(fleet: Fleet, ticks: int = 3) -> None:
    for _ in range(ticks):
        await fleet.sync(*STATIONS)
        await fleet.tick()


# --- rollouts that meet ---


async def test_a_new_rollout_queues_behind_one_that_runs_and_starts_when_that_has_ended() -> None:
    fleet = await make_fleet()
    first = await fleet.roll_out(2)
    second = await fleet.roll_out(3)
    assert (second.state, second.related_id, second.waves) == (RolloutState.QUEUED, first.id, ())
    assert await versions(fleet) == [2 if station in first.waves[0].agents else 1 for station in STATIONS]
    await pass_on(fleet, 2)
    assert (await look(fleet, first)).state is RolloutState.SUCCEEDED
    await fleet.tick()
    started = await look(fleet, second)
    assert (started.state, started.previous_version, started.related_id) == (RolloutState.RUNNING, 2, None)
    await pass_on(fleet)
    assert (await look(fleet, second)).state is RolloutState.SUCCEEDED
    assert await versions(fleet) == [3, 3, 3]


async def test_a_newer_rollout_takes_the_place_of_a_queued_one() -> None:
    fleet = await make_fleet()
    first, second, third = [await fleet.roll_out(version) for version in (2, 3, 1)]
    superseded = await look(fleet, second)
    assert (superseded.state, superseded.related_id) == (RolloutState.SUPERSEDED, third.id)
    assert (third.state, third.related_id) == (RolloutState.QUEUED, first.id)


async def test_a_paused_one_makes_way_and_its_targets_keep_their_version_until_they_are_moved() -> None:
    fleet = await make_fleet()
    first = await fleet.roll_out(2)
    await fleet.sync(*STATIONS)
    await fleet.rollouts.pause(first.id, actor=ANNA)
    second = await fleet.roll_out(3, strategy={"approval": ApprovalScope.EVERY_WAVE})
    assert ((await look(fleet, first)).state, second.state) == (RolloutState.SUPERSEDED, RolloutState.RUNNING)
    assert (await versions(fleet)).count(2) == 1
    await fleet.rollouts.abort(second.id, actor=ANNA)
    assert (await versions(fleet)).count(2) == 1


async def test_targets_of_one_whose_gate_failed_return_when_another_takes_its_place() -> None:
    fleet = await make_fleet()
    first = await fleet.roll_out(2, on_failure=FailureAction.PAUSE)
    await fleet.sync(*STATIONS, failing=[2])
    await fleet.tick()
    assert (await look(fleet, first)).state is RolloutState.PAUSED
    await fleet.roll_out(3, strategy={"approval": ApprovalScope.EVERY_WAVE})
    assert await versions(fleet) == [1, 1, 1]


async def test_a_running_one_is_superseded_where_that_is_asked_for() -> None:
    fleet = await make_fleet()
    first = await fleet.roll_out(2)
    second = await fleet.roll_out(3, waves="100%", when_active=WhenActive.SUPERSEDE)
    assert ((await look(fleet, first)).state, second.state) == (RolloutState.SUPERSEDED, RolloutState.RUNNING)
    assert await versions(fleet) == [3, 3, 3]
    assert fleet.notices.rollouts[-2:] == [first.id, second.id]


async def test_a_stuck_rollout_never_blocks_the_next() -> None:
    fleet = await make_fleet()
    first = await fleet.roll_out(2, waves="100%")
    second = await fleet.roll_out(3)
    await fleet.rollouts.abort(first.id, actor=ANNA)
    await fleet.tick()
    assert (await look(fleet, second)).state is RolloutState.RUNNING


async def test_a_queued_one_that_nobody_is_left_for_ends() -> None:
    fleet = await make_fleet()
    first = await fleet.roll_out(2)
    second = await fleet.roll_out(3)
    for station in STATIONS:
        await fleet.revoke(station)
    await fleet.rollouts.abort(first.id, actor=ANNA)
    await fleet.tick()
    ended = await look(fleet, second)
    assert (ended.state, ended.reason) == (RolloutState.ABORTED, "SELECTION_EMPTY")
    assert ended.end_time == fleet.clock.now()


async def test_of_many_that_start_at_once_one_runs_and_one_waits() -> None:
    fleet = await make_fleet()
    async with asyncio.TaskGroup() as tasks:
        for version in (1, 2, 3, 2):
            tasks.create_task(fleet.roll_out(version))
    states = sorted(rollout.state for rollout in (await fleet.rollouts.list()).items)
    assert states == [RolloutState.QUEUED, RolloutState.RUNNING, RolloutState.SUPERSEDED, RolloutState.SUPERSEDED]


# --- kept versions ---


async def test_abort_keep_leaves_targets_on_the_version_until_a_later_rollout_succeeds() -> None:
    fleet = await make_fleet()
    first = await fleet.roll_out(2)
    ended = await fleet.rollouts.abort(first.id, actor=ANNA, keep=True)
    assert "1 targets keep version 2" in ended.message
    await fleet.convergence.run()
    assert (await versions(fleet)).count(2) == 1
    assert await fleet.version() == 1
    await fleet.sync(*STATIONS)
    await fleet.roll_out(3, waves="100%")
    await pass_on(fleet)
    assert await versions(fleet) == [3, 3, 3]
    async with fleet.store.read() as work:
        assert dict((await work.deployments.get(LINE_3)).kept_versions) == {}


async def test_a_rollback_returns_each_target_to_what_it_had() -> None:
    fleet = await make_fleet()
    first = await fleet.roll_out(2)
    await fleet.rollouts.abort(first.id, actor=ANNA, keep=True)
    before = await versions(fleet)
    await fleet.sync(*STATIONS)
    second = await fleet.roll_out(3, waves="100%")
    await fleet.sync(*STATIONS)
    await fleet.rollouts.rollback(second.id, actor=ANNA)
    assert await versions(fleet) == before
    await pass_on(fleet, 1)
    assert (await look(fleet, second)).state is RolloutState.ROLLED_BACK


# --- approvals ---


async def test_a_wave_waits_for_the_approval_of_a_second_person() -> None:
    fleet = await make_fleet()
    asks = {"approval": ApprovalScope.AFTER_CANARY, "second_person": True}
    rollout = await fleet.roll_out(2, strategy=asks)
    with pytest.raises(PreconditionError) as early:
        await fleet.rollouts.approve(rollout.id, actor=BERND)
    assert early.value.reason is Reason.APPROVAL_NOT_DUE
    await pass_on(fleet, 3)
    waiting = await look(fleet, rollout)
    assert (waiting.state, waiting.reason) == (RolloutState.RUNNING, "WAITS_FOR_APPROVAL")
    assert waiting.waves[1].state is WaveState.PENDING
    for actor, wave, reason in ((ANNA, None, Reason.SECOND_PERSON), (BERND, 0, Reason.APPROVAL_NOT_DUE)):
        with pytest.raises(PreconditionError) as refusal:
            await fleet.rollouts.approve(rollout.id, actor=actor, wave=wave)
        assert (refusal.value.reason, bool(refusal.value.remedy)) == (reason, True)
    with pytest.raises(StaleWriteError):
        await fleet.rollouts.approve(rollout.id, actor=BERND, revision=waiting.revision - 1)
    approved = await fleet.rollouts.approve(rollout.id, actor=BERND, wave=1)
    assert approved.waves[1].approver == BERND
    await pass_on(fleet, 2)
    assert (await look(fleet, rollout)).state is RolloutState.SUCCEEDED


async def test_every_wave_waits_where_that_is_asked_for() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(2, strategy={"approval": ApprovalScope.EVERY_WAVE})
    assert (rollout.reason, await versions(fleet)) == ("WAITS_FOR_APPROVAL", [1, 1, 1])
    await fleet.rollouts.approve(rollout.id, actor=ANNA)
    await fleet.tick()
    assert (await versions(fleet)).count(2) == 1


# --- deadlines, yanks and pins ---


@pytest.mark.parametrize(("action", "state"), [("ROLLBACK", RolloutState.ROLLING_BACK), ("PAUSE", RolloutState.PAUSED)])
async def test_past_its_deadline_a_rollout_does_what_a_failed_gate_does(action: str, state: RolloutState) -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(2, on_failure=FailureAction(action), strategy={"deadline_seconds": 60.0})
    await fleet.tick(59)
    assert (await look(fleet, rollout)).state is RolloutState.RUNNING
    await fleet.tick(1)
    late = await look(fleet, rollout)
    assert (late.state, late.reason) == (state, "DEADLINE_EXCEEDED")
    if state is RolloutState.PAUSED:
        with pytest.raises(PreconditionError) as refusal:
            await fleet.rollouts.resume(rollout.id, actor=ANNA)
        assert "deadline" in refusal.value.message


async def test_a_yanked_version_is_not_started_and_one_on_its_way_returns() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(2)
    queued = await fleet.roll_out(2)
    await yank(fleet, 2)
    with pytest.raises(PreconditionError) as refusal:
        await fleet.roll_out(2)
    assert (refusal.value.reason, refusal.value.field) == (Reason.VERSION_YANKED, "rollout.target_version")
    await fleet.tick()
    back, ended = await look(fleet, rollout), await look(fleet, queued)
    assert (back.state, back.reason) == (RolloutState.ROLLING_BACK, "VERSION_YANKED")
    assert (ended.state, ended.reason) == (RolloutState.ABORTED, "VERSION_YANKED")
    assert await versions(fleet) == [1, 1, 1]


async def test_a_rollback_to_a_yanked_version_says_so() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(2)
    await fleet.sync(*STATIONS)
    await yank(fleet, 1)
    assert "version 1 (yanked" in (await fleet.rollouts.rollback(rollout.id, actor=ANNA)).message
    assert await versions(fleet) == [1, 1, 1]


async def test_pinned_agents_are_left_out_and_join_the_last_wave_when_they_are_unpinned() -> None:
    fleet = await make_fleet()
    pin = Pin(agent_id=AgentId("st-2"), model_id=SOLAR, version=1, reason="", create_time=fleet.clock.now(), actor=ANNA)
    async with fleet.store.write() as work:
        await work.pins.put(pin)
    rollout = await fleet.roll_out(2, waves="100%", strategy={"bake_seconds": 60.0})
    assert rollout.waves[0].agents == ("st-1", "st-3")
    async with fleet.store.write() as work:
        await work.pins.remove(AgentId("st-2"), SOLAR)
    await fleet.tick()
    assert await versions(fleet) == [2, 2, 2]


async def test_an_agent_that_leaves_and_comes_back_is_given_the_version_anew() -> None:
    """It has all the time of an install again: that it did not install while it was pinned is no failure."""
    fleet = await make_fleet()
    strategy = {"bake_seconds": 600.0, "install_seconds_max": 30.0}
    rollout = await fleet.roll_out(2, waves="100%", strategy=strategy)
    pin = Pin(agent_id=AgentId("st-2"), model_id=SOLAR, version=1, reason="", create_time=fleet.clock.now(), actor=ANNA)
    async with fleet.store.write() as work:
        await work.pins.put(pin)
    for _ in range(40):
        await fleet.sync("st-1", "st-2", "st-3")
        await fleet.tick()
    assert [release.agent_id for release in (await look(fleet, rollout)).waves[0].releases] == ["st-1", "st-3"]
    async with fleet.store.write() as work:
        await work.pins.remove(AgentId("st-2"), SOLAR)
    await fleet.tick()
    await fleet.tick()
    assert (await look(fleet, rollout)).state is RolloutState.RUNNING
    assert await versions(fleet) == [2, 2, 2]


# --- what is refused ---

WINDOW = MaintenanceWindow(selector="", cron="0 2 * * *", duration_seconds=60.0, time_zone="UTC")


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"max_unavailable_per_line": -1}, "max_unavailable_per_line"),
        ({"deadline_seconds": float("inf")}, "deadline"),
        ({"install_seconds_max": 0.0}, "install_timeout"),
        ({"offline_wait_seconds": -1.0}, "offline_wait"),
        ({"agents_per_minute": -1}, "pace.agents_per_minute"),
        ({"bytes_per_second_per_site": -1}, "pace.bytes_per_second_per_site"),
        ({"second_person": True}, "approval.scope"),
        ({"windows": (replace(WINDOW, cron="0 2 30 2 *"),)}, "windows[0].cron"),
        ({"windows": (WINDOW, replace(WINDOW, time_zone="Mars"))}, "windows[1].time_zone"),
        ({"shadow": ShadowPolicy(min_comparisons=0)}, "shadow.min_comparisons"),
        ({"shadow": ShadowPolicy(min_comparisons=1, min_agreement_per_mille=1001)}, "shadow.min_agreement_per_mille"),
        ({"gate": GatePolicy(max_latency_ms_p95=float("nan"))}, "gate.max_latency_ms_p95"),
        ({"gate": GatePolicy(confidence_per_mille=1000)}, "gate.confidence_per_mille"),
        ({"gate": GatePolicy(idle_seconds=0.0)}, "gate.idle_timeout"),
        ({"gate": GatePolicy(max_silent_per_mille=1001)}, "gate.max_silent_per_mille"),
    ],
)
async def test_a_strategy_out_of_bounds_is_refused_naming_the_field(overrides: dict[str, Any], field: str) -> None:
    fleet = await make_fleet()
    with pytest.raises(DomainError) as refusal:
        await fleet.roll_out(2, strategy=overrides)
    assert refusal.value.field == f"rollout.strategy.{field}"
    assert refusal.value.remedy
    assert (await fleet.rollouts.list()).items == []


def test_the_default_strategy_is_within_its_bounds() -> None:
    check_strategy(RolloutStrategy(waves=parse_wave_sizes("1,100%"), shadow=ShadowPolicy(min_comparisons=1)))


# --- what is written down ---


async def log_of(fleet: Fleet, rollout: Rollout) -> list[tuple[str, str]]:
    async with fleet.store.read() as work:
        wanted = AuditFilter(resource=f"rollouts/{rollout.id}")
        events = await work.audit.list(wanted, after=None, limit=1000, oldest_first=True)
    return [(event.happening.actor, event.happening.action) for event in events]


async def test_every_decision_is_in_the_log_once_with_who_or_which_rule() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(2, strategy={"approval": ApprovalScope.AFTER_CANARY})
    for _ in range(4):
        await fleet.tick()
    await pass_on(fleet, 3)
    await fleet.rollouts.approve(rollout.id, actor=BERND)
    await pass_on(fleet, 2)
    assert await log_of(fleet, rollout) == [
        (ANNA, "rollout.start"),
        ("rules/gate", "wave.admit"),
        ("rules/admission", "wave.release"),
        ("rules/gate", "rollout.wait"),
        ("rules/gate", "wave.pass"),
        ("rules/approval", "rollout.wait"),
        (BERND, "wave.approve"),
        ("rules/gate", "wave.admit"),
        ("rules/admission", "wave.release"),
        ("rules/gate", "wave.pass"),
        ("rules/gate", "rollout.succeed"),
    ]


async def test_a_refused_command_leaves_nothing_in_the_log() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(2)
    before = await log_of(fleet, rollout)
    with pytest.raises(PreconditionError):
        await fleet.rollouts.resume(rollout.id, actor=ANNA)
    assert await log_of(fleet, rollout) == before


async def test_a_watch_tells_what_was_decided_and_misses_and_repeats_nothing() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(2)
    seen: list[RolloutChange] = []

    async def watch() -> None:
        async with aclosing(fleet.rollouts.watch(rollout.id)) as watched:
            async for change in watched:
                seen.append(change)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        await asyncio.sleep(0)
        await pass_on(fleet, 3)
    told = [(event.happening.actor, event.happening.action) for change in seen for event in change.events]
    assert told == await log_of(fleet, rollout)
    assert seen[-1].rollout.state is RolloutState.SUCCEEDED


async def test_a_follower_of_the_log_tells_late_events_of_another_replica_and_each_once() -> None:
    fleet = await make_fleet()
    follower, told = LogFollower(AuditFilter(resource="rollouts/r1")), list[str]()

    async def write(*ids: str) -> None:
        happening = Happening(actor=ANNA, action="rollout.pause", resource="rollouts/r1", message="paused")
        async with fleet.store.write() as work:
            await work.audit.add(
                [AuditEvent(id=each, create_time=fleet.clock.now(), happening=happening) for each in ids]
            )

    async def look() -> None:
        async with fleet.store.read() as work:
            told.extend(event.id for event in await follower.look(work, fleet.clock.now()))

    await write("b", "d")
    await look()
    await write("c")  # committed after d, by a controller whose clock lags
    await look()
    await look()
    assert told == ["b", "d", "c"]
    fleet.clock.advance(limits.WATCH_LATE_SECONDS + 1)
    await look()
    many = [f"e{number:04}" for number in range(2 * limits.WATCH_EVENTS_MAX + 1)]
    await write(*many)
    for _ in range(4):
        await look()
    assert told == ["b", "d", "c", *many]
    assert not follower.has_more
