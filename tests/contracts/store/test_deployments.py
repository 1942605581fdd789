"""What DeploymentRepository, RolloutRepository and DesiredStateRepository promise."""

from dataclasses import replace

import pytest

from controlplane.app.ports import Store
from controlplane.domain.assignment import ShadowRun
from controlplane.domain.condition import Condition, ConditionState
from controlplane.domain.deployment import PerformanceHint, RuntimePolicy, SamplePolicy
from controlplane.domain.errors import ResourceExistsError, ResourceNotFoundError, StaleWriteError
from controlplane.domain.ids import AgentId, DeploymentId, RolloutId
from controlplane.domain.rollout import Release, RolloutState, WaveSize, WaveState
from tests.support.factories import (
    ST_1,
    ST_2,
    after_seconds,
    digest_of,
    make_agent,
    make_artifact,
    make_deployment,
    make_desired,
    make_desired_slot,
    make_model,
    make_rollout,
    make_verdict,
    make_version,
    make_wave,
)


@pytest.fixture
async def fleet(store: Store) -> Store:
    """A store that knows two agents."""
    async with store.write() as work:
        for agent_id in ("st-1", "st-2"):
            await work.agents.add(make_agent(id=agent_id))
    return store


async def test_a_deployment_is_kept_whole(store: Store) -> None:
    deployment = make_deployment(
        version=None,
        runtime_policy=RuntimePolicy(
            hint=PerformanceHint.THROUGHPUT, inference_precision="f32", devices=("CPU", "GPU.0")
        ),
        sample_policy=SamplePolicy(random_fraction=0.1, confidence_below=0.3, budget_bytes_per_day=1 << 40),
        offer=2,
    )
    async with store.write() as work:
        await work.deployments.add(deployment)
        assert await work.deployments.get(deployment.id) == deployment


async def test_a_missing_deployment_is_named(store: Store) -> None:
    async with store.read() as work:
        with pytest.raises(ResourceNotFoundError, match="deployments/nobody"):
            await work.deployments.get(DeploymentId("nobody"))


async def test_deployments_are_added_once_and_saved_by_revision(store: Store) -> None:
    async with store.write() as work:
        await work.deployments.add(make_deployment())
        with pytest.raises(ResourceExistsError, match="deployment_id: deployments/solar-line-3"):
            await work.deployments.add(make_deployment(uid="another"))
        saved = await work.deployments.save(make_deployment(version=2))
        assert saved == make_deployment(version=2, revision=1)
        with pytest.raises(StaleWriteError):
            await work.deployments.save(make_deployment(version=3))
        assert await work.deployments.get(saved.id) == saved


async def test_a_deployment_is_deleted_at_the_revision_that_was_read(store: Store) -> None:
    async with store.write() as work:
        await work.deployments.add(make_deployment())
        saved = await work.deployments.save(make_deployment())
        with pytest.raises(StaleWriteError):
            await work.deployments.delete(make_deployment())
        await work.deployments.delete(saved)
        assert await work.deployments.list_all() == []
        with pytest.raises(StaleWriteError):
            await work.deployments.delete(saved)


async def test_deployments_are_paged_by_id(store: Store) -> None:
    async with store.write() as work:
        for deployment_id in ("c", "a", "b-1", "b"):
            await work.deployments.add(make_deployment(id=deployment_id))
        first = await work.deployments.list(after=None, limit=2)
        rest = await work.deployments.list(after=first[-1].id, limit=5)
        everything = await work.deployments.list_all()
    assert [deployment.id for deployment in first] == ["a", "b"]
    assert [deployment.id for deployment in rest] == ["b-1", "c"]
    assert everything == [*first, *rest]


async def test_a_rollout_is_kept_whole(store: Store) -> None:
    rollout = make_rollout(
        previous_version=None,
        waves=(
            make_wave(
                state=WaveState.PASSED,
                admit_time=after_seconds(1),
                complete_time=after_seconds(12),
                verdict=make_verdict(evaluate_time=after_seconds(12)),
            ),
            make_wave(index=1, size=WaveSize(percent=100), agents=("st-2", "st-3")),
        ),
        end_time=after_seconds(99),
    )
    async with store.write() as work:
        await work.rollouts.add(rollout)
        assert await work.rollouts.get(RolloutId("rollout-1")) == rollout
        with pytest.raises(ResourceExistsError, match="rollouts/rollout-1"):
            await work.rollouts.add(replace(rollout, uid="another"))
        with pytest.raises(ResourceNotFoundError, match="rollouts/nobody"):
            await work.rollouts.get(RolloutId("nobody"))


