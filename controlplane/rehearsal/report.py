"""What comes out of plays."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.domain.rollout import RolloutState


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """How one play ended. `state` is RUNNING where it was cut off, and PAUSED where it waits for an operator."""

    seed: int
    state: RolloutState
    seconds: float
    exposed_agents: int
    """Most that had been given the version at one time."""
    failed_inferences: int
    fetch_bytes: int
    stopped_in_wave: int | None
    """Where it was turned back or paused, from 0; None where it was not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How a number was spread over the plays."""

    min: float
    p50: float
    p95: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalReport:
    """All plays together."""

    outcomes: Mapping[str, int]
    """By the state in which they ended."""
    seconds: Spread
    exposed_agents: Spread
    failed_inferences: Spread
    fetch_bytes: Spread
    stopped_in_wave: Mapping[int, int]
    horizon_seconds: float


def spread_of(numbers: Sequence[float]) -> Spread:
    """Return the spread of at least one number; a percentile is one of them, the nearest rank."""
    assert numbers, "something was played"
    ordered = sorted(numbers)

    def rank(percent: int) -> float:
        return float(ordered[max(0, -(-len(ordered) * percent // 100) - 1)])

    return Spread(min=float(ordered[0]), p50=rank(50), p95=rank(95), max=float(ordered[-1]))


def summarise(plays: Sequence[Play], *, horizon_seconds: float) -> RehearsalReport:
    """Return the report of at least one play."""
    stopped = Counter(play.stopped_in_wave for play in plays if play.stopped_in_wave is not None)
    return RehearsalReport(
        outcomes=dict(sorted(Counter(str(play.state) for play in plays).items())),
        seconds=spread_of([play.seconds for play in plays]),
        exposed_agents=spread_of([play.exposed_agents for play in plays]),
        failed_inferences=spread_of([play.failed_inferences for play in plays]),
        fetch_bytes=spread_of([play.fetch_bytes for play in plays]),
        stopped_in_wave=dict(sorted(stopped.items())),
        horizon_seconds=horizon_seconds,
    )
