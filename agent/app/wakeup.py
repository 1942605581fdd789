"""Waiting that an event may cut short: loops run at their own pace, and events only hurry the next turn."""

import asyncio
from collections.abc import Awaitable

from agent.app.ports import Clock


class Wakeup:
    """Remembers one wake until the next wait. Make it within the loop that waits; `wake` is for any thread."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def wake(self) -> None:
        # A thread may be late: the loop is gone when the agent has stopped, and nobody waits any more.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, clock: Clock, seconds: float) -> bool:
        """Wait for a wake, at most `seconds`; whether one came."""
        await first_of(self._event.wait(), clock.sleep(seconds))
        woken = self._event.is_set()
        self._event.clear()
        return woken

    async def wait_forever(self) -> None:
        await self._event.wait()
        self._event.clear()


async def first_of(*awaitables: Awaitable[object]) -> None:
    """Return when the first is done, with the others cancelled and ended. Raises what the first raised."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
