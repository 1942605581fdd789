"""Which version each agent should run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.assignment import (
    DesiredState,
    ShadowRun,
    Standing,
    assign,
    revise,
    select_holders,
    select_targets,
)
from controlplane.domain.deployment import Deployment
from controlplane.domain.ids import AgentId, ModelId
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.rollout import (
    Release,
    RolloutState,
    RolloutStrategy,
    ShadowPolicy,
    WaveSize,
    WaveState,
    exposed_agents,
)
from tests.domain.standings import TARGET, deployments, make_pin, records, standings
from tests.support.factories import (
    NOW,
    ST_1,
    ST_2,
    after_seconds,
    make_agent,
    make_deployment,
    make_desired,
    make_desired_slot,
    make_observation,
    make_rollout,
    make_wave,
)

RELEASED_TO_ST_1 = make_wave(agents=("st-1",), state=WaveState.ADMITTED, releases=(Release(ST_1, NOW),))


def make_records(*agents: str, line: str = "3") -> list[AgentRecord]:
    return [AgentRecord(agent=make_agent(id=agent, labels={"line": line})) for agent in agents]


def settle(standing: Standing) -> Standing:
    """The standing once what is wanted is stored."""
    changed = revise(assign(standing), standing.stored)
    return replace(standing, stored={**standing.stored, **{state.agent_id: state for state in changed}})


@given(standings())
def test_each_agent_has_one_slot_a_model_and_the_target_version_only_when_exposed(standing: Standing) -> None:
    assigned = assign(standing)
    assert set(assigned) == {record.agent.id for record in standing.agents if not record.agent.revoked}
    exposed = {
        (move.model_id, agent)
        for move in standing.rollouts
        if move.state in {RolloutState.RUNNING, RolloutState.PAUSED}
        for agent in exposed_agents(move)
    }
    for agent, slots in assigned.items():
        assert [slot.slot for slot in slots] == sorted({slot.slot for slot in slots})
        for slot in slots:
            assert slot.version != TARGET or (slot.slot, agent) in exposed


@given(standings(), st.randoms(use_true_random=False))
def test_the_order_in_which_things_are_read_does_not_matter(standing: Standing, random: Random) -> None:
    mixed: dict[str, Any] = {}
    for name in ("agents", "deployments", "rollouts", "pins"):
        mixed[name] = list(getattr(standing, name))
        random.shuffle(mixed[name])
    assert assign(standing) == assign(replace(standing, **mixed))


@given(standings())
def test_what_one_agent_should_run_depends_on_no_other(standing: Standing) -> None:
    """Slots are made once for all that should run the same, and for nobody else."""
    alone = [assign(replace(standing, agents=[record])) for record in standing.agents]
    assert assign(standing) == {agent: slots for one in alone for agent, slots in one.items()}


@given(standings())
def test_what_is_assigned_once_stays(standing: Standing) -> None:
    settled = settle(standing)
    assert revise(assign(settled), settled.stored) == ()


@given(standings(), records())
def test_relabelling_and_relabelling_back_changes_nothing(standing: Standing, others: list[AgentRecord]) -> None:
    standing = replace(standing, yanked=frozenset())
    settled = settle(standing)
    moved = settle(replace(settled, agents=others))
    back = settle(replace(moved, agents=standing.agents))
    for record in standing.agents:
        agent_id = record.agent.id
        if not record.agent.revoked:
            before, after = settled.stored.get(agent_id), back.stored.get(agent_id)
            assert (after.slots if after is not None else ()) == (before.slots if before is not None else ())


@given(standings())
def test_a_yanked_version_is_never_newly_given(standing: Standing) -> None:
    returned = {
        (move.model_id, agent)
        for move in standing.rollouts
        if move.state is RolloutState.ROLLING_BACK
        for agent in exposed_agents(move)
    }
    for agent_id, slots in assign(standing).items():
        stored = standing.stored.get(agent_id)
        for slot in slots:
            for version in slot.versions:
                has = stored is not None and stored.version_of(slot.slot) == version
                assert (slot.slot, version) not in standing.yanked or has or (slot.slot, agent_id) in returned


@given(standings())
def test_a_pinned_slot_runs_its_pin_and_no_rollout_touches_it(standing: Standing) -> None:
    standing = replace(standing, yanked=frozenset())
    pinned = {(pin.agent_id, pin.model_id): pin.version for pin in standing.pins}
    for agent_id, slots in assign(standing).items():
        for slot in slots:
            version = pinned.get((agent_id, slot.slot))
            if version is not None:
                assert (slot.version, slot.prefetch_version, slot.shadow) == (version, 0, None)
                assert slot.fetch_bytes_per_second_max == 0
    models = {deployment.id: deployment.model_id for deployment in standing.deployments}
    held = select_holders(standing.agents, standing.deployments)
    for deployment_id, targets in select_targets(standing.agents, standing.deployments, standing.pins).items():
        assert set(held[deployment_id]) - set(targets) == {
            agent_id for agent_id in held[deployment_id] if (agent_id, models[deployment_id]) in pinned
        }


@given(records(), deployments())
def test_a_deployment_takes_no_agent_from_a_higher_or_an_older(
    fleet: list[AgentRecord], intents: list[Deployment]
) -> None:
    held = select_holders(fleet, intents)
    assert set(held) == {deployment.id for deployment in intents}
    lowest = min((one.priority for one in intents), default=0)
    last = max(
        (one for one in intents if one.priority == lowest), key=lambda one: (one.create_time, one.uid), default=None
    )
    if last is not None:
        without = select_holders(fleet, [one for one in intents if one is not last])
        assert {key: agents for key, agents in held.items() if key != last.id} == without


def test_the_higher_priority_holds_the_agent_and_the_lower_waits_for_its_end() -> None:
    site = make_deployment(id="site", version=1, create_time=NOW)
    line = make_deployment(id="line", version=2, priority=10, create_time=after_seconds(60))
    fleet = make_records("st-1")
    assert assign(Standing(agents=fleet, deployments=[site, line]))[ST_1][0].version == 2
    assert assign(Standing(agents=fleet, deployments=[site]))[ST_1][0].version == 1


def test_a_pin_keeps_a_rollout_off_an_agent_that_it_had_released() -> None:
    strategy = RolloutStrategy(waves=(WaveSize(percent=100),), bytes_per_second_per_site=500)
    rollout = make_rollout(strategy=strategy, waves=(RELEASED_TO_ST_1,), prefetches=(Release(ST_1, NOW),))
    standing = Standing(
        agents=make_records("st-1"), deployments=[make_deployment()], rollouts=[rollout], pins=[make_pin("st-1")]
    )
    assert assign(standing)[ST_1] == (make_desired_slot(version=9),)


def test_a_pin_without_a_deployment_gives_no_slot() -> None:
    fleet = make_records("st-1", line="4")
    assert assign(Standing(agents=fleet, deployments=[make_deployment()], pins=[make_pin("st-1")])) == {ST_1: ()}


def yanked(version: int) -> frozenset[tuple[ModelId, int]]:
    return frozenset({(ModelId("solar"), version)})


def test_where_its_version_is_yanked_an_agent_keeps_what_it_was_given_and_a_new_one_gets_nothing() -> None:
    stored = {ST_1: make_desired(slots=(make_desired_slot(version=1),))}
    intent = make_deployment(version=2)
    standing = Standing(agents=make_records("st-1", "st-2"), deployments=[intent], yanked=yanked(2), stored=stored)
    assigned = assign(standing)
    assert [slot.version for slot in assigned[ST_1]] == [1]
    assert assigned[ST_2] == ()


def test_an_agent_that_serves_a_yanked_version_may_be_told_so() -> None:
    """Its release was withdrawn: it goes on with what it never left."""
    record = AgentRecord(agent=make_agent(labels={"line": "3"}), observation=make_observation())
    stored = {ST_1: make_desired(slots=(make_desired_slot(version=2),))}
    standing = Standing(agents=[record], deployments=[make_deployment()], yanked=yanked(1), stored=stored)
    assert assign(standing)[ST_1][0].version == 1


def test_a_rollback_returns_its_agents_to_a_yanked_version_and_gives_it_to_nobody_else() -> None:
    waves = (make_wave(agents=("st-1", "st-2"), state=WaveState.FAILED, releases=(Release(ST_1, NOW),)),)
    rollout = make_rollout(state=RolloutState.ROLLING_BACK, waves=waves)
    standing = Standing(
        agents=make_records("st-1", "st-2"),
        deployments=[make_deployment()],
        rollouts=[rollout],
        yanked=yanked(1),
        stored={ST_1: make_desired(slots=(make_desired_slot(version=2),))},
    )
    assigned = assign(standing)
    assert [slot.version for slot in assigned[ST_1]] == [1]
    assert assigned[ST_2] == ()


def test_prefetch_and_its_pace_last_until_the_agent_is_released() -> None:
    strategy = RolloutStrategy(waves=(WaveSize(percent=100),), prefetch=True, bytes_per_second_per_site=500)
    told = make_rollout(strategy=strategy, prefetches=(Release(ST_1, NOW),))
    standing = Standing(agents=make_records("st-1", "st-2"), deployments=[make_deployment()], rollouts=[told])
    first, second = assign(standing)[ST_1][0], assign(standing)[ST_2][0]
    assert (first.version, first.prefetch_version, first.fetch_bytes_per_second_max) == (1, 2, 500)
    assert (second.version, second.prefetch_version, second.fetch_bytes_per_second_max) == (1, 0, 0)
    released = replace(told, waves=(make_wave(state=WaveState.ADMITTED, releases=(Release(ST_1, NOW),)),))
    after = assign(replace(standing, rollouts=[released]))[ST_1][0]
    assert (after.version, after.prefetch_version, after.fetch_bytes_per_second_max) == (2, 0, 500)
    ended = assign(replace(standing, rollouts=[replace(told, state=RolloutState.ROLLING_BACK)]))[ST_1][0]
    assert (ended.prefetch_version, ended.fetch_bytes_per_second_max) == (0, 0)


def test_agents_of_a_shadowing_wave_compare_enough_together_though_half_of_them_stand_still() -> None:
    strategy = RolloutStrategy(
        waves=(WaveSize(percent=100),), shadow=ShadowPolicy(min_comparisons=100, serving_latency_ms_p99_max=20.0)
    )
    wave = make_wave(agents=("st-1", "st-2", "st-3"), state=WaveState.SHADOWING)
    rollout = make_rollout(strategy=strategy, waves=(wave,))
    standing = Standing(agents=make_records("st-1", "st-4"), deployments=[make_deployment()], rollouts=[rollout])
    slot = assign(standing)[ST_1][0]
    assert slot.version == 1
    assert slot.shadow == ShadowRun(candidate_version=2, comparisons_max=68, serving_latency_ms_p99_max=20.0)
    assert assign(standing)[AgentId("st-4")][0].shadow is None
    assert assign(replace(standing, yanked=yanked(2)))[ST_1][0].shadow is None


def test_of_agents_that_prepare_a_version_only_those_of_the_shadowing_wave_compare_it() -> None:
    strategy = RolloutStrategy(waves=(WaveSize(percent=100),), prefetch=True, shadow=ShadowPolicy(min_comparisons=100))
    wave = make_wave(agents=("st-2",), state=WaveState.SHADOWING)
    told = tuple(Release(agent, NOW) for agent in (ST_1, ST_2))
    rollout = make_rollout(strategy=strategy, waves=(wave,), prefetches=told)
    standing = Standing(agents=make_records("st-1", "st-2"), deployments=[make_deployment()], rollouts=[rollout])
    first, second = assign(standing)[ST_1][0], assign(standing)[ST_2][0]
    assert (first.prefetch_version, second.prefetch_version) == (2, 2)
    assert first.shadow is None
    assert second.shadow is not None


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
    rollout = make_rollout(state=state, waves=(RELEASED_TO_ST_1,))
    assigned = assign(
        Standing(agents=make_records("st-1", "st-2"), deployments=[make_deployment()], rollouts=[rollout])
    )
    assert [assigned[AgentId(agent)][0].version for agent in ("st-1", "st-2")] == [exposed, other]


def test_before_its_first_rollout_a_deployment_without_a_version_gives_a_slot_to_exposed_agents_alone() -> None:
    fleet, intent = make_records("st-1", "st-2"), make_deployment(version=None, offer=3)
    assert assign(Standing(agents=fleet, deployments=[intent])) == {"st-1": (), "st-2": ()}
    rollout = make_rollout(previous_version=None, waves=(RELEASED_TO_ST_1,))
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
