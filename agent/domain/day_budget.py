"""What one slot may keep of a UTC day.

Rules kept here: what is spent within one day never exceeds the budget. The box's clock may be wrong:
- a clock that goes back gives no new budget, and one that jumps ahead gives none within hours of the last;
- a clock that was years ahead for a while does not end sampling for years: once it has stayed behind for an hour, the
  day is what it says, with what was spent still spent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from types import MappingProxyType

from agent.domain.slot import SamplePolicy

RENEWAL_SECONDS_MIN = 6 * 3600.0
"""Between two budgets of one process: midnights are a day apart, a start may be some hours before the first."""
BEHIND_SECONDS_MAX = 3600.0
"""A clock that is still behind after this was ahead before: time servers are asked within minutes of a start."""
CHANCE_SHARE = 0.05
"""Of a budget, kept for what chance picks: a day of many doubts must not end the unbiased share."""
LABELS_MAX = 1024
"""Labels that are counted apart; a model has fewer, and what an odd one makes up beyond counts as one."""


class Spent(StrEnum):
    """Which budget does not suffice."""

    BYTES = "BYTES"
    IMAGES = "IMAGES"


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

    def on(self, day: date, *, now_seconds: float) -> "DayBudget":
        """The budget as it stands now, where the clock says that it is `day`."""
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

    def lacks(self, policy: SamplePolicy, *, size_bytes: int = 1, by_chance: bool = False) -> Spent | None:
        """Which budget has no room for a sample of that size; None while both have."""
        share = 1.0 if by_chance or policy.random_fraction <= 0 else 1.0 - CHANCE_SHARE
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
