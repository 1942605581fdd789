"""Keeps the agent's loops running: an error in one of them must stop neither inference nor the others."""

import random
from collections.abc import Awaitable, Callable

import structlog

from agent import limits
from agent.app.ports import Clock
from agent.domain.backoff import delay_seconds

_log = structlog.get_logger()


async def supervise(name: str, run: Callable[[], Awaitable[None]], *, clock: Clock, rng: random.Random) -> None:
    """Run `run` for ever, again after each unexpected error, with a wait that grows while errors follow quickly."""
    failures = 0
    while True:
        begun_seconds = clock.monotonic()
        try:
            await run()
        except Exception:  # noqa: BLE001 - the boundary of a loop: logged with its traceback, and begun again
            quick = clock.monotonic() - begun_seconds < limits.BACKOFF_MAX_SECONDS
            failures = failures + 1 if quick else 1
            _log.exception("loop_failed", loop=name, failures=failures)
        else:
            return
        await clock.sleep(
            delay_seconds(
                failures, rng=rng, first_seconds=limits.BACKOFF_FIRST_SECONDS, max_seconds=limits.BACKOFF_MAX_SECONDS
            )
        )
