"""The scheduler calls the use cases while this controller leads, and remembers nothing."""

import asyncio
from dataclasses import replace

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from controlplane import limits
from controlplane.app.leadership import FencedStore, Leadership
from controlplane.domain.rollout import RolloutState
from controlplane.jobs import after, rested, start_jobs
from tests.app.fleet import Fleet


def make_leadership(fleet: Fleet) -> Leadership:
    return Leadership(store=fleet.store, clock=fleet.clock, ids=fleet.ids, monotonic=lambda: 0.0, holder="a")


def start(fleet: Fleet, leadership: Leadership) -> AsyncIOScheduler:
    """The jobs over use cases that write behind the fence, as they are composed."""
    fenced = replace(fleet, store=FencedStore(fleet.store, leadership))
    return start_jobs(
        leadership=leadership,
        rollouts=fenced.ticks,
        convergence=fenced.convergence,
        clock=fleet.clock,
        monotonic=lambda: 0.0,
    )


async def test_each_job_is_one_use_case_at_its_interval_and_never_overlaps_itself() -> None:
    fleet = Fleet()
    scheduler = start(fleet, make_leadership(fleet))
    try:
        jobs = {job.id: job for job in scheduler.get_jobs()}
        assert {job.max_instances for job in jobs.values()} == {1}
        assert {job.coalesce for job in jobs.values()} == {True}
        assert {job.misfire_grace_time for job in jobs.values()} == {None}
        intervals = {name: job.trigger.interval.total_seconds() for name, job in jobs.items()}
        assert intervals == {
            "rollouts": limits.ROLLOUT_TICK_SECONDS,
            "convergence": limits.CONVERGENCE_TICK_SECONDS,
        }
    finally:
        scheduler.shutdown(wait=False)


async def test_the_jobs_carry_rollouts_and_convergence() -> None:
    fleet = Fleet()
    await fleet.publish(1, 2)
    await fleet.enrol("st-1")
    await fleet.deploy()
    rollout = await fleet.roll_out(waves="100%")
    await fleet.sync("st-1")
    await fleet.enrol("st-2")
    leadership = make_leadership(fleet)
    await leadership.renew_or_wait()
    scheduler = start(fleet, leadership)
    try:
        jobs = {job.id: job for job in scheduler.get_jobs()}
        await jobs["convergence"].func()
        assert await fleet.desired("st-2") == {"solar": 1}
        await fleet.sync("st-1", "st-2")
        await jobs["rollouts"].func()
        assert await fleet.desired("st-2") == {"solar": 2}
        await fleet.sync("st-1", "st-2")
        await jobs["rollouts"].func()
        assert (await fleet.rollouts.get(rollout.id)).state is RolloutState.SUCCEEDED
    finally:
        scheduler.shutdown(wait=False)


async def test_a_controller_that_does_not_lead_does_nothing() -> None:
    fleet = Fleet()
    await fleet.publish(1)
    await fleet.enrol("st-1")
    await fleet.deploy()
    await fleet.enrol("late")
    scheduler = start(fleet, make_leadership(fleet))
    try:
        for job in scheduler.get_jobs():
            await job.func()
        assert await fleet.desired("late") == {}
    finally:
        scheduler.shutdown(wait=False)


async def test_a_job_that_took_long_rests_accordingly() -> None:
    now, runs = 0.0, list[float]()

    async def work() -> None:
        nonlocal now
        runs.append(now)
        now += 3.0
        if len(runs) == 2:
            raise OSError("the disk is full")

    job = rested(work, lambda: now)
    rest = 3.0 * limits.JOB_RESTS
    await job()
    now += rest - 0.1
    await job()
    assert runs == [0.0]
    now += 0.2
    with pytest.raises(OSError, match="full"):
        await job()
    await job()
    assert len(runs) == 2
    now += rest
    await job()
    assert len(runs) == 3


async def test_a_job_waits_for_its_turn() -> None:
    turn, runs = asyncio.Event(), list[str]()

    async def work() -> str:
        runs.append("run")
        return "done"

    job = asyncio.ensure_future(after(turn.wait, work)())
    await asyncio.sleep(0)
    assert runs == []
    turn.set()
    assert await job == "done"
    assert runs == ["run"]
