"""Which inputs are kept for training, and the budget that bounds them.

Rules kept here: the bytes spent within one UTC day never exceed the policy's budget; the same seed picks the same
inputs; doubt outranks chance, so that a sample's reason says the more useful of the two.
"""

import random
from dataclasses import dataclass, replace
from datetime import date

from agent.domain.result import SampleReason
from agent.domain.slot import SamplePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class DayBudget:
    """Bytes of samples that one slot has spent on one UTC day."""

    day: date
    spent_bytes: int = 0

    def on(self, day: date) -> "DayBudget":
        """The budget as it stands on `day`: a new day begins with nothing spent. A clock that goes back keeps
        the later day, so that it cannot be used to spend twice."""
        return self if day <= self.day else DayBudget(day=day)

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
