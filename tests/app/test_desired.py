"""Desired states as agents are told them."""

from controlplane.app.desired import DesiredStates
from controlplane.domain.assignment import DesiredSlot
from tests.app.fleet import Fleet
from tests.support.factories import SOLAR, make_desired, make_desired_slot


async def test_each_state_has_the_versions_that_its_own_slots_name() -> None:
    """Also where many states share their slots and others do not."""
    fleet = Fleet()
    await fleet.publish(1, 2, 3)
    states = DesiredStates(store=fleet.store)
    shared: tuple[DesiredSlot, ...] = (make_desired_slot(version=1),)
    preparing = (make_desired_slot(version=1, prefetch_version=3),)
    wanted = [(shared, {1}), ((make_desired_slot(version=2),), {2}), (shared, {1}), (preparing, {1, 3}), ((), set())]
    for generation, (slots, numbers) in enumerate(wanted, start=1):
        resolved = await states.resolve(make_desired(generation=generation, slots=slots))
        assert resolved.desired.generation == generation
        assert set(resolved.versions) == {(SOLAR, number) for number in numbers}
        assert {version.number for version in resolved.versions.values()} == numbers
