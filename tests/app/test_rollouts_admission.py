"""Who is given the version when: reach, lines, pace, windows and preparation, by ticks on stored state."""

from datetime import timedelta

import pytest

from controlplane.app.rollouts import WhenActive
from controlplane.domain.rollout import (
    MaintenanceWindow,
    Rollout,
    RolloutState,
    ShadowPolicy,
    WaveState,
    WindowScope,
)
from tests.app.fleet import ANNA, SOLAR, Fleet

STATIONS = tuple(f"st-{number}" for number in range(1, 7))
NIGHT = MaintenanceWindow(selector="", cron="0 22 * * *", duration_seconds=3600.0, time_zone="UTC")
"""The clock of these tests starts at noon."""


async def make_fleet() -> Fleet:
    fleet = Fleet()
    await fleet.publish(1, 2, 3)
    await fleet.enrol(*STATIONS[:3], line="3", half="a")
    await fleet.enrol(*STATIONS[3:], line="4", half="b")
    await fleet.deploy(selector="line in (3,4)")
    await fleet.sync(*STATIONS)
    return fleet


async def given(fleet: Fleet, version: int = 2) -> list[str]:
    return [station for station in STATIONS if (await fleet.desired(station)).get(SOLAR) == version]


async def look(fleet: Fleet, rollout: Rollout) -> Rollout:
    return await fleet.rollouts.get(rollout.id)


async def test_redundant_stations_of_a_line_are_never_swapped_together() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(waves="100%", strategy={"max_unavailable_per_line": 1})
    assert await given(fleet) == ["st-1", "st-4"]
    await fleet.tick()
    assert await given(fleet) == ["st-1", "st-4"]
    await fleet.sync("st-1")
    await fleet.tick()
    assert await given(fleet) == ["st-1", "st-2", "st-4"]
    await fleet.tick()
    assert await given(fleet) == ["st-1", "st-2", "st-4"]
    for _ in range(5):
        await fleet.sync(*STATIONS)
        await fleet.tick()
    assert (await look(fleet, rollout)).state is RolloutState.SUCCEEDED


async def test_agents_are_released_no_faster_than_the_pace() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(waves="100%", strategy={"agents_per_minute": 3})
    assert len(await given(fleet)) == 1
    for _ in range(65):
        await fleet.sync(*STATIONS)
        await fleet.tick()
    assert len(await given(fleet)) == 4
    assert (await look(fleet, rollout)).state is RolloutState.RUNNING


async def test_an_agent_out_of_reach_is_given_nothing_and_catches_up_later() -> None:
    fleet = await make_fleet()
    fleet.clock.advance(100)
    await fleet.sync(*STATIONS[:5])
    rollout = await fleet.roll_out(waves="100%", strategy={"offline_wait_seconds": 60.0})
    assert await given(fleet) == list(STATIONS[:5])
    await fleet.sync(*STATIONS[:5])
    await fleet.tick()
    waiting = await look(fleet, rollout)
    assert (waiting.state, waiting.reason) == (RolloutState.RUNNING, "OUT_OF_REACH")
    for _ in range(6):
        fleet.clock.advance(9)
        await fleet.sync(*STATIONS[:5])
        await fleet.tick()
    assert (await look(fleet, rollout)).state is RolloutState.SUCCEEDED
    assert (await look(fleet, rollout)).waves[0].releases[-1].agent_id == "st-5"
    await fleet.sync("st-6")
    assert await given(fleet) == list(STATIONS)


async def test_a_swap_waits_for_its_window_and_the_version_is_prepared_long_before() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(waves="100%", strategy={"windows": (NIGHT,)})
    await fleet.sync(*STATIONS)
    await fleet.tick()
    seen = await look(fleet, rollout)
    assert await given(fleet) == []
    assert {told.agent_id for told in seen.prefetches} == set(STATIONS)
    assert seen.reason == "WAITS_FOR_WINDOW"
    assert "waits for its swap window to open" in seen.message
    fleet.clock.advance(timedelta(hours=10).total_seconds())
    await fleet.sync(*STATIONS)
    await fleet.tick()
    assert await given(fleet) == list(STATIONS)


