"""Pins, labels, explanations, yanks, operators and the log over the wire: one way through, and every refusal."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lineside.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    deployment_pb2,
    deployment_service_pb2,
    deployment_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    operator_pb2,
    operator_service_pb2,
    operator_service_pb2_grpc,
)

from tests.support.factories import ST_1, ST_2, make_agent, make_model, make_observation, make_version
from tests.support.wire import bearer, refused, tls_channel

INVALID, MISSING, WRONG_STATE, STALE, TAKEN = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.ALREADY_EXISTS,
)
SERVICES: dict[str, tuple[Any, Any]] = {
    "agent": (agent_service_pb2_grpc.AgentServiceStub, agent_service_pb2),
    "audit": (audit_service_pb2_grpc.AuditServiceStub, audit_service_pb2),
    "deployment": (deployment_service_pb2_grpc.DeploymentServiceStub, deployment_service_pb2),
    "model": (model_service_pb2_grpc.ModelServiceStub, model_service_pb2),
    "operator": (operator_service_pb2_grpc.OperatorServiceStub, operator_service_pb2),
}


class Caller:
    """Calls any of the services as one operator."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._channel = channel
        self._metadata = bearer(token)

    async def call(self, service: str, method: str, **fields: Any) -> Any:
        stub, messages = SERVICES[service]
        request = getattr(messages, f"{method}Request")(**fields)
        return await getattr(stub(self._channel), method)(request, metadata=self._metadata, timeout=20)


@pytest.fixture
async def admin(served: Any) -> AsyncIterator[Caller]:
    """The first operator of a controller where deployment line-3 holds st-1 with solar:1, and st-2 is held by none."""
    async with served.parts.store.write() as work:
        await work.models.add(make_model())
        for number in (1, 2):
            await work.models.add_version(make_version(number=number))
        await work.agents.add(make_agent(id=ST_1, labels={"line": "3"}))
        await work.agents.add(make_agent(id=ST_2, labels={"line": "4"}))
        await work.agents.record([make_observation(receive_time=served.parts.clock.now())])
    async with tls_channel(served.api, served.ca_certificate) as channel:
        caller = Caller(channel, served.operator_token)
        wanted = deployment_pb2.Deployment(
            model="models/solar", model_version="models/solar/versions/1", selector="line=3", priority=7
        )
        created = await caller.call("deployment", "CreateDeployment", deployment_id="line-3", deployment=wanted)
        assert created.priority == 7
        yield caller


async def actions(admin: Caller, **fields: Any) -> list[str]:
    page = await admin.call("audit", "ListAuditEvents", **fields)
    return [event.action for event in page.audit_events]


async def test_a_slot_is_pinned_explained_and_unpinned(admin: Caller) -> None:
    pinned = await admin.call(
        "agent", "PinAgent", name="agents/st-1", model_version="models/solar/versions/2", reason="glare"
    )
    (pin,) = pinned.pins
    assert (pin.model_version, pin.reason, pin.creator) == ("models/solar/versions/2", "glare", "operators/admin")
    listed = await admin.call("agent", "ListAgents")
    assert [[each.model_version for each in agent.pins] for agent in listed.agents] == [["models/solar/versions/2"], []]
    assert (await admin.call("agent", "GetAgent", name="agents/st-1")).pins == pinned.pins
    explained = await admin.call("agent", "ExplainAgent", name="agents/st-1", model="models/solar")
    (slot,) = explained.slots
    assert (slot.slot, slot.desired_version, slot.deployment) == (
        "solar",
        "models/solar/versions/2",
        "deployments/line-3",
    )
    assert "PINNED" in {fact.reason for fact in slot.because}
    assert all(fact.message for fact in (*slot.because, *slot.would_change))
    unpinned = await admin.call("agent", "UnpinAgent", name="agents/st-1", model="models/solar")
    assert not unpinned.pins
    assert await actions(admin, resource="agents/st-1", oldest_first=True) == ["agent.pin", "agent.unpin"]


