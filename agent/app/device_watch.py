"""Which devices the box has, as far as choices between them are concerned."""

from collections.abc import Callable

import structlog

from agent import limits
from agent.app.ports import Clock, Runtime
from agent.domain.device import DeviceChoice

_log = structlog.get_logger()


class DeviceWatch:
    """One per agent, in its loop. Says which choices no longer hold, since what they were made with has changed."""

    def __init__(self, *, runtime: Runtime, clock: Clock, on_change: Callable[[], None]) -> None:
        self._runtime = runtime
        self._clock = clock
        self._on_change = on_change
        self._seen = ""
        self._lost: frozenset[str] = frozenset()

    @property
    def lost(self) -> frozenset[str]:
        """Devices, or lists of devices, that failed at run time; tried again only by the next process."""
        return self._lost

    @property
    def fingerprint(self) -> str:
        """For choices that are made now; empty while the devices are not known."""
        if not self._seen or not self._lost:
            return self._seen
        return f"{self._seen} without {' '.join(sorted(self._lost))}"

    def is_stale(self, choice: DeviceChoice | None) -> bool:
        return bool(self._seen) and choice is not None and choice.fingerprint != self.fingerprint

    def lose(self, device: str) -> None:
        self._lost |= {device}
        self._on_change()

    async def look(self) -> None:
        """A look that fails says nothing: devices do not go because a probe crashed."""
        seen = await self._runtime.fingerprint()
        if seen and seen != self._seen:
            _log.info("devices_seen", fingerprint=seen, before=self._seen)
            self._seen = seen
            self._on_change()

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await self.look()
            await self._clock.sleep(limits.HOST_FACTS_SECONDS)