async def test_whoever_has_not_taken_the_version_up_when_the_window_closes_is_taken_back() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(waves="100%", strategy={"windows": (NIGHT,)})
    await fleet.sync(*STATIONS)
    fleet.clock.advance(timedelta(hours=10, minutes=59, seconds=50).total_seconds())
    await fleet.sync(*STATIONS)
    await fleet.tick()
    assert await given(fleet) == list(STATIONS)
    await fleet.sync("st-1", "st-2")
    fleet.clock.advance(10)
    await fleet.rollouts.pause(rollout.id, actor=ANNA)
    await fleet.tick()
    assert await given(fleet) == ["st-1", "st-2"]
    assert {release.agent_id for release in (await look(fleet, rollout)).waves[0].releases} == {"st-1", "st-2"}


async def test_a_wave_waits_for_its_start_window() -> None:
    fleet = await make_fleet()
    window = MaintenanceWindow(
        selector="half=b", cron="0 22 * * *", duration_seconds=3600.0, time_zone="UTC", scope=WindowScope.START
    )
    rollout = await fleet.roll_out(waves="100%", strategy={"windows": (window,)})
    assert (rollout.reason, await given(fleet)) == ("WAITS_FOR_WINDOW", [])
    assert "it opens at 2026-03-01T22:00:00Z" in rollout.message
    fleet.clock.advance(timedelta(hours=10).total_seconds())
    await fleet.sync(*STATIONS)
    await fleet.tick()
    assert await given(fleet) == list(STATIONS)


async def test_bytes_of_one_site_are_fetched_one_after_the_other() -> None:
    fleet = await make_fleet()
    async with fleet.store.read() as work:
        size = (await work.models.get_version(SOLAR, 2)).artifact.size_bytes
    rollout = await fleet.roll_out(
        waves="100%", strategy={"prefetch": True, "bytes_per_second_per_site": max(1, size // 10)}
    )
    told = []
    for _ in range(25):
        told.append(len((await look(fleet, rollout)).prefetches))
        await fleet.sync(*STATIONS)
        await fleet.tick()
    assert told[:10] == [1] * 10
    assert 2 <= told[-1] <= 3


async def test_the_canary_holds_an_agent_of_every_device_class() -> None:
    fleet = await make_fleet()
    await fleet.report_devices("st-5", "CPU", "GPU.0")
    await fleet.report_devices("st-6", "NPU")
    rollout = await fleet.roll_out(waves="1,100%")
    canary = set(rollout.waves[0].agents)
    assert {"st-5", "st-6"} < canary
    assert len(canary) == 3
    plain = await fleet.roll_out(
        waves="1,100%", when_active=WhenActive.SUPERSEDE, strategy={"canary_per_device_class": False}
    )
    assert len(plain.waves[0].agents) == 1


@pytest.mark.parametrize(("agreed", "state"), [(2000, RolloutState.RUNNING), (1000, RolloutState.ROLLING_BACK)])
async def test_a_candidate_answers_nothing_before_it_has_agreed_in_shadow(agreed: int, state: RolloutState) -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out(waves="1,100%", strategy={"shadow": ShadowPolicy(min_comparisons=1000)})
    (canary,) = rollout.waves[0].agents
    assert (rollout.reason, rollout.waves[0].state, await given(fleet)) == ("SHADOWING", WaveState.SHADOWING, [])
    await fleet.sync(*STATIONS)
    await fleet.tick()
    assert ((await look(fleet, rollout)).reason, await given(fleet)) == ("SHADOWING", [])
    await fleet.compare(canary, serving_version=1, candidate_version=2, compared=2000, agreed=agreed)
    await fleet.tick()
    judged = await look(fleet, rollout)
    assert judged.state is state
    assert await given(fleet) == ([canary] if state is RolloutState.RUNNING else [])