async def test_labels_are_set_and_removed_and_deployments_follow(admin: Caller) -> None:
    changed = await admin.call("agent", "UpdateAgentLabels", name="agents/st-2", set={"line": "3", "cell": "a"})
    assert dict(changed.labels) == {"line": "3", "cell": "a"}
    assert (await admin.call("deployment", "GetDeployment", name="deployments/line-3")).matched_agents == 2
    changed = await admin.call("agent", "UpdateAgentLabels", name="agents/st-2", remove=["line"], etag=changed.etag)
    assert dict(changed.labels) == {"cell": "a"}
    assert (await admin.call("deployment", "GetDeployment", name="deployments/line-3")).matched_agents == 1


async def test_a_yanked_version_says_since_when_and_why(admin: Caller) -> None:
    yanked = await admin.call("model", "YankModelVersion", name="models/solar/versions/2", reason="cracks")
    assert (yanked.HasField("yank_time"), yanked.yank_reason) == (True, "cracks")
    for service, method, fields, field in (
        (
            "agent",
            "PinAgent",
            {"name": "agents/st-1", "model_version": "models/solar/versions/2", "reason": "r"},
            "model_version",
        ),
        (
            "deployment",
            "CreateDeployment",
            {
                "deployment_id": "other",
                "deployment": deployment_pb2.Deployment(
                    model="models/solar", model_version="models/solar/versions/2", selector="line=4"
                ),
            },
            "deployment.model_version",
        ),
    ):
        refusal = await refused(admin.call(service, method, **fields))
        assert (refusal.code, refusal.reason, refusal.field) == (WRONG_STATE, "VERSION_YANKED", field)
        assert "unyank" in refusal.remedy
    allowed = await admin.call("model", "UnyankModelVersion", name="models/solar/versions/2")
    assert (allowed.HasField("yank_time"), allowed.yank_reason) == (False, "")
    assert await actions(admin, action="version.", oldest_first=True) == ["version.yank", "version.unyank"]


async def test_operators_are_created_named_and_revoked(served: Any, admin: Caller) -> None:
    created = await admin.call(
        "operator", "CreateOperator", operator_id="bea", operator=operator_pb2.Operator(description="night")
    )
    assert created.token.startswith("lso1.")
    listed = (await admin.call("operator", "ListOperators")).operators
    assert [(one.name, one.token, one.revoked) for one in listed] == [
        ("operators/admin", "", False),
        ("operators/bea", "", False),
    ]
    async with tls_channel(served.api, served.ca_certificate) as channel:
        current = await Caller(channel, created.token).call("operator", "GetCurrentOperator")
    assert (current.name, current.description, current.token) == ("operators/bea", "night", "")
    assert (await admin.call("operator", "RevokeOperator", name="operators/bea")).revoked
    last = await refused(admin.call("operator", "RevokeOperator", name="operators/admin"))
    assert (last.code, last.reason, last.field) == (WRONG_STATE, "LAST_OPERATOR", "name")
    assert last.remedy


async def test_the_log_is_paged_and_bounded_in_time(served: Any, admin: Caller) -> None:
    for number in range(3):
        await admin.call("operator", "CreateOperator", operator_id=f"o{number}")
    first = await admin.call("audit", "ListAuditEvents", action="operator.create", actor="operators/admin", page_size=2)
    assert [event.resource for event in first.audit_events] == ["operators/o2", "operators/o1"]
    rest = await admin.call(
        "audit", "ListAuditEvents", action="operator.create", actor="operators/admin", page_token=first.next_page_token
    )
    assert [event.resource for event in rest.audit_events] == ["operators/o0"]
    later = Timestamp()
    later.FromDatetime(served.parts.clock.now() + timedelta(seconds=1))
    assert await actions(admin, start_time=later) == []
    assert "operator.create" in await actions(admin, end_time=later)


PIN = {"name": "agents/st-1", "model_version": "models/solar/versions/2", "reason": "glare"}


