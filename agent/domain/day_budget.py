"""What one slot may keep of a UTC day.

Rules kept here: what is spent within one day never exceeds the budget, and it is not all spent in the morning:
- a third may be spent at once, the rest as the day passes; what a quiet hour left is there for a busy one;
- what is especially valuable, and what chance picks, may go earlier, by half of what is yet to come: whatever comes,
  the other half is left for the hours that follow. Chance does so whatever the value, which would bias it, and its part
  of the budget lies above what all others may spend at any hour.

The box's clock may be wrong:
- a clock that goes back gives no new budget, and one that jumps ahead gives none within hours of the last;
- a clock that was years ahead for a while does not end sampling for years: once it has stayed behind for an hour, the
  day is what it says, with what was spent still spent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from agent.domain.slot import SamplePolicy

RENEWAL_SECONDS_MIN = 6 * 3600.0
"""Between two budgets of one process: midnights are a day apart, a start may be some hours before the first."""
BEHIND_SECONDS_MAX = 3600.0
"""A clock that is still behind after this was ahead before: time servers are asked within minutes of a start."""
CHANCE_SHARE = 0.05
"""Of a budget, kept for what chance picks: a day of many doubts must not end the unbiased share."""
BURST_SHARE = 1 / 3
"""Of a budget, for the first minutes of a day: a new deployment shows something at once, and every later hour is left
two thirds of what an even day gives it; half of that where what goes ahead comes without end."""
AHEAD_SHARE = 0.5
"""Of what is yet to come, what may be spent ahead of the pace."""
VALUABLE_MIN = 0.9
"""Value from which a sample may go ahead: disagreement in shadow, and what is far from all that was seen."""
LABELS_MAX = 1024
"""Labels that are counted apart; a model has fewer, and what an odd one makes up beyond counts as one."""


class Spent(StrEnum):
    """Which budget does not suffice."""

    BYTES = "BYTES"
    IMAGES = "IMAGES"
    PACE = "PACE"
    """Neither for the day, but both so early in it."""


def share_of_day(time: datetime) -> float:
    """How much of its UTC day has passed at an aware time, 0 to 1."""
    in_utc = time.astimezone(UTC)
    return (in_utc - in_utc.replace(hour=0, minute=0, second=0, microsecond=0)) / timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DayBudget:
    """What one slot has kept on one UTC day. Times are of the monotonic clock of this process; None stands for an event
    that it has not seen."""

    day: date
    spent_bytes: int = 0
    spent_images: int = 0
    label_counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Of what was kept, by the result's best label."""
    renewed_seconds: float | None = None
    """When the budget was last given anew."""
    behind_seconds: float | None = None
    """Since when the clock has been behind `day`."""
    passed: float = 1.0
    """Share of the day that has passed; at 1 all of the budget may be spent."""

    def on(self, day: date, *, now_seconds: float, passed: float = 1.0) -> "DayBudget":
        """The budget as it stands now, where the clock says that so much of `day` has passed."""
        assert 0.0 <= passed <= 1.0
        return replace(self._of(day, now_seconds), passed=passed)

    def _of(self, day: date, now_seconds: float) -> "DayBudget":
        if day == self.day:
            return self if self.behind_seconds is None else replace(self, behind_seconds=None)
        if day < self.day:
            since = now_seconds if self.behind_seconds is None else self.behind_seconds
            if now_seconds - since < BEHIND_SECONDS_MAX:
                return replace(self, behind_seconds=since)
            return replace(self, day=day, behind_seconds=None)
        if self.renewed_seconds is not None and now_seconds - self.renewed_seconds < RENEWAL_SECONDS_MIN:
            return replace(self, day=day, behind_seconds=None)
        return DayBudget(day=day, renewed_seconds=now_seconds)

    def lacks(
        self, policy: SamplePolicy, *, size_bytes: int = 1, by_chance: bool = False, value: float = 0.0
    ) -> Spent | None:
        """Why there is no room now for a sample of that size and value; None while there is."""
        share = 1.0 if by_chance or policy.random_fraction <= 0 else 1.0 - CHANCE_SHARE
        lacking = self._lacks(policy, size_bytes, share)
        if lacking is not None:
            return lacking
        goes_ahead = by_chance or value >= VALUABLE_MIN
        return Spent.PACE if self._lacks(policy, size_bytes, share * self._pace(goes_ahead=goes_ahead)) else None

    def _pace(self, *, goes_ahead: bool) -> float:
        """Share of the budgets that may be spent by now."""
        pace = BURST_SHARE + (1.0 - BURST_SHARE) * self.passed
        return pace + AHEAD_SHARE * (1.0 - pace) if goes_ahead else pace

    def _lacks(self, policy: SamplePolicy, size_bytes: int, share: float) -> Spent | None:
        """Which budget has no room, where that share of each may be spent."""
        if self.spent_bytes + size_bytes > policy.budget_bytes_per_day * share:
            return Spent.BYTES
        images = policy.budget_images_per_day
        if images > 0 and self.spent_images >= max(1, round(images * share)):
            return Spent.IMAGES
        return None

    def quota_left(self, policy: SamplePolicy, label: str) -> bool:
        """Whether fewer of the label were kept today than the policy asks for."""
        quota = policy.class_quota_per_day.get(label, policy.class_quota_per_day.get("", 0))
        return self.label_counts.get(label, 0) < quota

    def spend(self, size_bytes: int, label: str) -> "DayBudget":
        """The budget after a sample was kept."""
        assert size_bytes >= 0
        known = label if label in self.label_counts or len(self.label_counts) < LABELS_MAX else ""
        counts = {**self.label_counts, known: self.label_counts.get(known, 0) + 1}
        return replace(
            self,
            spent_bytes=self.spent_bytes + size_bytes,
            spent_images=self.spent_images + 1,
            label_counts=MappingProxyType(counts),
        )
