"""Deployments: what is created, what is refused, and what ends."""

from typing import Any

import pytest

from controlplane.domain.deployment import RuntimePolicy
from controlplane.domain.errors import DomainError, Reason, ResourceNotFoundError, StaleWriteError
from controlplane.domain.ids import DeploymentId
from tests.app.fleet import ANNA, LINE_3, SOLAR, Fleet
from tests.app.log import happenings_of

REQUEST_ID = "8c4ff0a6-6a3f-4d0e-9f38-0f6a3c1d2b11"


async def make_fleet() -> Fleet:
    fleet = Fleet()
    await fleet.publish(1, 2, 3)
    await fleet.yank(3)
    await fleet.publish(1, model="weld")
    await fleet.enrol("st-1", "st-2")
    return fleet


async def test_matching_agents_get_their_slots_at_once() -> None:
    fleet = await make_fleet()
    view = await fleet.deploy()
    assert (view.deployment.version, view.matched_agents, view.converged_agents) == (1, 2, 0)
    assert await fleet.desired("st-1") == {SOLAR: 1}
    assert fleet.notices.desired == [("st-1", "st-2")]


async def test_without_a_version_agents_get_nothing_until_the_first_rollout() -> None:
    fleet = await make_fleet()
    await fleet.deploy(version=None)
    assert await fleet.desired("st-1") == {}


async def test_it_shows_how_many_serve_what_they_should() -> None:
    fleet = await make_fleet()
    await fleet.deploy()
    await fleet.sync("st-1")
    assert (await fleet.deployments.get(LINE_3)).converged_agents == 1
    await fleet.sync("st-2", failing=[1])
    assert (await fleet.deployments.get(LINE_3)).converged_agents == 1
    await fleet.sync("st-2")
    assert (await fleet.deployments.get(LINE_3)).converged_agents == 2


@pytest.mark.parametrize(
    ("overrides", "reason", "field"),
    [
        ({"deployment_id": "Line 3"}, Reason.FIELD_INVALID, "deployment_id"),
        ({"model_id": "unknown"}, Reason.RESOURCE_NOT_FOUND, "deployment.model"),
        ({"version": 9}, Reason.RESOURCE_NOT_FOUND, "deployment.model_version"),
        ({"selector": "line in 3"}, Reason.SELECTOR_INVALID, "deployment.selector"),
        ({"selector": ""}, Reason.SELECTOR_INVALID, "deployment.selector"),
        ({"selector": "line=3," * 200 + "line=3"}, Reason.SELECTOR_INVALID, "deployment.selector"),
        ({"selector": "line=4"}, Reason.SELECTION_EMPTY, "deployment.selector"),
        (
            {"runtime_policy": RuntimePolicy(devices=("CPU", "no device"))},
            Reason.FIELD_INVALID,
            "deployment.runtime_policy.devices",
        ),
        (
            {"runtime_policy": RuntimePolicy(devices=("CPU",) * 33)},
            Reason.FIELD_INVALID,
            "deployment.runtime_policy.devices",
        ),
        ({"request_id": "first"}, Reason.FIELD_INVALID, "request_id"),
        ({"priority": 1001}, Reason.FIELD_INVALID, "deployment.priority"),
        ({"priority": -1001}, Reason.FIELD_INVALID, "deployment.priority"),
        ({"version": 3}, Reason.VERSION_YANKED, "deployment.model_version"),
    ],
)
async def test_a_refusal_names_field_and_remedy_and_changes_nothing(
    overrides: dict[str, Any], reason: Reason, field: str
) -> None:
    fleet = await make_fleet()
    with pytest.raises(DomainError) as refusal:
        await fleet.deploy(**overrides)
    assert (refusal.value.reason, refusal.value.field) == (reason, field)
    assert refusal.value.remedy
    assert not (await fleet.deployments.list()).items
    assert await fleet.desired("st-1") == {}
    assert fleet.notices.desired == []


async def test_an_empty_selection_can_be_allowed() -> None:
    fleet = await make_fleet()
    view = await fleet.deploy(selector="line=4", allow_empty=True)
    assert view.matched_agents == 0


async def test_a_revoked_agent_makes_no_selection() -> None:
    fleet = await make_fleet()
    await fleet.revoke("st-1")
    await fleet.revoke("st-2")
    with pytest.raises(DomainError) as refusal:
        await fleet.deploy()
    assert refusal.value.reason is Reason.SELECTION_EMPTY


