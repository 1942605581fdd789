"""What became of inputs that were picked, counted."""

import threading
from collections.abc import Mapping
from enum import StrEnum

from agent.domain.day_budget import Spent
from agent.domain.result import SampleReason
from agent.domain.slot import SampleCounts


class Skip(StrEnum):
    """Why an input that was picked is no sample."""

    QUEUE_FULL = "queue_full"
    NOT_ENCODABLE = "not_encodable"
    NOT_REDACTABLE = "not_redactable"
    TOO_LARGE = "too_large"
    BUDGET_BYTES = "budget_bytes"
    BUDGET_IMAGES = "budget_images"
    AHEAD_OF_PACE = "ahead_of_pace"
    """The day's budget has room, and must last for the rest of the day."""
    QUOTA = "quota"
    """Others of the label were quicker."""
    DUPLICATE = "duplicate"
    """The same bytes."""
    NEAR_DUPLICATE = "near_duplicate"
    DISK = "disk"
    SPOOL_FULL = "spool_full"
    """Dropped, at once or later, for what is more valuable."""


BUDGET_SKIPS: Mapping[Spent, Skip] = {
    Spent.BYTES: Skip.BUDGET_BYTES,
    Spent.IMAGES: Skip.BUDGET_IMAGES,
    Spent.PACE: Skip.AHEAD_OF_PACE,
}


class SampleCounter:
    """Thread-safe; its lock is held for an addition."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept = dict.fromkeys(SampleReason, 0)
        self._skipped = dict.fromkeys(Skip, 0)

    def keep(self, reason: SampleReason) -> None:
        with self._lock:
            self._kept[reason] += 1

    def skip(self, why: Skip) -> None:
        with self._lock:
            self._skipped[why] += 1

    def counts(self, *, dropped: int, waiting: int, waiting_bytes: int) -> SampleCounts:
        """`dropped` is what the spool made room of."""
        with self._lock:
            return SampleCounts(
                kept={reason.value: count for reason, count in self._kept.items()},
                skipped={**{why.value: count for why, count in self._skipped.items()}, Skip.SPOOL_FULL.value: dropped},
                waiting=waiting,
                waiting_bytes=waiting_bytes,
            )
