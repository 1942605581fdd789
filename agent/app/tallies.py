"""What was answered, counted for as long as the process lives: what metrics are made of.

`Statistics` begin anew whenever a version begins to serve; a counter that a monitoring system watches never falls, also
over a swap and back. So tallies are kept by slot, version and device, those of versions that serve no more included, up
to a bound.
"""

from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass, field

from agent import limits
from agent.domain.errors import Reason

BOUNDS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the buckets: from a small detector on a fast device to a request that waited as long as it may."""

TallyKey = tuple[str, int, str]
"""Slot, version and device."""


@dataclass(slots=True)
class Times:
    """A distribution of seconds in buckets, each counting what is in none before it; the last has no bound."""

    total_seconds: float = 0.0
    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_SECONDS) + 1))

    def add(self, seconds: float) -> None:
        self.total_seconds += seconds
        self.counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1

    def copy(self) -> "Times":
        return Times(self.total_seconds, list(self.counts))


@dataclass(slots=True)
class Tally:
    """Of one slot, version and device. Inferences are batch items; `failed` are those that the device failed."""

    answered: int = 0
    failed: int = 0
    request_times: Times = field(default_factory=Times)
    """From the request's arrival to its answer, recording included; of requests that were answered."""
    infer_times: Times = field(default_factory=Times)
    """The inference within it, waiting for a free InferRequest included."""

    def copy(self) -> "Tally":
        return Tally(self.answered, self.failed, self.request_times.copy(), self.infer_times.copy())


class Tallies:
    """Not thread-safe: Serving holds its lock."""

    def __init__(self) -> None:
        self._tallies: dict[TallyKey, Tally] = {}
        self._refused: dict[tuple[str, Reason], int] = {}
        self.swaps: dict[str, int] = {}
        """By slot: how often a version took the place of another."""

    def begin(self, key: TallyKey, *, serving: Collection[TallyKey]) -> Tally:
        """The tally of a version that begins to serve; it counts on where the version served before."""
        tally = self._tallies.pop(key, None) or Tally()
        self._tallies[key] = tally
        for each in tuple(self._tallies):
            if len(self._tallies) <= limits.TALLIES_MAX:
                break
            if each != key and each not in serving:
                del self._tallies[each]
        return tally

    def refuse(self, slot: str, reason: Reason) -> None:
        """`slot` is one of this box, or empty: names that callers make up take no room."""
        self._refused[slot, reason] = self._refused.get((slot, reason), 0) + 1

    def swap(self, slot: str) -> None:
        self.swaps[slot] = self.swaps.get(slot, 0) + 1

    def snapshot(self) -> "TallyBook":
        return TallyBook(
            tallies={key: tally.copy() for key, tally in self._tallies.items()},
            refused=dict(self._refused),
            swaps=dict(self.swaps),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TallyBook:
    """Every count at one moment."""

    tallies: dict[TallyKey, Tally]
    refused: dict[tuple[str, Reason], int]
    swaps: dict[str, int]
