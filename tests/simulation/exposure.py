"""Two experiments on seeds: a version that fails on one device class is stopped within the canary wave, and a good one
is never turned back, however many messages are lost."""

import asyncio
import random
from dataclasses import dataclass, replace

from controlplane.app.rollouts import RolloutRequest
from controlplane.domain.gate import GatePolicy
from controlplane.domain.ids import AgentId, DeploymentId
from controlplane.domain.rollout import RolloutState, RolloutStrategy
from controlplane.domain.wave import parse_wave_sizes
from tests.simulation.operators import ALICE
from tests.simulation.scenario import CPU_BOX, GPU_BOX, SOLAR, Faults, Scenario, Standing, Station, Version
from tests.simulation.world import World

DEPLOYMENT = DeploymentId("solar-all")
BAD_SHARE = 0.02
GOOD_SHARE = 0.001
"""Even a good version fails now and then."""
MINUTES = 25
STRATEGY = RolloutStrategy(
    waves=parse_wave_sizes("1,50%,100%"),
    gate=GatePolicy(max_latency_p99_percent=200, idle_seconds=120.0),
    offline_wait_seconds=60.0,
)
"""The gate that the product asks for by default: at most 10 of 1,000 inferences fail, at 99 % confidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposed:
    """How one rollout went."""

    seed: int
    state: RolloutState
    exposed: int
    """Agents that were given the version."""
    canary: int
    """Agents of the first wave."""
    waves_admitted: int


def make_experiment(seed: int, version: Version, *, loss: float, idle: float = 0.0) -> Scenario:
    """Six boxes of two device classes at two lines, one rollout of version 2, no people."""
    rng = random.Random(f"exposure/{seed}")
    stations = tuple(
        Station(
            agent_id=AgentId(f"st-{number}"),
            site="s1",
            line=f"l{number % 2}",
            box=GPU_BOX if number % 3 == 0 else CPU_BOX,
            busy=rng.random() >= idle,
            skew_seconds=0.0,
            disk_full_until=0.0,
        )
        for number in range(1, 7)
    )
    return Scenario(
        seed=seed,
        stations=stations,
        standing=(Standing(deployment_id=DEPLOYMENT, model_id=SOLAR, selector="agent", version=1),),
        versions={SOLAR: (Version(number=1), version)},
        faults=Faults(
            loss=loss, delay_seconds_max=rng.choice([0.1, 3.0]), absences=rng.randint(0, 3), restarts=rng.randint(0, 3)
        ),
        inferences_per_window=300,
        fault_seconds=2400.0,
    )


async def roll_out(scenario: Scenario) -> Exposed:
    """Let the seed's rollout of version 2 happen, with every checker, until it has ended or MINUTES are over."""
    world = World(replace(scenario, commands=0))
    await world.set_up(people=False)
    await world.run_until(30.0, early=False)
    request = RolloutRequest(deployment_id=DEPLOYMENT, model_id=SOLAR, target_version=2, strategy=STRATEGY, actor=ALICE)
    await world.replicas[0].rollouts.create(request)
    most = 0
    for minute in range(1, MINUTES + 1):
        await world.run_until(30.0 + 60.0 * minute, early=False)
        rollout = (await world.snapshot()).rollouts[0]
        most = max(most, sum(len(wave.releases) for wave in rollout.waves))
        if rollout.state not in {RolloutState.RUNNING, RolloutState.ROLLING_BACK}:
            break
    return Exposed(
        seed=scenario.seed,
        state=rollout.state,
        exposed=most,
        canary=len(rollout.waves[0].agents),
        waves_admitted=sum(wave.admit_time is not None for wave in rollout.waves),
    )


def is_stopped_in_canary(exposed: Exposed) -> bool:
    """Whether it was turned back, and nobody outside of the first wave was given the version."""
    turned_back = exposed.state in {RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK}
    return turned_back and exposed.waves_admitted == 1 and exposed.exposed <= exposed.canary


def is_turned_back(exposed: Exposed) -> bool:
    """Whether a gate refused the version."""
    return exposed.state not in {RolloutState.RUNNING, RolloutState.SUCCEEDED}


def expose_bad(seed: int) -> Exposed:
    """A version that fails 2 % of the inferences on one device class."""
    version = Version(number=2, error_share=BAD_SHARE, bad_boxes=(GPU_BOX,))
    return asyncio.run(roll_out(make_experiment(seed, version, loss=random.Random(seed).uniform(0.0, 0.4))))


def expose_good(seed: int) -> Exposed:
    """A version as good as the one before, on lines of which some stand still."""
    version = Version(number=2, error_share=GOOD_SHARE)
    loss = random.Random(seed).uniform(0.0, 0.4)
    return asyncio.run(roll_out(make_experiment(seed, version, loss=loss, idle=0.2)))
