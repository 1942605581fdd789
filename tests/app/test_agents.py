"""Agents by operators' hands: labels and revocation."""

import pytest

from controlplane.app.agents import Agents
from controlplane.app.revocations import Revocations
from controlplane.domain.errors import DomainError, Reason, StaleWriteError
from tests.app.fleet import ANNA, SOLAR, Fleet
from tests.app.log import actions_of, happenings_of
from tests.support.factories import ST_1


async def make_fleet() -> Fleet:
    fleet = Fleet()
    await fleet.publish(1)
    await fleet.enrol("st-1")
    await fleet.enrol("st-2", line="4")
    await fleet.deploy()
    return fleet


def agents_of(fleet: Fleet) -> Agents:
    revocations = Revocations(store=fleet.store, clock=fleet.clock)
    return Agents(store=fleet.store, clock=fleet.clock, ids=fleet.ids, notifier=fleet.notices, revocations=revocations)


async def test_labels_are_set_and_removed_and_deployments_follow_at_once() -> None:
    fleet = await make_fleet()
    agents = agents_of(fleet)
    record = await agents.update_labels(ST_1, set_labels={"line": "4", "cell": "7"}, remove=[], actor=ANNA)
    assert dict(record.agent.labels) == {"line": "4", "cell": "7"}
    assert await fleet.desired("st-1") == {}
    assert fleet.notices.desired[-1] == ("st-1",)
    record = await agents.update_labels(ST_1, set_labels={"line": "3"}, remove=["cell", "absent"], actor=ANNA)
    assert dict(record.agent.labels) == {"line": "3"}
    assert await fleet.desired("st-1") == {SOLAR: 1}
    log = await happenings_of(fleet.store, "agents/st-1")
    assert [happening.action for happening in log] == ["agent.label", "agent.label"]
    assert log[0].evidence == {"labels": {"cell": "7", "line": "4"}, "labels_before": {"line": "3"}}


async def test_what_is_so_already_changes_nothing() -> None:
    fleet = await make_fleet()
    record = await agents_of(fleet).update_labels(ST_1, set_labels={"line": "3"}, remove=["cell"], actor=ANNA)
    assert record.agent.revision == 0
    assert await actions_of(fleet.store, "agents/st-1") == []


@pytest.mark.parametrize(
    ("set_labels", "remove", "field"),
    [
        ({}, [], "set"),
        ({"os": "linux"}, [], "set"),
        ({"device.npu": "true"}, [], "set"),
        ({"line": "not a value"}, [], "set"),
        ({"-line": "3"}, [], "set"),
        ({f"key-{number}": "x" for number in range(64)}, [], "set"),
        ({}, ["agent"], "remove"),
        ({}, ["no key!"], "remove"),
        ({"line": "3"}, ["line"], "remove"),
    ],
)
async def test_a_refusal_names_field_and_remedy_and_changes_nothing(
    set_labels: dict[str, str], remove: list[str], field: str
) -> None:
    fleet = await make_fleet()
    with pytest.raises(DomainError) as refusal:
        await agents_of(fleet).update_labels(ST_1, set_labels=set_labels, remove=remove, actor=ANNA)
    assert (refusal.value.reason, refusal.value.field) == (Reason.FIELD_INVALID, field)
    assert refusal.value.remedy
    assert dict((await agents_of(fleet).get(ST_1)).agent.labels) == {"line": "3"}


async def test_an_old_etag_is_refused() -> None:
    fleet = await make_fleet()
    agents = agents_of(fleet)
    await agents.update_labels(ST_1, set_labels={"cell": "7"}, remove=[], actor=ANNA, revision=0)
    with pytest.raises(StaleWriteError):
        await agents.update_labels(ST_1, set_labels={"cell": "8"}, remove=[], actor=ANNA, revision=0)
    with pytest.raises(StaleWriteError):
        await agents.revoke(ST_1, actor=ANNA, revision=0)


async def test_a_revocation_is_logged_once() -> None:
    fleet = await make_fleet()
    agents = agents_of(fleet)
    assert (await agents.revoke(ST_1, actor=ANNA)).agent.revoked
    await agents.revoke(ST_1, actor="operators/ben")
    assert await actions_of(fleet.store, "agents/st-1") == [(ANNA, "agent.revoke")]
