"""Explanations from what is stored."""

import pytest

from controlplane.app.explanations import Explanations
from controlplane.domain.errors import ResourceNotFoundError
from controlplane.domain.ids import AgentId, ModelId
from tests.app.fleet import SOLAR, Fleet
from tests.support.factories import make_model


def explanations_of(fleet: Fleet) -> Explanations:
    return Explanations(store=fleet.store, clock=fleet.clock)


async def make_fleet() -> Fleet:
    fleet = Fleet()
    await fleet.publish(1, 2)
    await fleet.enrol("st-1", "st-2")
    await fleet.deploy()
    await fleet.sync("st-1", "st-2")
    return fleet


async def test_during_a_rollout_one_agent_is_released_and_the_other_waits_for_its_wave() -> None:
    fleet = await make_fleet()
    rollout = await fleet.roll_out()
    await fleet.tick()
    told: dict[str, str] = {}
    for agent in ("st-1", "st-2"):
        (slot,) = await explanations_of(fleet).explain(AgentId(agent))
        assert slot.rollout_id == rollout.id
        assert {SOLAR: slot.desired_version} == await fleet.desired(agent)
        told |= dict.fromkeys({fact.reason for fact in slot.because}, agent)
    assert {"ROLLOUT_RELEASED", "WAVE_NOT_ADMITTED"} <= told.keys()
    assert told["ROLLOUT_RELEASED"] != told["WAVE_NOT_ADMITTED"]


async def test_in_an_admitted_wave_it_says_why_an_agent_is_not_released() -> None:
    fleet = await make_fleet()
    fleet.clock.advance(60)
    await fleet.sync("st-1")
    await fleet.roll_out(waves="100%")
    await fleet.tick()
    (slot,) = await explanations_of(fleet).explain(AgentId("st-2"))
    waits = next(fact.message for fact in slot.because if fact.reason == "WAITS_IN_WAVE")
    assert "OUT_OF_REACH" in waits
    assert "BRING_BACK" in {fact.reason for fact in slot.would_change}


async def test_one_model_is_explained_alone_and_an_unknown_agent_is_refused() -> None:
    fleet = await make_fleet()
    async with fleet.store.write() as uow:
        await uow.models.add(make_model(id="weld"))
    (slot,) = await explanations_of(fleet).explain(AgentId("st-1"), ModelId("weld"))
    assert (slot.slot, slot.desired_version) == ("weld", None)
    with pytest.raises(ResourceNotFoundError):
        await explanations_of(fleet).explain(AgentId("st-9"))


async def test_a_slip_of_the_pen_in_the_models_name_is_told() -> None:
    fleet = await make_fleet()
    with pytest.raises(ResourceNotFoundError) as refused:
        await explanations_of(fleet).explain(AgentId("st-1"), ModelId("solr"))
    assert refused.value.field == "model"
