"""Who is released, prepares and is taken back in one round."""

from dataclasses import replace
from typing import Any

import pytest

from controlplane.domain import rollout_commands as commands
from controlplane.domain.admission import HoldReason, TargetView, admit_targets, view_target
from controlplane.domain.gate import GateOutcome
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import AgentRecord, ObservedState, SlotState
from controlplane.domain.progress import Install, Sight
from controlplane.domain.rollout import (
    MaintenanceWindow,
    Release,
    Rollout,
    RolloutState,
    WaveState,
    exposed_agents,
    open_wave,
)
from controlplane.domain.rollout_step import carry
from tests.domain.rounds import (
    AGENTS,
    ANNA,
    NOTHING,
    judge,
    make_fresh,
    make_started,
    make_strategy,
    make_view,
    make_views,
)
from tests.support.factories import NOW, after_seconds, make_agent, make_observation, make_observed_slot

SWAP = (MaintenanceWindow(selector="", cron="0 2 * * *", duration_seconds=60.0, time_zone="UTC"),)


def make_admitted(**fields: Any) -> Rollout:
    """Its one wave was admitted at NOW; nobody is released yet."""
    rollout = make_fresh(make_strategy(waves=1, **fields))
    return replace(rollout, waves=(replace(rollout.waves[0], state=WaveState.ADMITTED, admit_time=NOW),))


def reasons(rollout: Rollout, views: dict[AgentId, TargetView], seconds: float = 1.0) -> set[HoldReason]:
    found = admit_targets(rollout, views, after_seconds(seconds), artifact_bytes=1000)
    assert set(found.release) | found.holds.keys() == set(views)
    assert all(hold.message for hold in found.holds.values())
    return {hold.reason for hold in found.holds.values()}


def test_everybody_in_reach_is_released_where_nothing_is_asked_for() -> None:
    found = admit_targets(make_admitted(), make_views(), after_seconds(1))
    assert (found.release, found.prefetch, found.withdraw, dict(found.holds)) == (AGENTS, (), (), {})


def test_each_reason_to_wait_is_told() -> None:
    assert reasons(make_admitted(), make_views(in_reach=False)) == {HoldReason.OUT_OF_REACH}
    assert reasons(make_admitted(prefetch=True), make_views()) == {HoldReason.WAITS_FOR_PREFETCH}
    assert reasons(make_admitted(windows=SWAP), make_views(prefetched=True, swap_open=False)) == {
        HoldReason.WAITS_FOR_WINDOW
    }
    assert reasons(make_admitted(max_unavailable_per_line=2), make_views()) == {HoldReason.LINE_BUSY}
    assert reasons(make_admitted(agents_per_minute=1), make_views()) == {HoldReason.PACED}
    assert reasons(make_admitted(bytes_per_second_per_site=10), make_views()) == {HoldReason.SITE_BUSY}
    paused = commands.pause(make_admitted(), NOW, actor=ANNA).rollout
    assert reasons(paused, make_views()) == {HoldReason.ROLLOUT_HELD}


def test_an_agent_without_a_line_waits_for_nobody() -> None:
    found = admit_targets(make_admitted(max_unavailable_per_line=1), make_views(line=""), after_seconds(1))
    assert found.release == AGENTS


def test_lines_of_two_sites_with_one_name_are_two_lines() -> None:
    views = {agent: make_view(agent, site=site) for agent, site in zip(AGENTS, "aaabbb", strict=True)}
    found = admit_targets(make_admitted(max_unavailable_per_line=1), views, after_seconds(1))
    assert found.release == (AGENTS[0], AGENTS[3])


def test_an_agent_that_was_away_too_long_holds_up_neither_the_gate_nor_its_line() -> None:
    rollout = make_admitted(offline_wait_seconds=60.0, max_unavailable_per_line=1)
    views = make_views() | {AGENTS[0]: make_view(AGENTS[0], in_reach=False, silent_seconds=1000.0)}
    assert admit_targets(rollout, views, after_seconds(30)).holds[AGENTS[0]].blocks
    assert not admit_targets(rollout, views, after_seconds(60)).holds[AGENTS[0]].blocks
    released = replace(rollout.waves[0], releases=(Release(AGENTS[0], NOW),))
    gone = replace(rollout, waves=(released,))
    silent = replace(views[AGENTS[0]], install=Install.SILENT)
    assert admit_targets(gone, views | {AGENTS[0]: silent}, after_seconds(60)).release == (AGENTS[1],)
    brief = replace(silent, silent_seconds=59.0)
    assert admit_targets(gone, views | {AGENTS[0]: brief}, after_seconds(60)).release == ()