async def test_a_rollout_is_saved_by_revision(store: Store) -> None:
    async with store.write() as work:
        await work.rollouts.add(make_rollout())
        saved = await work.rollouts.save(make_rollout(state=RolloutState.PAUSED))
        assert saved == make_rollout(state=RolloutState.PAUSED, revision=1)
        with pytest.raises(StaleWriteError):
            await work.rollouts.save(make_rollout(state=RolloutState.ABORTED))
        assert await work.rollouts.get(RolloutId("rollout-1")) == saved


async def test_rollouts_are_paged_newest_first_by_uid(store: Store) -> None:
    rollouts = [
        make_rollout(id=f"r-{9 - number}", uid=f"uid-{number}", deployment_id=f"d-{number % 2}") for number in range(6)
    ]
    async with store.write() as work:
        for rollout in rollouts:
            await work.rollouts.add(rollout)
        first = await work.rollouts.list(deployment_id=None, before=None, limit=4)
        rest = await work.rollouts.list(deployment_id=None, before=first[-1].uid, limit=4)
        of_one = await work.rollouts.list(deployment_id=DeploymentId("d-1"), before="uid-5", limit=4)
    assert [*first, *rest] == rollouts[::-1]
    assert [rollout.uid for rollout in of_one] == ["uid-3", "uid-1"]


async def test_active_rollouts_are_listed_oldest_first(store: Store) -> None:
    async with store.write() as work:
        for number, state in enumerate(reversed(RolloutState)):
            await work.rollouts.add(make_rollout(id=f"r-{9 - number}", uid=f"uid-{number}", state=state))
        active = await work.rollouts.list_active()
    assert [rollout.state for rollout in active] == [
        RolloutState.ROLLING_BACK,
        RolloutState.PAUSED,
        RolloutState.RUNNING,
    ]


async def test_a_desired_state_is_replaced_whole(fleet: Store) -> None:
    first = make_desired(slots=(make_desired_slot(slot="solar"), make_desired_slot(slot="weld", version=2, offer=1)))
    second = make_desired(generation=2, slots=(make_desired_slot(slot="weld", version=3),))
    async with fleet.write() as work:
        assert await work.desired.find(ST_1) is None
        await work.desired.save([])
        await work.desired.save([first])
        assert await work.desired.find(ST_1) == first
        await work.desired.save([second])
        assert await work.desired.find(ST_1) == second
        await work.desired.save([make_desired(generation=3, slots=())])
        assert await work.desired.find(ST_1) == make_desired(generation=3, slots=())


async def test_desired_states_of_a_fleet_are_saved_and_listed_at_once(store: Store) -> None:
    states = {
        f"st-{number:04}": make_desired(agent_id=f"st-{number:04}", slots=(make_desired_slot(),) * (number % 2))
        for number in range(1200)
    }
    async with store.write() as work:
        for agent_id in states:
            await work.agents.add(make_agent(id=agent_id))
        await work.desired.save(list(reversed(states.values())))
    async with store.read() as work:
        assert await work.desired.list_all() == states


@pytest.mark.parametrize("generation", [4, 5])
async def test_a_generation_that_is_not_above_the_stored_is_refused(fleet: Store, generation: int) -> None:
    stored, other = make_desired(generation=5), make_desired(agent_id=ST_2)
    async with fleet.write() as work:
        await work.desired.save([stored])
    with pytest.raises(StaleWriteError):
        async with fleet.write() as work:
            await work.desired.save([other, make_desired(generation=generation, slots=())])
    async with fleet.read() as work:
        assert await work.desired.list_all() == {"st-1": stored}


async def test_a_blob_is_assigned_while_the_agent_should_run_a_version_with_it(fleet: Store) -> None:
    async with fleet.write() as work:
        await work.models.add(make_model())
        await work.models.add_version(make_version(number=1, artifact=make_artifact("graph", "old weights")))
        await work.models.add_version(make_version(number=2, artifact=make_artifact("graph", "new weights")))
        await work.desired.save([make_desired()])
        assert await work.desired.is_assigned(ST_1, digest_of("graph"))
        assert await work.desired.is_assigned(ST_1, digest_of("old weights"))
        assert not await work.desired.is_assigned(ST_1, digest_of("new weights"))
        assert not await work.desired.is_assigned(ST_1, digest_of("of no version"))
        assert not await work.desired.is_assigned(ST_2, digest_of("graph"))

        await work.desired.save([make_desired(generation=2, slots=(make_desired_slot(version=2),))])
        assert await work.desired.is_assigned(ST_1, digest_of("new weights"))
        assert not await work.desired.is_assigned(ST_1, digest_of("old weights"))

        await work.desired.save([make_desired(generation=3, slots=())])
        assert not await work.desired.is_assigned(ST_1, digest_of("graph"))


