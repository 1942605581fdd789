"""Which inputs are kept for training, and the budget that bounds them.

Rules kept here: the bytes spent within one UTC day never exceed the policy's budget; the same seed picks the same
inputs; doubt outranks chance, so that a sample's reason says the more useful of the two. The box's clock may be wrong:
- a clock that goes back gives no new budget, and one that jumps ahead gives none within hours of the last;
- a clock that was years ahead for a while does not end sampling for years: once it has stayed behind for an hour, the
  day is what it says, with what was spent still spent.
"""

import random
from dataclasses import dataclass, replace
from datetime import date

from agent.domain.result import SampleReason
from agent.domain.slot import SamplePolicy

RENEWAL_SECONDS_MIN = 6 * 3600.0
"""Between two budgets of one process: midnights are a day apart, a start may be some hours before the first."""
BEHIND_SECONDS_MAX = 3600.0
"""A clock that is still behind after this was ahead before: time servers are asked within minutes of a start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayBudget:
    """Bytes of samples that one slot has spent on one UTC day. Times are of the monotonic clock of this process; None
    stands for an event that it has not seen."""

    day: date
    spent_bytes: int = 0
    renewed_seconds: float | None = None
    """When the budget was last given anew."""
    behind_seconds: float | None = None
    """Since when the clock has been behind `day`."""

    def on(self, day: date, *, now_seconds: float) -> "DayBudget":
        """The budget as it stands now, where the clock says that it is `day`."""
        if day == self.day:
            return replace(self, behind_seconds=None)
        if day < self.day:
            since = now_seconds if self.behind_seconds is None else self.behind_seconds
            if now_seconds - since < BEHIND_SECONDS_MAX:
                return replace(self, behind_seconds=since)
            return replace(self, day=day, behind_seconds=None)
        if self.renewed_seconds is not None and now_seconds - self.renewed_seconds < RENEWAL_SECONDS_MIN:
            return replace(self, day=day, behind_seconds=None)
        return DayBudget(day=day, renewed_seconds=now_seconds)

    def left_bytes(self, limit_bytes: int) -> int:
        return max(0, limit_bytes - self.spent_bytes)

    def spend(self, size_bytes: int, limit_bytes: int) -> "DayBudget | None":
        """The budget after spending, or None when that would exceed the limit."""
        assert size_bytes >= 0
        if size_bytes > self.left_bytes(limit_bytes):
            return None
        return replace(self, spent_bytes=self.spent_bytes + size_bytes)


def pick(
    policy: SamplePolicy, confidence: float | None, rng: random.Random, budget_left_bytes: int
) -> SampleReason | None:
    """Why this input should be kept, or None. Draws exactly one number from `rng` at each call, whatever the outcome,
    so that the draws of a seed do not shift with the budget or the confidence."""
    drawn = rng.random()
    if budget_left_bytes <= 0:
        return None
    if confidence is not None and confidence < policy.confidence_below:
        return SampleReason.LEAST_CONFIDENCE
    return SampleReason.RANDOM if drawn < policy.random_fraction else None