async def test_overlap_names_the_other_deployment_and_an_agent() -> None:
    fleet = await make_fleet()
    await fleet.deploy()
    with pytest.raises(DomainError) as refusal:
        await fleet.deploy(deployment_id="other", selector="agent in (st-2,st-7)")
    assert refusal.value.reason is Reason.DEPLOYMENT_OVERLAP
    assert "deployments/line-3" in refusal.value.message
    assert "agents/st-2" in refusal.value.message
    await fleet.deploy(deployment_id="weld", model_id="weld", selector="line=3")
    assert await fleet.desired("st-2") == {"solar": 1, "weld": 1}


async def test_another_priority_may_overlap_and_the_higher_holds_the_agents() -> None:
    fleet = await make_fleet()
    await fleet.deploy()
    fleet.clock.advance(1)
    view = await fleet.deploy(deployment_id="trial", selector="agent=st-2", version=2, priority=10)
    assert view.matched_agents == 1
    assert await fleet.desired("st-2") == {SOLAR: 2}
    assert (await fleet.deployments.get(LINE_3)).matched_agents == 1
    with pytest.raises(DomainError) as refusal:
        await fleet.deploy(deployment_id="third", selector="agent=st-2", priority=10)
    assert refusal.value.reason is Reason.DEPLOYMENT_OVERLAP
    await fleet.deployments.delete(DeploymentId("trial"), actor=ANNA)
    assert await fleet.desired("st-2") == {SOLAR: 1}


async def test_who_made_and_ended_it_is_in_the_log() -> None:
    fleet = await make_fleet()
    await fleet.deploy(request_id=REQUEST_ID)
    await fleet.deploy(request_id=REQUEST_ID)
    await fleet.deployments.delete(LINE_3, actor="operators/ben")
    created, deleted = await happenings_of(fleet.store, "deployments/line-3")
    assert (created.actor, created.action, created.related) == (ANNA, "deployment.create", ("models/solar",))
    assert created.evidence == {"selector": "line=3", "version": 1, "priority": 0}
    assert (deleted.actor, deleted.action) == ("operators/ben", "deployment.delete")


async def test_a_taken_name_is_refused() -> None:
    fleet = await make_fleet()
    await fleet.deploy()
    with pytest.raises(DomainError) as refusal:
        await fleet.deploy()
    assert refusal.value.reason is Reason.RESOURCE_EXISTS


async def test_a_repeated_request_is_answered_with_the_first_outcome() -> None:
    fleet = await make_fleet()
    first = await fleet.deploy(request_id=REQUEST_ID)
    again = await fleet.deploy(request_id=REQUEST_ID)
    assert again.deployment == first.deployment
    with pytest.raises(DomainError) as refusal:
        await fleet.deploy(request_id=REQUEST_ID, selector="line in (3,4)")
    assert refusal.value.reason is Reason.REQUEST_ID_REUSED


async def test_deleting_unloads_the_slots() -> None:
    fleet = await make_fleet()
    await fleet.deploy()
    await fleet.deployments.delete(LINE_3, actor=ANNA)
    assert await fleet.desired("st-1") == {}
    assert await fleet.generation("st-1") == 2
    with pytest.raises(ResourceNotFoundError):
        await fleet.deployments.get(LINE_3)


async def test_deleting_is_refused_for_an_old_etag_and_while_a_rollout_moves_it() -> None:
    fleet = await make_fleet()
    view = await fleet.deploy()
    with pytest.raises(StaleWriteError):
        await fleet.deployments.delete(LINE_3, revision=view.deployment.revision + 1, actor=ANNA)
    rollout = await fleet.roll_out()
    with pytest.raises(DomainError) as refusal:
        await fleet.deployments.delete(LINE_3, actor=ANNA)
    assert refusal.value.reason is Reason.ROLLOUT_ACTIVE
    assert f"rollouts/{rollout.id}" in refusal.value.message
    assert (await fleet.deployments.get(LINE_3)).active_rollout == rollout.id


async def test_pages_follow_one_another() -> None:
    fleet = await make_fleet()
    for agent in ("st-1", "st-2"):
        await fleet.deploy(deployment_id=f"only-{agent}", selector=f"agent={agent}")
    first = await fleet.deployments.list(page_size=1)
    second = await fleet.deployments.list(page_size=1, page_token=first.next_token)
    assert [view.deployment.id for view in (*first.items, *second.items)] == ["only-st-1", "only-st-2"]
    assert second.next_token == ""


async def test_where_deployments_come_to_overlap_later_the_oldest_holds_the_agent() -> None:
    fleet = await make_fleet()
    await fleet.deploy(version=1)
    fleet.clock.advance(1)
    await fleet.deploy(deployment_id="site", version=2, selector="site=x", allow_empty=True)
    await fleet.enrol("st-3", line="3", site="x")
    await fleet.convergence.run()
    assert await fleet.desired("st-3") == {SOLAR: 1}
    assert (await fleet.deployments.get(DeploymentId("site"))).matched_agents == 0
