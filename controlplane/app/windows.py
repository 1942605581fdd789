"""Maintenance windows: when an agent may swap, and when a wave may start.

What holds:
- A window is open exactly in [start, start + duration) of each time that its cron expression names, in real time: an
  hour stays an hour where summer time begins or ends.
- Cron is Debian's: five fields, 0 and 7 are Sunday, names count, and where neither day field begins with a star one of
  the two is enough. A time that summer time skips comes when it has ended; one that comes twice counts the first time.
- An agent that no window of a scope selects is not bound in that scope: open.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from controlplane import limits
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.rollout import MaintenanceWindow, WindowScope
from controlplane.domain.selector import Selector, parse_selector

_CRON_FIELDS = 5
_BEFORE = datetime(2000, 1, 1, tzinfo=UTC)
"""A cron expression without a year opens again and again, or never: it does not matter since when one looks."""
_SKEW = timedelta(hours=3)
"""More than any zone moves its clocks: times that are named twice or not at all are looked at from before."""


def check_windows(windows: Sequence[MaintenanceWindow], *, field: str = "rollout.strategy.windows") -> None:
    """Raise FieldInvalidError naming the part of the window that cannot be right: `field` + "[0].cron"."""
    if len(windows) > limits.WINDOWS_MAX:
        raise FieldInvalidError(
            f"{len(windows)} windows are too many",
            field=field,
            remedy=f"use at most {limits.WINDOWS_MAX}, each for all agents that share a label",
        )
    for index, window in enumerate(windows):
        _Schedule(window, field=f"{field}[{index}]")


class Windows:
    """A strategy's windows, read once. Each is evaluated once a time, not once an agent, so callers ask for many
    agents at one `now`."""

    def __init__(self, windows: Sequence[MaintenanceWindow]) -> None:
        """Raises FieldInvalidError as `check_windows`."""
        schedules = [
            _Schedule(window, field=f"rollout.strategy.windows[{index}]") for index, window in enumerate(windows)
        ]
        self._schedules = {
            scope: tuple(schedule for schedule in schedules if schedule.scope is scope) for scope in WindowScope
        }

    def swap_open(self, labels: Mapping[str, str], now: datetime) -> bool:
        """Whether an agent with these labels (`domain.selector.facts`) may swap now."""
        return self._open(WindowScope.SWAP, labels, now)

    def start_open(self, labels: Mapping[str, str], now: datetime) -> bool:
        """Whether a wave with such an agent may start now."""
        return self._open(WindowScope.START, labels, now)

    def next_open(self, scope: WindowScope, labels: Mapping[str, str], now: datetime) -> datetime | None:
        """Return `now` if it is open for the agent, else when it opens; None when it never does."""
        bound = [schedule for schedule in self._schedules[scope] if schedule.binds(labels)]
        if not bound or any(schedule.is_open(now) for schedule in bound):
            return now
        return min((start for schedule in bound if (start := schedule.next_start(now)) is not None), default=None)

    def _open(self, scope: WindowScope, labels: Mapping[str, str], now: datetime) -> bool:
        bound = False
        for schedule in self._schedules[scope]:
            if schedule.binds(labels):
                if schedule.is_open(now):
                    return True
                bound = True
        return not bound


class _Schedule:
    """One window. Remembers between which two starts it was asked last."""

    def __init__(self, window: MaintenanceWindow, *, field: str) -> None:
        self.scope = window.scope
        self._selector: Selector | None = (
            parse_selector(window.selector, field=f"{field}.selector") if window.selector.strip() else None
        )
        self._cron = window.cron
        self._zone = parse_zone(window.time_zone, field=f"{field}.time_zone")
        check_cron(window.cron, field=f"{field}.cron")
        self._duration = _parse_duration(window.duration_seconds, field=f"{field}.duration")
        self._start: datetime | None = None
        self._following: datetime | None = None
        self._known: tuple[datetime, datetime] | None = None
        """From when until when `_start` is the last start that may be open; `_following` is the one after it."""

    def binds(self, labels: Mapping[str, str]) -> bool:
        return self._selector is None or self._selector.matches(labels)

    def is_open(self, now: datetime) -> bool:
        self._look(now)
        return self._start is not None and now < self._start + self._duration

    def next_start(self, now: datetime) -> datetime | None:
        """The first start after `now`."""
        self._look(now)
        return self._following

    def _look(self, now: datetime) -> None:
        """Find the last start that may still be open at `now`, and the first after it."""
        if self._known is not None and self._known[0] <= now < self._known[1]:
            return
        # Looks back ever further, so that a window of every minute is not followed through all of its duration.
        back, start, following = _SKEW, None, None
        while start is None and back < 2 * (self._duration + _SKEW):
            start, following = self._around(now, back)
            back *= 2
        self._start, self._following = start, following
        self._known = (now, following if following is not None else datetime.max.replace(tzinfo=UTC))

    def _around(self, now: datetime, back: timedelta) -> tuple[datetime | None, datetime | None]:
        """The last start at `now` or in the time `back` before it, and the first after it."""
        start = None
        for named in CronSim(self._cron, (now - back).astimezone(self._zone)):
            time = named.astimezone(UTC)
            if time > now:
                return start, time
            start = time
        return start, None


def check_cron(cron: str, *, field: str) -> None:
    """Raise FieldInvalidError unless the expression has five fields and names a time that comes."""
    remedy = 'write minute, hour, day, month and weekday as cron has them, for example "0 2 * * SUN"'
    if len(cron) > limits.CRON_CHARS_MAX or len(cron.split()) != _CRON_FIELDS:
        raise FieldInvalidError(f"{cron[:80]!r} is not five fields", field=field, remedy=remedy)
    try:
        opens = next(CronSim(cron, _BEFORE), None) is not None
    except CronSimError as error:
        raise FieldInvalidError(f"{cron!r} names no time: {str(error).lower()}", field=field, remedy=remedy) from error
    if not opens:
        raise FieldInvalidError(f"{cron!r} never comes", field=field, remedy="name a day that its months have")


def parse_zone(name: str, *, field: str) -> ZoneInfo:
    """Return the zone of the IANA list; raise FieldInvalidError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        # A zone's name is looked up as a file: a folder, or a path out of it, is refused there.
        raise FieldInvalidError(
            f"{name!r} is not a time zone",
            field=field,
            remedy="use a name of the IANA list, for example Europe/Berlin, Asia/Shanghai or UTC",
        ) from error


def _parse_duration(seconds: float, *, field: str) -> timedelta:
    if not (math.isfinite(seconds) and 0 < seconds <= limits.WINDOW_SECONDS_MAX):
        raise FieldInvalidError(
            f"a window cannot be open for {seconds:g} s",
            field=field,
            remedy=f"use more than 0 and at most {limits.WINDOW_SECONDS_MAX:.0f} s",
        )
    return timedelta(seconds=seconds)
