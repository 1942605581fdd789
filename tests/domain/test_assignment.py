"""Which version each agent should run."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.assignment import DesiredState, Standing, assign, revise, select_targets
from controlplane.domain.deployment import Deployment
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.rollout import Rollout, RolloutState, WaveState, exposed_agents
from tests.support.factories import (
    after_seconds,
    make_agent,
    make_deployment,
    make_desired,
    make_desired_slot,
    make_rollout,
    make_wave,
)

AGENTS = [f"st-{number}" for number in range(1, 7)]


def make_records(*agents: str, line: str = "3") -> list[AgentRecord]:
    return [AgentRecord(agent=make_agent(id=agent, labels={"line": line})) for agent in agents]


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
            create_time=after_seconds(draw(st.integers(0, 3))),
        )
        for number in range(draw(st.integers(0, 4)))
    ]


@st.composite
def rollouts(draw: st.DrawFn, of: list[Deployment]) -> list[Rollout]:
    drawn = []
    for deployment in of:
        if draw(st.booleans()):
            admitted = draw(st.sampled_from([WaveState.ADMITTED, WaveState.FAILED, WaveState.PASSED]))
            waves = (
                make_wave(agents=("st-1", "st-2"), state=admitted),
                make_wave(index=1, agents=("st-3", "st-4", "st-5", "st-6")),
            )
            drawn.append(
                make_rollout(
                    id=f"r-{deployment.id}",
                    deployment_id=deployment.id,
                    model_id=deployment.model_id,
                    target_version=7,
                    previous_version=deployment.version,
                    state=draw(st.sampled_from(RolloutState)),
                    waves=waves,
                )
            )
    return drawn


@given(records(), deployments(), st.data())
def test_each_agent_has_one_slot_a_model_and_the_target_version_only_when_exposed(
    fleet: list[AgentRecord], intents: list[Deployment], data: st.DataObject
) -> None:
    moves = data.draw(rollouts(intents))
    assigned = assign(Standing(agents=fleet, deployments=intents, rollouts=moves))
    assert set(assigned) == {record.agent.id for record in fleet if not record.agent.revoked}
    exposed = {
        (move.model_id, agent)
        for move in moves
        if move.state in {RolloutState.RUNNING, RolloutState.PAUSED}
        for agent in exposed_agents(move)
    }
    for agent, slots in assigned.items():
        assert [slot.slot for slot in slots] == sorted({slot.slot for slot in slots})
        for slot in slots:
            assert slot.version != 7 or (slot.slot, agent) in exposed


@given(records(), deployments(), st.randoms(use_true_random=False))
def test_the_order_in_which_things_are_read_does_not_matter(
    fleet: list[AgentRecord], intents: list[Deployment], random: object
) -> None:
    mixed_fleet, mixed_intents = list(fleet), list(intents)
    random.shuffle(mixed_fleet)  # type: ignore[attr-defined]
    random.shuffle(mixed_intents)  # type: ignore[attr-defined]
    assert assign(Standing(agents=fleet, deployments=intents)) == assign(
        Standing(agents=mixed_fleet, deployments=mixed_intents)
    )


@given(records(), deployments())
def test_a_newer_deployment_takes_no_agent_from_an_older(fleet: list[AgentRecord], intents: list[Deployment]) -> None:
    held = select_targets(fleet, intents)
    assert set(held) == {deployment.id for deployment in intents}
    newest = max(intents, key=lambda one: (one.create_time, one.uid), default=None)
    if newest is not None:
        without = select_targets(fleet, [one for one in intents if one is not newest])
        assert {key: agents for key, agents in held.items() if key != newest.id} == without


@pytest.mark.parametrize(
    ("state", "exposed", "other"),
    [
        (RolloutState.RUNNING, 2, 1),
        (RolloutState.PAUSED, 2, 1),
        (RolloutState.ROLLING_BACK, 1, 1),
        (RolloutState.SUCCEEDED, 1, 1),
        (RolloutState.ROLLED_BACK, 1, 1),
        (RolloutState.ABORTED, 1, 1),
    ],
)
def test_the_state_of_the_rollout_decides(state: RolloutState, exposed: int, other: int) -> None:
    rollout = make_rollout(state=state, waves=(make_wave(agents=("st-1",), state=WaveState.ADMITTED),))
    assigned = assign(
        Standing(agents=make_records("st-1", "st-2"), deployments=[make_deployment()], rollouts=[rollout])
    )
    assert [assigned[AgentId(agent)][0].version for agent in ("st-1", "st-2")] == [exposed, other]


def test_before_its_first_rollout_a_deployment_without_a_version_gives_a_slot_to_exposed_agents_alone() -> None:
    fleet, intent = make_records("st-1", "st-2"), make_deployment(version=None, offer=3)
    assert assign(Standing(agents=fleet, deployments=[intent])) == {"st-1": (), "st-2": ()}
    rollout = make_rollout(previous_version=None, waves=(make_wave(agents=("st-1",), state=WaveState.ADMITTED),))
    assert assign(Standing(agents=fleet, deployments=[intent], rollouts=[rollout])) == {
        "st-1": (make_desired_slot(version=2, offer=3),),
        "st-2": (),
    }


def test_a_generation_rises_exactly_when_slots_change() -> None:
    slot, other = make_desired_slot(version=1), make_desired_slot(version=2)
    stored: Mapping[AgentId, DesiredState] = {
        AgentId("st-1"): make_desired(agent_id="st-1", generation=4, slots=(slot,)),
        AgentId("st-2"): make_desired(agent_id="st-2", generation=7, slots=(slot,)),
        AgentId("st-9"): make_desired(agent_id="st-9", generation=2, slots=(slot,)),
    }
    wanted = {
        AgentId("st-1"): (other,),
        AgentId("st-2"): (slot,),
        AgentId("st-3"): (slot,),
        AgentId("st-4"): (),
    }
    changed: Sequence[DesiredState] = revise(wanted, stored)
    assert [(state.agent_id, state.generation, state.slots) for state in changed] == [
        ("st-1", 5, (other,)),
        ("st-3", 1, (slot,)),
    ]
    assert revise(wanted, {**stored, **{state.agent_id: state for state in changed}}) == ()
