"""Jobs of the control process: what happens by itself, each one use case called at an interval.

Truth stays in the tables: a job remembers nothing, so a tick that is missed, late or repeated changes nothing
but the time.
"""

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from controlplane import limits
from controlplane.app.convergence import Convergence
from controlplane.app.ports import Clock
from controlplane.app.rollouts import Rollouts


def start_jobs(*, rollouts: Rollouts, convergence: Convergence, clock: Clock) -> AsyncIOScheduler:
    """Start the jobs on the running event loop and return their scheduler; end them with `shutdown(wait=False)`.

    A job never overlaps itself, and ticks that fell due meanwhile are made up by one.
    """
    scheduler = AsyncIOScheduler(
        jobstores={"default": MemoryJobStore()},
        executors={"default": AsyncIOExecutor()},
        job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
        timezone="UTC",
    )

    async def tick_rollouts() -> None:
        await rollouts.tick(clock.now())

    async def run_convergence() -> None:
        await convergence.run()

    scheduler.add_job(tick_rollouts, "interval", seconds=limits.ROLLOUT_TICK_SECONDS, id="rollouts")
    scheduler.add_job(run_convergence, "interval", seconds=limits.CONVERGENCE_TICK_SECONDS, id="convergence")
    scheduler.start()
    return scheduler