@pytest.mark.parametrize(
    ("service", "method", "fields", "code", "reason", "field"),
    [
        ("agent", "PinAgent", PIN | {"name": "st-1"}, INVALID, "FIELD_INVALID", "name"),
        ("agent", "PinAgent", PIN | {"name": "agents/none"}, MISSING, "RESOURCE_NOT_FOUND", None),
        ("agent", "PinAgent", PIN | {"model_version": "solar:2"}, INVALID, "FIELD_INVALID", "model_version"),
        (
            "agent",
            "PinAgent",
            PIN | {"model_version": "models/solar/versions/9"},
            MISSING,
            "RESOURCE_NOT_FOUND",
            "model_version",
        ),
        ("agent", "PinAgent", PIN | {"reason": " "}, INVALID, "FIELD_INVALID", "reason"),
        ("agent", "PinAgent", PIN | {"name": "agents/st-2"}, WRONG_STATE, "NOT_HELD", "model_version"),
        ("agent", "UnpinAgent", {"name": "agents/st-1", "model": "solar"}, INVALID, "FIELD_INVALID", "model"),
        (
            "agent",
            "UnpinAgent",
            {"name": "agents/st-1", "model": "models/solar"},
            MISSING,
            "RESOURCE_NOT_FOUND",
            "model",
        ),
        ("agent", "UpdateAgentLabels", {"name": "agents/st-1"}, INVALID, "FIELD_INVALID", "set"),
        ("agent", "UpdateAgentLabels", {"name": "agents/st-1", "set": {"os": "x"}}, INVALID, "FIELD_INVALID", "set"),
        ("agent", "UpdateAgentLabels", {"name": "agents/st-1", "remove": [""]}, INVALID, "FIELD_INVALID", "remove"),
        (
            "agent",
            "UpdateAgentLabels",
            {"name": "agents/st-1", "set": {"a": "b"}, "etag": "77"},
            STALE,
            "STALE_WRITE",
            "etag",
        ),
        ("agent", "ExplainAgent", {"name": "agents/none"}, MISSING, "RESOURCE_NOT_FOUND", None),
        ("agent", "ExplainAgent", {"name": "agents/st-1", "model": "solar"}, INVALID, "FIELD_INVALID", "model"),
        ("model", "YankModelVersion", {"name": "models/solar", "reason": "r"}, INVALID, "FIELD_INVALID", "name"),
        ("model", "YankModelVersion", {"name": "models/solar/versions/1"}, INVALID, "FIELD_INVALID", "reason"),
        (
            "model",
            "YankModelVersion",
            {"name": "models/solar/versions/9", "reason": "r"},
            MISSING,
            "RESOURCE_NOT_FOUND",
            None,
        ),
        ("model", "UnyankModelVersion", {"name": "models/solar/versions/9"}, MISSING, "RESOURCE_NOT_FOUND", None),
        ("operator", "CreateOperator", {"operator_id": "No Id"}, INVALID, "FIELD_INVALID", "operator_id"),
        ("operator", "CreateOperator", {"operator_id": "admin"}, TAKEN, "RESOURCE_EXISTS", "operator_id"),
        ("operator", "RevokeOperator", {"name": "admin"}, INVALID, "FIELD_INVALID", "name"),
        ("operator", "RevokeOperator", {"name": "operators/none"}, MISSING, "RESOURCE_NOT_FOUND", None),
        ("operator", "ListOperators", {"page_token": "x"}, INVALID, "PAGE_TOKEN_INVALID", "page_token"),
        ("audit", "ListAuditEvents", {"page_token": "x"}, INVALID, "PAGE_TOKEN_INVALID", "page_token"),
        (
            "audit",
            "ListAuditEvents",
            {"start_time": Timestamp(seconds=1 << 62)},
            INVALID,
            "FIELD_INVALID",
            "start_time",
        ),
    ],
)
async def test_what_cannot_be_is_refused(
    admin: Caller,
    *,
    service: str,
    method: str,
    fields: dict[str, Any],
    code: grpc.StatusCode,
    reason: str,
    field: str | None,
) -> None:
    before = await actions(admin)
    refusal = await refused(admin.call(service, method, **fields))
    assert (refusal.code, refusal.reason) == (code, reason), refusal.message
    assert field is None or refusal.field == field
    assert refusal.remedy
    assert await actions(admin) == before