async def test_a_blob_to_prepare_or_to_compare_is_assigned(fleet: Store) -> None:
    prefetching = make_desired_slot(prefetch_version=2)
    shadowing = make_desired_slot(shadow=ShadowRun(candidate_version=3, comparisons_max=10))
    async with fleet.write() as work:
        await work.models.add(make_model())
        for number in (1, 2, 3):
            await work.models.add_version(make_version(number=number, artifact=make_artifact(f"weights {number}")))
        for generation, slot, numbers in ((1, prefetching, {1, 2}), (2, shadowing, {1, 3})):
            await work.desired.save([make_desired(generation=generation, slots=(slot,))])
            assigned = {n for n in (1, 2, 3) if await work.desired.is_assigned(ST_1, digest_of(f"weights {n}"))}
            assert assigned == numbers


CONDITION = Condition(
    type="Converged", state=ConditionState.FALSE, reason="BEHIND", message="1 of 2", transition_time=after_seconds(5)
)


async def test_conditions_are_replaced_without_a_change_of_the_deployment(store: Store) -> None:
    async with store.write() as work:
        await work.deployments.add(make_deployment())
        await work.deployments.set_conditions(make_deployment().id, [CONDITION])
        assert await work.deployments.get(make_deployment().id) == make_deployment(conditions=(CONDITION,))
        await work.deployments.set_conditions(make_deployment().id, [])
        assert await work.deployments.get(make_deployment().id) == make_deployment()
        with pytest.raises(ResourceNotFoundError, match="deployments/nobody"):
            await work.deployments.set_conditions(DeploymentId("nobody"), [])


async def test_a_save_leaves_the_conditions_as_they_are_stored(store: Store) -> None:
    async with store.write() as work:
        await work.deployments.add(make_deployment())
        await work.deployments.set_conditions(make_deployment().id, [CONDITION])
        saved = await work.deployments.save(make_deployment(version=2))
        assert saved == make_deployment(version=2, revision=1, conditions=(CONDITION,))
        assert await work.deployments.get(saved.id) == saved


async def test_kept_versions_and_priority_are_kept(store: Store) -> None:
    deployment = make_deployment(priority=-7, kept_versions={ST_1: 3, ST_2: 1})
    async with store.write() as work:
        await work.deployments.add(deployment)
        assert await work.deployments.get(deployment.id) == deployment
        saved = await work.deployments.save(replace(deployment, kept_versions={ST_2: 1}, priority=9))
        assert await work.deployments.list_all() == [saved]
        assert (dict(saved.kept_versions), saved.priority) == ({ST_2: 1}, 9)


async def test_queued_rollouts_are_listed_oldest_first(store: Store) -> None:
    async with store.write() as work:
        for number, state in ((3, RolloutState.QUEUED), (1, RolloutState.QUEUED), (2, RolloutState.RUNNING)):
            await work.rollouts.add(make_rollout(id=f"r-{number}", uid=f"uid-{number}", state=state))
        assert [rollout.uid for rollout in await work.rollouts.list_queued()] == ["uid-1", "uid-3"]


async def test_releases_and_prefetches_are_kept(store: Store) -> None:
    wave = make_wave(
        agents=("st-1", "st-2"),
        state=WaveState.ADMITTED,
        admit_time=after_seconds(1),
        releases=(Release(ST_2, after_seconds(1)), Release(ST_1, after_seconds(61))),
        approver="operators/ben",
        approve_time=after_seconds(0),
    )
    rollout = make_rollout(
        waves=(wave,),
        creator="operators/anna",
        related_id=RolloutId("rollout-0"),
        prefetches=(Release(ST_1, after_seconds(0)),),
    )
    async with store.write() as work:
        await work.rollouts.add(rollout)
        assert await work.rollouts.get(rollout.id) == rollout


async def test_a_shadow_run_and_a_prefetch_are_kept_in_the_slot(fleet: Store) -> None:
    slot = make_desired_slot(
        prefetch_version=3,
        shadow=ShadowRun(candidate_version=3, comparisons_max=500, serving_latency_ms_p99_max=12.5),
        fetch_bytes_per_second_max=1 << 40,
    )
    async with fleet.write() as work:
        await work.desired.save([make_desired(slots=(slot,))])
        assert await work.desired.find(ST_1) == make_desired(slots=(slot,))


async def test_desired_states_of_some_agents_are_those_of_all(store: Store) -> None:
    states = [make_desired(agent_id=AgentId(f"st-{number}"), generation=number) for number in range(1, 5)]
    async with store.write() as work:
        await work.desired.save(states)
    async with store.read() as work:
        found = await work.desired.list([AgentId("st-2"), AgentId("st-4"), AgentId("nobody")])
        everything = await work.desired.list_all()
    assert found == {state.agent_id: state for state in states if state.agent_id in {"st-2", "st-4"}}
    assert everything == {state.agent_id: state for state in states}
