"""Work that is left alone for a while after it failed, by slot and purpose."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import assert_never

import structlog

from agent import limits
from agent.app.ports import Clock
from agent.domain.backoff import delay_seconds
from agent.domain.errors import AgentError, Reason
from agent.domain.reconcile import (
    Action,
    Adopt,
    EndShadow,
    Fetch,
    Prepare,
    Prune,
    Purpose,
    StartShadow,
    Swap,
    Unload,
)

_log = structlog.get_logger()

Lane = tuple[str, Purpose]
"""A slot's name, and what it is worked on for."""
PRUNING: Lane = ("", Purpose.SERVE)
"""Stands for pruning where slots are named."""


@dataclass(frozen=True, slots=True)
class _Wait:
    until_seconds: float
    """On the monotonic clock."""
    attempts: int
    reason: Reason


class Postponements:
    """Waits with full jitter that grow with each failure in a row."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._waits: dict[Lane, _Wait] = {}

    def attempts(self, lane: Lane) -> int:
        """Failures in a row."""
        return self._waits[lane].attempts if lane in self._waits else 0

    def postpone(
        self,
        lane: Lane,
        error: AgentError,
        *,
        first_seconds: float = limits.BACKOFF_FIRST_SECONDS,
        max_seconds: float = limits.BACKOFF_MAX_SECONDS,
    ) -> None:
        """Leave the lane alone for a while, one more failure counted."""
        attempts = self.attempts(lane) + 1
        seconds = delay_seconds(attempts, rng=self._rng, first_seconds=first_seconds, max_seconds=max_seconds)
        self._waits[lane] = _Wait(self._clock.monotonic() + seconds, attempts, error.reason)
        name, purpose = lane
        _log.warning(
            "step_postponed",
            slot=name,
            purpose=purpose,
            reason=error.reason,
            error=str(error),
            seconds=round(seconds, 1),
        )

    def hold(self, lane: Lane, reason: Reason, *, seconds: float) -> None:
        """Leave the lane alone for exactly so long."""
        self._waits[lane] = _Wait(self._clock.monotonic() + seconds, 1, reason)

    def waiting(self) -> frozenset[Lane]:
        now_seconds = self._clock.monotonic()
        return frozenset(lane for lane, wait in self._waits.items() if wait.until_seconds > now_seconds)

    def next_seconds(self) -> float:
        """Seconds until the next wait ends; infinite where none goes on."""
        now_seconds = self._clock.monotonic()
        ends = [wait.until_seconds - now_seconds for wait in self._waits.values() if wait.until_seconds > now_seconds]
        return min(ends, default=float("inf"))

    def drop(self, lane: Lane) -> None:
        """It succeeded, or is no longer wanted."""
        self._waits.pop(lane, None)

    def keep(self, wanted: Callable[[Lane], bool]) -> None:
        """Drop all others."""
        self._waits = {lane: wait for lane, wait in self._waits.items() if wanted(lane)}

    def hurry(self, reason: Reason) -> None:
        """What failed for this reason is tried again now."""
        self._waits = {
            lane: replace(wait, until_seconds=0.0) if wait.reason is reason else wait
            for lane, wait in self._waits.items()
        }


def lane_of(action: Action) -> Lane:
    match action:
        case Fetch(slot=wanted, purpose=purpose) | Prepare(slot=wanted, purpose=purpose):
            return (wanted.slot, purpose)
        case Swap(slot=wanted) | Adopt(slot=wanted):
            return (wanted.slot, Purpose.SERVE)
        case StartShadow(slot=wanted):
            return (wanted.slot, Purpose.SHADOW)
        case Unload(slot=name):
            return (name, Purpose.SERVE)
        case Prune() | EndShadow():
            return PRUNING
    assert_never(action)
