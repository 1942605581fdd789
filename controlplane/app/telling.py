"""Who has the turn: a change that many agents are told goes before what agents report and what jobs look at.

Those are most of what a controller does. Were they done meanwhile, the last of ten thousand agents would be told
seconds later. Reports wait in their streams, so nothing is lost, and never for long: what is decided or told may stall.
"""

import asyncio
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from controlplane import limits


class Telling:
    """Streams that have something to tell, and whether reports wait for them. Everything runs on one event loop."""

    def __init__(self) -> None:
        self._decisions = 0
        self._streams: set[Hashable] = set()
        self._together = 0
        """The most streams that had it to tell at one time, of those that are told now."""
        self._may_report = asyncio.Event()
        self._may_report.set()
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Reports wait while something is decided that may concern many. Announce it before the end."""
        self._decisions += 1
        self._hold()
        try:
            yield
        finally:
            self._decisions -= 1
            if not self._decisions and not self._are_many():
                self._let_report()

    def begin(self, stream: Hashable) -> None:
        """The stream is about to tell something."""
        self._streams.add(stream)
        were_many, self._together = self._are_many(), max(self._together, len(self._streams))
        if self._are_many() and not were_many:
            self._hold()

    def end(self, stream: Hashable) -> None:
        """It has told it, or has ended."""
        self._streams.discard(stream)
        if not self._streams and not self._decisions:
            self._let_report()

    @property
    def report_jitter_seconds(self) -> float:
        """By which those that are told now may spread what they report of it; none where they are few."""
        return self._together / limits.TOLD_REPORTS_PER_SECOND if self._are_many() else 0.0

    async def wait(self) -> None:
        """Wait until reports may be taken, TELLING_SECONDS_MAX or little more."""
        if not self._may_report.is_set():
            await self._may_report.wait()

    def _are_many(self) -> bool:
        return self._together >= limits.TELLING_STREAMS_MIN

    def _hold(self) -> None:
        """Let no report in for a while from now on."""
        self._may_report.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(limits.TELLING_SECONDS_MAX, self._let_report)

    def _let_report(self) -> None:
        """Streams that have not told it by now are waited for no longer: one may have stalled."""
        self._streams.clear()
        self._together = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._may_report.set()
