"""Downloads no faster than they may be."""

from collections.abc import AsyncIterator

from agent.app.ports import Clock


class Pace:
    """Passes chunks on so that what was passed never runs ahead of the rate by more than the last chunk, over every
    download that shares it: one that is begun again gains nothing. A stream that is not read sends no more."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._free_seconds = 0.0
        """When the next chunk may be asked for, on the monotonic clock."""

    async def keep(self, stream: AsyncIterator[bytes], bytes_per_second_max: int) -> AsyncIterator[bytes]:
        """The stream's chunks; 0 means no bound."""
        if bytes_per_second_max <= 0:
            async for chunk in stream:
                yield chunk
            return
        await self._wait()
        async for chunk in stream:
            begun_seconds = max(self._free_seconds, self._clock.monotonic())
            self._free_seconds = begun_seconds + len(chunk) / bytes_per_second_max
            yield chunk
            await self._wait()

    async def _wait(self) -> None:
        seconds = self._free_seconds - self._clock.monotonic()
        if seconds > 0:
            await self._clock.sleep(seconds)
