"""Jobs of the control process: what happens by itself, each one use case called at an interval while this controller
leads.

Truth stays in the tables: a job remembers nothing, so a tick that is missed, late or repeated changes nothing
but the time.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from controlplane import limits
from controlplane.app.convergence import Convergence
from controlplane.app.leadership import Leadership
from controlplane.app.ports import Clock
from controlplane.app.rollout_ticks import RolloutTicks

Work = Callable[[], Awaitable[object]]


async def _at_once() -> None:
    """Wait for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One use case, called at an interval."""

    name: str
    work: Work
    seconds: float


def start_jobs(
    *,
    leadership: Leadership,
    rollouts: RolloutTicks,
    convergence: Convergence,
    clock: Clock,
    more: Iterable[Job] = (),
    timed: Callable[[str, Work], Work] = lambda _, work: work,
    turn: Work = _at_once,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIOScheduler:
    """Start the jobs on the running event loop and return their scheduler; end them with `shutdown(wait=False)`.
    `rollouts`, `convergence` and the work of `more` write behind the fence of `leadership`;
    `timed` gives back a job's work with whatever measures it around it; each run first waits for `turn`.

    A job never overlaps itself, ticks that fell due meanwhile are made up by one, and one that took long rests
    accordingly (JOB_RESTS).
    """
    scheduler = AsyncIOScheduler(
        jobstores={"default": MemoryJobStore()},
        executors={"default": AsyncIOExecutor()},
        job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
        timezone="UTC",
    )

    def add(name: str, work: Work, *, seconds: float) -> None:
        job = after(turn, partial(leadership.while_leading, rested(timed(name, work), monotonic)))
        scheduler.add_job(job, "interval", seconds=seconds, id=name, name=name)

    add("rollouts", lambda: rollouts.tick(clock.now()), seconds=limits.ROLLOUT_TICK_SECONDS)
    add("convergence", lambda: convergence.round(clock.now()), seconds=limits.CONVERGENCE_TICK_SECONDS)
    for job in more:
        add(job.name, job.work, seconds=job.seconds)
    scheduler.start()
    return scheduler


def after(turn: Work, work: Work) -> Work:
    """The work, once `turn` has come."""

    async def run() -> object:
        await turn()
        return await work()

    return run


def rested(work: Work, monotonic: Callable[[], float]) -> Work:
    """The work, passed over until JOB_RESTS times as long as it last took have gone by since its end."""
    ready_seconds = 0.0

    async def run() -> object:
        nonlocal ready_seconds
        begin = monotonic()
        if begin < ready_seconds:
            return None
        try:
            return await work()
        finally:
            end = monotonic()
            ready_seconds = end + limits.JOB_RESTS * (end - begin)

    return run
