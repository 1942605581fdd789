"""An event heap: virtual time that jumps from one event to the next."""

import heapq
from collections.abc import Awaitable, Callable
from datetime import timedelta

from tests.support.factories import NOW
from tests.support.virtual_time import VirtualClock

Event = Callable[[], Awaitable[None]]


class EventHeap:
    """Events in order of time, and of scheduling where times are equal; so one seed gives one history."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self._events: list[tuple[float, int, Event]] = []
        self._scheduled = 0
        self.seconds = 0.0
        """Since the start."""

    def after(self, delay_seconds: float, event: Event) -> None:
        """Let the event happen so much later."""
        self.at(self.seconds + delay_seconds, event)

    def at(self, seconds: float, event: Event) -> None:
        """Let the event happen at a time that is not over."""
        assert seconds >= self.seconds, "the past is over"
        self._scheduled += 1
        heapq.heappush(self._events, (seconds, self._scheduled, event))

    async def run_next(self, *, until_seconds: float) -> bool:
        """Let the next event happen; return False, with the time at `until_seconds`, when none is due by then."""
        if not self._events or self._events[0][0] > until_seconds:
            self._move_to(until_seconds)
            return False
        seconds, _, event = heapq.heappop(self._events)
        self._move_to(seconds)
        await event()
        return True

    def _move_to(self, seconds: float) -> None:
        self.seconds = seconds
        self.clock.move_to(NOW + timedelta(seconds=seconds))
