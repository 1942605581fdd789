"""Fleets, deployments, rollouts, pins and yanks together, as Hypothesis draws them."""

from collections.abc import Sequence

from hypothesis import strategies as st

from controlplane.domain.assignment import Standing, assign, revise
from controlplane.domain.deployment import Deployment
from controlplane.domain.ids import AgentId, ModelId
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.pin import Pin
from controlplane.domain.rollout import (
    Release,
    Rollout,
    RolloutState,
    RolloutStrategy,
    ShadowPolicy,
    WaveSize,
    WaveState,
)
from tests.support.factories import NOW, after_seconds, make_agent, make_deployment, make_rollout, make_wave

AGENTS = [f"st-{number}" for number in range(1, 7)]
TARGET = 7
"""Of every rollout that is drawn; nothing else names it."""


@st.composite
def records(draw: st.DrawFn) -> list[AgentRecord]:
    drawn = []
    for agent in AGENTS:
        labels = {"line": draw(st.sampled_from(["3", "4"])), "station": draw(st.sampled_from(["1", "2"]))}
        drawn.append(AgentRecord(agent=make_agent(id=agent, labels=labels, revoked=draw(st.booleans()))))
    return drawn


@st.composite
def deployments(draw: st.DrawFn) -> list[Deployment]:
    selectors = ("line=3", "line=4", "station=1", "line in (3,4)")
    return [
        make_deployment(
            id=f"d{number}",
            model_id=draw(st.sampled_from(["solar", "weld"])),
            selector=draw(st.sampled_from(selectors)),
            version=draw(st.sampled_from([None, 1, 2])),
            priority=draw(st.integers(-1, 1)),
            kept_versions=draw(st.dictionaries(st.sampled_from(AGENTS), st.sampled_from([1, 2, 3]), max_size=2)),
            create_time=after_seconds(draw(st.integers(0, 3))),
        )
        for number in range(draw(st.integers(0, 4)))
    ]


@st.composite
def rollouts(draw: st.DrawFn, of: Sequence[Deployment]) -> list[Rollout]:
    drawn = []
    for deployment in of:
        if draw(st.booleans()):
            first = draw(st.sampled_from([WaveState.SHADOWING, WaveState.ADMITTED, WaveState.FAILED, WaveState.PASSED]))
            released = draw(st.sets(st.sampled_from(["st-1", "st-2"]))) if first is not WaveState.SHADOWING else ()
            releases = tuple(Release(AgentId(agent), NOW) for agent in sorted(released))
            waves = (
                make_wave(agents=("st-1", "st-2"), state=first, releases=releases),
                make_wave(index=1, agents=("st-3", "st-4", "st-5", "st-6")),
            )
            strategy = RolloutStrategy(
                waves=(WaveSize(count=2), WaveSize(percent=100)),
                shadow=draw(st.sampled_from([None, ShadowPolicy(min_comparisons=100)])),
                bytes_per_second_per_site=draw(st.sampled_from([0, 1000])),
            )
            drawn.append(
                make_rollout(
                    id=f"r-{deployment.id}",
                    deployment_id=deployment.id,
                    model_id=deployment.model_id,
                    target_version=TARGET,
                    previous_version=deployment.version,
                    state=draw(st.sampled_from(RolloutState)),
                    waves=waves,
                    strategy=strategy,
                    prefetches=tuple(
                        Release(AgentId(agent), NOW) for agent in sorted(draw(st.sets(st.sampled_from(AGENTS))))
                    ),
                )
            )
    return drawn


def make_pin(agent: str, model: str = "solar", version: int = 9) -> Pin:
    return Pin(
        agent_id=AgentId(agent),
        model_id=ModelId(model),
        version=version,
        reason="drawn",
        create_time=NOW,
        actor="operators/anna",
    )


pins = st.lists(
    st.builds(make_pin, st.sampled_from(AGENTS), st.sampled_from(["solar", "weld"]), st.sampled_from([1, 9])),
    max_size=3,
    unique_by=lambda pin: (pin.agent_id, pin.model_id),
)
yanks = st.frozensets(
    st.tuples(st.sampled_from([ModelId("solar"), ModelId("weld")]), st.sampled_from([1, 2, 3, TARGET, 9])), max_size=4
)


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    """What is stored is what was right at some time before anything was yanked."""
    intents = draw(deployments())
    moves = draw(rollouts(intents))
    before = Standing(agents=draw(records()), deployments=intents, pins=draw(pins))
    given = {state.agent_id: state for state in revise(assign(before), {})}
    return Standing(
        agents=draw(records()),
        deployments=intents,
        rollouts=moves,
        pins=draw(pins),
        yanked=draw(yanks),
        stored=given,
    )