@pytest.mark.parametrize(
    ("told", "view", "released"),
    [
        (None, {}, False),
        (10.0, {}, False),
        (10.0, {"prefetched": True}, True),
        (10.0, {"prefetch_failed": True}, True),
        (0.0, {}, True),
    ],
)
def test_an_agent_is_released_once_it_is_prepared_has_failed_to_or_has_taken_too_long(
    told: float | None, view: dict[str, bool], released: bool
) -> None:
    rollout = make_admitted(prefetch=True, install_seconds_max=100.0)
    if told is not None:
        rollout = replace(rollout, prefetches=(Release(AGENTS[0], after_seconds(told)),))
    found = admit_targets(rollout, {AGENTS[0]: make_view(AGENTS[0], **view)}, after_seconds(100))
    assert found.release == ((AGENTS[0],) if released else ())


@pytest.mark.parametrize(
    ("view", "returns"),
    [
        ({}, True),
        ({"install": Install.SILENT, "in_reach": False}, True),
        ({"took_up": True}, False),
        ({"install": Install.INSTALLED}, False),
        ({"install": Install.FAILED}, False),
        ({"swap_open": True}, False),
    ],
)
def test_when_its_window_closes_an_agent_that_has_not_taken_it_up_is_taken_back(
    view: dict[str, object], returns: bool
) -> None:
    rollout = make_admitted(windows=SWAP)
    rollout = replace(rollout, waves=(replace(rollout.waves[0], releases=(Release(AGENTS[0], NOW),)),))
    seen = make_view(AGENTS[0], **({"swap_open": False} | view))
    for one in (rollout, commands.pause(rollout, NOW, actor=ANNA).rollout):
        assert admit_targets(one, {AGENTS[0]: seen}, after_seconds(1)).withdraw == ((AGENTS[0],) if returns else ())


def test_an_agent_that_serves_the_version_already_waits_for_no_window_and_no_line() -> None:
    rollout = make_admitted(windows=SWAP, max_unavailable_per_line=1)
    views = make_views(swap_open=False, install=Install.INSTALLED)
    assert admit_targets(rollout, views, after_seconds(1)).release == AGENTS


@pytest.mark.parametrize("state", sorted(frozenset(RolloutState) - {RolloutState.RUNNING}))
def test_nobody_is_released_or_prepares_unless_it_runs(state: RolloutState) -> None:
    rollout = replace(make_admitted(prefetch=True), state=state)
    found = admit_targets(rollout, make_views(prefetched=True), after_seconds(1))
    assert (found.release, found.prefetch) == ((), ())


def test_what_admission_looks_at_is_what_the_agent_said_last() -> None:
    rollout = make_started()
    slot = make_observed_slot(serving_version=1, target_version=1, prefetched_version=2)
    observed = ObservedState(generation=1, slots=(slot,), boot_count=1)
    agent = make_agent(id="st-1", labels={"site": "suzhou", "line": "3"})
    sight = Sight(
        targets={}, offer=1, now=after_seconds(40), silent_seconds_max=15.0, listening_since=after_seconds(10)
    )

    def see(observed: ObservedState, generation: int) -> TargetView:
        observation = make_observation(observed=observed, receive_time=NOW)
        record = AgentRecord(agent=agent, observation=observation, desired_generation=generation)
        return view_target(record, rollout, sight)

    seen = see(observed, 1)
    assert (seen.place, seen.in_reach, seen.silent_seconds) == (("suzhou", "3", ""), False, 30.0)
    assert (seen.prefetched, seen.prefetch_failed, seen.took_up) == (True, False, True)
    assert not see(observed, 2).took_up
    asked = replace(slot, target_version=2, offer=1, state=SlotState.PREPARING, prefetched_version=0)
    assert see(replace(observed, slots=(asked,)), 2).took_up
    assert not see(replace(observed, slots=(replace(asked, offer=0),)), 2).took_up
    broken = replace(slot, prefetched_version=0, prefetch_failure="no space")
    assert see(replace(observed, slots=(broken,)), 1).prefetch_failed
    assert not see(replace(observed, slots=(broken,)), 2).prefetch_failed


@pytest.mark.parametrize("pace", [1, 2, 3, 5])
def test_a_tick_each_second_releases_no_more_in_any_minute_than_the_pace(pace: int) -> None:
    rollout = make_fresh(make_strategy(waves=1, agents_per_minute=pace))
    given: list[int] = []
    for seconds in range(400):
        verdict = judge(GateOutcome.PENDING) if open_wave(rollout) is not None else None
        after = carry(rollout, NOTHING, verdict, make_views(), after_seconds(seconds)).rollout
        given += [seconds] * len(exposed_agents(after) - exposed_agents(rollout))
        rollout = after
    assert len(given) == len(AGENTS)
    assert all(later - earlier >= 60 for earlier, later in zip(given, given[pace:], strict=False))
    assert given[-1] <= 60 * len(AGENTS) / pace
