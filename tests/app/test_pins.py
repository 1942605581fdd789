"""Pins: what they hold, what is refused, and what they leave in the log."""

import pytest

from controlplane.app.pins import Pins
from controlplane.domain.errors import DomainError, Reason
from controlplane.domain.ids import AgentId, ModelId
from tests.app.fleet import ANNA, SOLAR, Fleet
from tests.app.log import actions_of
from tests.support.factories import ST_1, ST_2


async def make_fleet() -> Fleet:
    fleet = Fleet()
    await fleet.publish(1, 2, 3)
    await fleet.enrol("st-1", "st-2")
    await fleet.deploy()
    return fleet


def pins_of(fleet: Fleet) -> Pins:
    return Pins(store=fleet.store, clock=fleet.clock, ids=fleet.ids, notifier=fleet.notices)


async def test_a_pin_holds_the_slot_at_once_and_ends_with_the_unpin() -> None:
    fleet = await make_fleet()
    pins = pins_of(fleet)
    await pins.pin(ST_1, SOLAR, 3, reason=" a trial ", actor=ANNA)
    assert await fleet.desired("st-1") == {SOLAR: 3}
    assert await fleet.desired("st-2") == {SOLAR: 1}
    assert fleet.notices.desired[-1] == ("st-1",)
    assert [(pin.version, pin.reason, pin.actor) for pin in await pins.list([ST_1, ST_2])] == [(3, "a trial", ANNA)]
    await pins.unpin(ST_1, SOLAR, actor=ANNA)
    assert await fleet.desired("st-1") == {SOLAR: 1}
    assert await pins.list([ST_1]) == []
    assert await actions_of(fleet.store, "agents/st-1") == [(ANNA, "agent.pin"), (ANNA, "agent.unpin")]


async def test_another_pin_takes_its_place_and_the_same_changes_nothing() -> None:
    fleet = await make_fleet()
    pins = pins_of(fleet)
    await pins.pin(ST_1, SOLAR, 3, reason="a trial", actor=ANNA)
    generation = await fleet.generation("st-1")
    record = await pins.pin(ST_1, SOLAR, 3, reason="a trial", actor=ANNA)
    assert record.desired_generation == generation
    assert len(await actions_of(fleet.store, "agents/st-1")) == 1
    record = await pins.pin(ST_1, SOLAR, 2, reason="another", actor=ANNA)
    assert record.desired_generation == generation + 1
    assert [pin.version for pin in await pins.list([ST_1])] == [2]


@pytest.mark.parametrize(
    ("agent", "version", "why", "refused"),
    [
        ("st-9", "solar:1", "trial", (Reason.RESOURCE_NOT_FOUND, "name")),
        ("st-1", "weld:1", "trial", (Reason.NOT_HELD, "model_version")),
        ("st-1", "solar:9", "trial", (Reason.RESOURCE_NOT_FOUND, "model_version")),
        ("st-1", "solar:2", "trial", (Reason.VERSION_YANKED, "model_version")),
        ("st-1", "solar:1", "  ", (Reason.FIELD_INVALID, "reason")),
        ("st-1", "solar:1", "x" * 1025, (Reason.FIELD_INVALID, "reason")),
        ("st-2", "solar:1", "trial", (Reason.AGENT_REVOKED, "")),
    ],
)
async def test_a_refusal_names_field_and_remedy_and_changes_nothing(
    agent: str, version: str, why: str, refused: tuple[Reason, str]
) -> None:
    fleet = await make_fleet()
    await fleet.yank(2)
    await fleet.revoke("st-2")
    model, _, number = version.partition(":")
    with pytest.raises(DomainError) as refusal:
        await pins_of(fleet).pin(AgentId(agent), ModelId(model), int(number), reason=why, actor=ANNA)
    assert (refusal.value.reason, refusal.value.field) == refused
    assert refusal.value.remedy
    assert await fleet.desired("st-1") == {SOLAR: 1}
    assert await actions_of(fleet.store, f"agents/{agent}") == []


async def test_to_unpin_what_is_not_pinned_is_refused() -> None:
    fleet = await make_fleet()
    with pytest.raises(DomainError) as refusal:
        await pins_of(fleet).unpin(ST_1, SOLAR, actor=ANNA)
    assert (refusal.value.reason, refusal.value.field) == (Reason.RESOURCE_NOT_FOUND, "model")


async def test_a_version_that_is_yanked_later_stays_where_it_is_pinned() -> None:
    fleet = await make_fleet()
    await pins_of(fleet).pin(ST_1, SOLAR, 2, reason="a trial", actor=ANNA)
    await fleet.yank(2)
    await fleet.convergence.run()
    assert await fleet.desired("st-1") == {SOLAR: 2}
