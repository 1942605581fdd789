"""Rehearsals: plays in a process of their own, refusals, and the same report from the same seeds."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from controlplane import limits
from controlplane.app.planning import Planning
from controlplane.app.rehearsals import Rehearsals, Rehearsed, set_stage
from controlplane.domain.errors import DomainError, LimitExceededError, Reason
from controlplane.rehearsal.stage import Assumptions
from tests.app.fleet import Fleet
from tests.app.test_planning import make_fleet, make_request


def rehearsals(fleet: Fleet) -> Rehearsals:
    return Rehearsals(planning=Planning(store=fleet.store, clock=fleet.clock))


async def run(fleet: Fleet, assumptions: Assumptions | None = None, **overrides: Any) -> list[Rehearsed]:
    request = overrides.pop("request", make_request())
    options = {"plays": 5, "first_seed": 1, **overrides}
    stream = rehearsals(fleet).rehearse(request, assumptions or Assumptions(), **options)
    async with aclosing(stream):
        return [part async for part in stream]


async def test_progress_comes_play_by_play_and_the_report_at_last() -> None:
    parts = await run(await make_fleet())
    assert [part.plays_done for part in parts] == [1, 2, 3, 4, 5, 5]
    assert all(part.report is None for part in parts[:-1])
    report = parts[-1].report
    assert report is not None
    assert report.outcomes == {"SUCCEEDED": 5}
    assert report.exposed_agents.min == report.exposed_agents.max == 7


async def test_the_same_seeds_give_the_same_report_and_others_another() -> None:
    fleet = await make_fleet()
    rough = Assumptions(message_loss_per_mille=300, offline_per_mille=200, install_failures_per_mille=100)
    one, same, other = [(await run(fleet, rough, first_seed=seed))[-1].report for seed in (1, 1, 100)]
    assert one == same
    assert one != other


async def test_a_rehearsal_changes_nothing() -> None:
    fleet = await make_fleet()
    before = fleet.store._tables  # type: ignore[attr-defined]
    await run(fleet, plays=1)
    assert fleet.store._tables is before  # type: ignore[attr-defined]


async def test_a_caller_who_leaves_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[asyncio.subprocess.Process] = []
    real = asyncio.create_subprocess_exec

    async def remember(*args: Any, **options: Any) -> asyncio.subprocess.Process:
        started.append(await real(*args, **options))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", remember)
    fleet = await make_fleet()
    stream = rehearsals(fleet).rehearse(make_request(), Assumptions(), plays=1000, first_seed=0)
    async with aclosing(stream):
        await anext(stream)
    assert [process.returncode for process in started] == [-9]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"message_loss_per_mille": 1001}, "assumptions.message_loss_per_mille"),
        ({"offline_per_mille": -1}, "assumptions.offline_per_mille"),
        ({"outage_seconds": 0.0}, "assumptions.outage"),
        ({"restarts_per_day": float("nan")}, "assumptions.restarts_per_day"),
        ({"install_failures_per_mille": 1001}, "assumptions.install_failures_per_mille"),
        ({"errors_per_mille": -5}, "assumptions.errors_per_mille"),
        ({"inferences_per_second": float("inf")}, "assumptions.inferences_per_second"),
        ({"fetch_bytes_per_second": 0}, "assumptions.fetch_bytes_per_second"),
    ],
)
async def test_assumptions_out_of_bounds_are_refused_by_name(change: dict[str, Any], field: str) -> None:
    with pytest.raises(DomainError) as refused:
        await run(await make_fleet(), Assumptions(**change))
    assert (refused.value.reason, refused.value.field) == (Reason.FIELD_INVALID, field)
    assert refused.value.remedy


@pytest.mark.parametrize("plays", [-1, limits.REHEARSAL_PLAYS_MAX + 1])
async def test_too_many_plays_are_refused(plays: int) -> None:
    with pytest.raises(DomainError) as refused:
        await run(await make_fleet(), plays=plays)
    assert refused.value.field == "plays"


async def test_what_a_start_is_refused_for_a_rehearsal_is_too() -> None:
    with pytest.raises(DomainError) as refused:
        await run(await make_fleet(), request=make_request(9))
    assert refused.value.field == "rollout.target_version"


async def test_too_many_agents_for_so_many_plays_are_refused_with_what_is_possible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "REHEARSAL_BOXES_MAX", 20)
    with pytest.raises(LimitExceededError) as refused:
        await run(await make_fleet(), plays=3)
    assert (refused.value.field, refused.value.remedy) == ("plays", "ask for at most 2 plays")


async def test_a_stage_is_cut_off_some_time_after_the_deadline() -> None:
    fleet = await make_fleet()
    planning = Planning(store=fleet.store, clock=fleet.clock)
    inventory = await planning.read(make_request(deadline_seconds=3600.0))
    assert set_stage(inventory, silent_seconds_max=15.0).horizon_seconds == 7200.0
