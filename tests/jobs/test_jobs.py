"""The scheduler calls the use cases, and remembers nothing."""

from controlplane import limits
from controlplane.domain.rollout import RolloutState
from controlplane.jobs import start_jobs
from tests.app.fleet import Fleet


async def test_each_job_is_one_use_case_at_its_interval_and_never_overlaps_itself() -> None:
    fleet = Fleet()
    scheduler = start_jobs(rollouts=fleet.rollouts, convergence=fleet.convergence, clock=fleet.clock)
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
    scheduler = start_jobs(rollouts=fleet.rollouts, convergence=fleet.convergence, clock=fleet.clock)
    try:
        jobs = {job.id: job for job in scheduler.get_jobs()}
        await jobs["convergence"].func()
        assert await fleet.desired("st-2") == {"solar": 1}
        await jobs["rollouts"].func()
        assert (await fleet.rollouts.get(rollout.id)).reason == "INSTALLING"
        await fleet.sync("st-2")
        await jobs["rollouts"].func()
        assert (await fleet.rollouts.get(rollout.id)).state is RolloutState.SUCCEEDED
    finally:
        scheduler.shutdown(wait=False)
