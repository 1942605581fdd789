"""Time and identities that a test decides."""

from datetime import datetime, timedelta

from tests.support.factories import NOW


class VirtualClock:
    """A Clock that stands still until it is moved."""

    def __init__(self, start: datetime = NOW) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> datetime:
        """Move on and return the new time."""
        return self.move_to(self._now + timedelta(seconds=seconds))

    def move_to(self, time: datetime) -> datetime:
        """Move to a time that is not before the present one, and return it."""
        assert time >= self._now, "time does not run backwards"
        self._now = time
        return time


class CountingIds:
    """An IdSource whose identities count up, and so sort by creation."""

    def __init__(self) -> None:
        self._count = 0

    def uid(self) -> str:
        self._count += 1
        return f"00000000-0000-7000-8000-{self._count:012d}"

    def short_id(self) -> str:
        self._count += 1
        return f"id-{self._count:09d}"

    def secret(self) -> str:
        self._count += 1
        return f"secret-{self._count}"
