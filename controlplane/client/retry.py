"""When a call may be repeated, and how long to wait before."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from controlplane.client import limits
from controlplane.client.errors import ApiError, ClientError, UnreachableError


class Repeat(StrEnum):
    """What a second sending of the same request would do."""

    SAFE = "SAFE"
    """Nothing more: it only reads, or the controller knows it by its request_id."""
    LOST_RACE = "LOST_RACE"
    """Perhaps something: it is repeated only when the controller said ABORTED, that it did nothing."""
    NEVER = "NEVER"
    """Something: the caller decides."""

    def allows(self, failure: ClientError) -> bool:
        """Say whether a call of this kind that ended so may be sent again."""
        lost_race = isinstance(failure, ApiError) and failure.code == "ABORTED"
        gone = isinstance(failure, UnreachableError) and failure.code == "UNAVAILABLE"
        match self:
            case Repeat.SAFE:
                return gone or lost_race
            case Repeat.LOST_RACE:
                return lost_race
            case Repeat.NEVER:
                return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """Time and chance, so that a test can bring its own."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    rng: random.Random = field(default_factory=random.Random)


class Backoff:
    """Waits between attempts: full jitter under a bound that doubles up to a cap, within a budget of time.

    The budget begins with the first wait since the start or the last progress.
    """

    def __init__(self, pacing: Pacing, *, budget_seconds: float) -> None:
        self._pacing = pacing
        self._budget_seconds = budget_seconds
        self.reset()

    def reset(self) -> None:
        """Start anew: there was progress."""
        self._bound_seconds = limits.RETRY_FIRST_SECONDS
        self._end: float | None = None

    def wait(self) -> bool:
        """Sleep before the next attempt and return True; return False at once when the budget is spent."""
        now, wait_seconds = self._pacing.clock(), self._pacing.rng.uniform(0, self._bound_seconds)
        if self._end is None:
            self._end = now + self._budget_seconds
        if now + wait_seconds > self._end:
            return False
        self._bound_seconds = min(2 * self._bound_seconds, limits.RETRY_CAP_SECONDS)
        self._pacing.sleep(wait_seconds)
        return True
