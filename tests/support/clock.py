"""Virtual time for the agent's loops: they sleep on this clock, and a test moves it."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
_TURNS = 60
"""Turns of the event loop after which everything that can go on without time passing has gone on."""


class LoopClock:
    """`agent.app.ports.Clock` whose time passes only in `run_until` and `advance`."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        return START + timedelta(seconds=self._seconds)

    def monotonic(self) -> float:
        return self._seconds

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._seconds + max(0.0, seconds), next(self._order), future))
        await future

    def move(self, seconds: float) -> None:
        """Let time pass where nobody sleeps."""
        self._seconds += seconds

    async def run_until(self, done: Callable[[], bool], *, seconds_max: float = 3600.0) -> None:
        """Let the loops run, time passing from sleeper to sleeper, until `done()`; fail after `seconds_max`."""
        end_seconds = self._seconds + seconds_max
        while True:
            await settle()
            if done():
                return
            assert self._wake_next(end_seconds), f"not done within {seconds_max} virtual seconds"

    async def advance(self, seconds: float) -> None:
        """Let the loops run for so long."""
        end_seconds = self._seconds + seconds
        await settle()
        while self._wake_next(end_seconds):
            await settle()
        self._seconds = end_seconds

    def _wake_next(self, end_seconds: float) -> bool:
        while self._sleepers and self._sleepers[0][0] <= end_seconds:
            seconds, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                self._seconds = max(self._seconds, seconds)
                future.set_result(None)
                return True
        return False


async def settle() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class InlineExecutor(ThreadPoolExecutor):
    """Runs what loops hand to threads at once, so that virtual time needs no real one."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - handed to whoever waits, as a thread would
            future.set_exception(error)
        return future
