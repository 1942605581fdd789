"""Desired states follow deployments and rollouts, and nothing else."""

from tests.app.fleet import LINE_3, SOLAR, Fleet
from tests.support.factories import make_deployment


async def store_deployment(fleet: Fleet, **overrides: object) -> None:
    """As another process, or one that crashed before it converged, would have left it."""
    async with fleet.store.write() as work:
        await work.deployments.add(make_deployment(id=LINE_3, model_id=SOLAR, **overrides))


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
