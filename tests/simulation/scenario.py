"""What a seed decides: the fleet, how good the versions are, and which faults happen how often."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """How a version behaves at the stations."""

    number: int
    install_failure: float
    """Share of installs that fail."""
    error_share: float
    """Share of inferences that fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One world, before anything has happened."""

    seed: int
    agents: int
    late_agents: int
    versions: tuple[Version, ...]
    first_version: int | None
    loss: float
    """Share of syncs that are lost."""
    delay_seconds_max: float
    restarts: int
    absences: int
    commands: int
    revocations: int
    crash_share: float
    """Share of the controller's writes at which it dies."""
    fault_seconds: float = 150.0
    """Faults and operators act until then."""
    settle_seconds: float = 400.0
    """After the faults every rollout must have ended or be paused within so much time."""


def draw_scenario(seed: int) -> Scenario:
    """Return the seed's scenario; some are calm, some rough."""
    rng = random.Random(seed)
    rough = rng.random()
    versions = tuple(_draw_version(rng, number) for number in range(1, rng.randint(2, 5)))
    return Scenario(
        seed=seed,
        agents=rng.randint(1, 7),
        late_agents=rng.randint(0, 2),
        versions=versions,
        first_version=rng.choice([None, 1, 1]),
        loss=rng.choice([0.0, 0.4]) * rough,
        delay_seconds_max=rng.choice([0.1, 3.0]),
        restarts=round(rough * rng.randint(0, 6)),
        absences=round(rough * rng.randint(0, 4)),
        commands=rng.randint(1, 12),
        revocations=rng.choice([0, 0, 0, 1]),
        crash_share=rng.choice([0.0, 0.3]) * rough,
    )


def _draw_version(rng: random.Random, number: int) -> Version:
    return Version(
        number=number,
        install_failure=rng.choice([0.0, 0.0, 0.0, 0.4, 1.0]),
        error_share=rng.choice([0.0, 0.0, 0.0, 0.3]),
    )
