"""Desired states follow deployments and rollouts, and nothing else."""

from controlplane.app.convergence import Convergence
from controlplane.domain.condition import Condition, ConditionState
from controlplane.domain.ids import DeploymentId
from tests.app.fleet import LINE_3, SOLAR, CrashingStore, Fleet
from tests.support.factories import after_seconds, make_deployment


async def store_deployment(fleet: Fleet, **overrides: object) -> None:
    """As another process, or one that crashed before it converged, would have left it."""
    async with fleet.store.write() as work:
        await work.deployments.add(make_deployment(id=LINE_3, model_id=SOLAR, **overrides))


async def conditions(fleet: Fleet, deployment: str = LINE_3) -> dict[str, Condition]:
    async with fleet.store.read() as work:
        stored = await work.deployments.get(DeploymentId(deployment))
    return {condition.type: condition for condition in stored.conditions}


async def test_it_writes_what_differs_and_hurries_those_agents_alone() -> None:
    fleet = Fleet()
    await fleet.enrol("st-1", "st-2")
    await fleet.enrol("st-9", line="9")
    await store_deployment(fleet)
    assert await fleet.convergence.run() == ("st-1", "st-2")
    assert fleet.notices.desired == [("st-1", "st-2")]
    assert await fleet.desired("st-1") == {SOLAR: 1}
    assert await fleet.desired("st-9") == {}


async def test_a_second_run_changes_nothing_and_hurries_nobody() -> None:
    fleet = Fleet()
    await fleet.enrol("st-1")
    await store_deployment(fleet)
    await fleet.convergence.run()
    assert await fleet.convergence.run() == ()
    assert fleet.notices.desired == [("st-1",)]
    assert await fleet.generation("st-1") == 1


async def test_an_agent_that_joins_later_gets_the_version() -> None:
    fleet = Fleet()
    await fleet.enrol("st-1")
    await store_deployment(fleet)
    await fleet.convergence.run()
    await fleet.enrol("st-2")
    assert await fleet.convergence.run() == ("st-2",)
    assert await fleet.desired("st-2") == {SOLAR: 1}


async def test_a_device_that_appears_with_the_first_sync_counts_from_then_on() -> None:
    fleet = Fleet()
    await fleet.enrol("st-1")
    await store_deployment(fleet, selector="device.cpu")
    assert await fleet.convergence.run() == ()
    await fleet.sync("st-1")
    assert await fleet.convergence.run() == ("st-1",)


async def test_a_revoked_agent_is_left_as_it_was() -> None:
    fleet = Fleet()
    await fleet.enrol("st-1")
    await store_deployment(fleet)
    await fleet.convergence.run()
    await fleet.revoke("st-1")
    assert await fleet.convergence.run() == ()
    assert await fleet.desired("st-1") == {SOLAR: 1}


async def test_a_round_keeps_the_conditions_of_deployments_and_writes_only_what_is_new() -> None:
    fleet = Fleet()
    await fleet.enrol("st-1", "st-2")
    await store_deployment(fleet)
    await fleet.convergence.round(fleet.clock.now())
    first = await conditions(fleet)
    assert first["Converged"].message == "0 of 2 agents serve what they should; not: st-1, st-2"
    store = CrashingStore(fleet.store, at_write=0, committed=False)
    await Convergence(store=store, notifier=fleet.notices).round(fleet.clock.advance(10))
    await fleet.sync("st-1", "st-2")
    await fleet.convergence.round(fleet.clock.advance(10))
    second = await conditions(fleet)
    assert second["Converged"].state is ConditionState.TRUE
    assert second["Converged"].transition_time == fleet.clock.now()
    assert second["Overlapping"] == first["Overlapping"]
    async with fleet.store.read() as work:
        assert (await work.deployments.get(LINE_3)).revision == 0


async def test_an_overlap_that_labels_made_shows_on_both_deployments() -> None:
    fleet = Fleet()
    await fleet.enrol("st-1")
    await store_deployment(fleet)
    async with fleet.store.write() as work:
        await work.deployments.add(make_deployment(id="site", selector="line in (3,4)", create_time=after_seconds(1)))
    await fleet.convergence.round(fleet.clock.now())
    assert (await conditions(fleet))["Overlapping"].reason == "AgentsShared"
    assert (await conditions(fleet, "site"))["Overlapping"].reason == "AgentsLost"


async def test_a_yanked_version_shows_and_a_late_agent_waits_for_another() -> None:
    fleet = Fleet()
    await fleet.publish(1)
    await fleet.enrol("st-1")
    await store_deployment(fleet)
    await fleet.convergence.run()
    await fleet.yank(1)
    await fleet.enrol("st-2")
    await fleet.convergence.round(fleet.clock.now())
    assert await fleet.desired("st-1") == {SOLAR: 1}
    assert await fleet.desired("st-2") == {}
    shown = (await conditions(fleet))["VersionYanked"]
    assert shown.state is ConditionState.TRUE
    assert shown.message.endswith("without a version: st-2")
