"""Drift over the wire: from what an agent reports to what an operator sees, and what is refused."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import grpc
import pytest
from lineside.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    drift_pb2,
    drift_service_pb2,
    drift_service_pb2_grpc,
    evidence_service_pb2,
    evidence_service_pb2_grpc,
)

from controlplane.app.drift import DriftTicks
from controlplane.domain.errors import DomainError, Reason
from controlplane.domain.evidence import MetricWindow
from controlplane.rpc.convert.drift import parse_drift_name
from controlplane.rpc.convert.evidence import window_to_proto
from controlplane.rpc.convert.times import time_to_proto
from tests.support.drifting import Line, shifted
from tests.support.factories import after_seconds
from tests.support.wire import Box, bearer, refused

SLOT = "agents/st-1/drifts/solar"
UNKNOWN_STATE = cast("drift_pb2.Drift.State.ValueType", 99)
"""Of a newer contract."""


async def report(box: Box, served: Any, windows: Sequence[MetricWindow]) -> None:
    async with box.mtls_channel(served.fleet) as channel:
        stub: Any = evidence_service_pb2_grpc.EvidenceServiceStub(channel)
        for window in windows:
            request = evidence_service_pb2.ReportEvidenceRequest(batch=window.batch, windows=[window_to_proto(window)])
            await stub.ReportEvidence(request, timeout=20)
    parts = served.parts
    ticks = DriftTicks(store=parts.store, clock=parts.clock, ids=parts.ids, notifier=parts.notices)
    await ticks.tick(parts.clock.now())


async def test_what_an_agent_reports_is_seen_as_drift(served: Any) -> None:
    box, line = await served.agent("st-1"), Line()
    await report(box, served, line.windows(30))
    metadata = bearer(served.operator_token)
    async with box.tls_channel(served.api) as channel:
        drifts: Any = drift_service_pb2_grpc.DriftServiceStub(channel)
        watch = drifts.WatchDrifts(drift_service_pb2.WatchDriftsRequest(model="models/solar"), metadata=metadata)
        assert not (await watch.read()).drifts
        await report(box, served, line.windows(12, shifted(0.3)))
        async with asyncio.timeout(10):
            told = await watch.read()
        watch.cancel()
        listed = await drifts.ListDrifts(drift_service_pb2.ListDriftsRequest(), metadata=metadata)
        whole = await drifts.GetDrift(drift_service_pb2.GetDriftRequest(name=SLOT), metadata=metadata)
        history = await drifts.QueryDriftHistory(
            drift_service_pb2.QueryDriftHistoryRequest(
                name=SLOT,
                start_time=time_to_proto(after_seconds(0)),
                end_time=time_to_proto(after_seconds(90)),
                points=9,
            ),
            metadata=metadata,
        )
        agents: Any = agent_service_pb2_grpc.AgentServiceStub(channel)
        agent = await agents.GetAgent(agent_service_pb2.GetAgentRequest(name="agents/st-1"), metadata=metadata)
        await drifts.RelearnDrift(
            drift_service_pb2.RelearnDriftRequest(name=f"{SLOT}@1", reason="a new lamp"), metadata=metadata
        )
        audit: Any = audit_service_pb2_grpc.AuditServiceStub(channel)
        logged = await audit.ListAuditEvents(
            audit_service_pb2.ListAuditEventsRequest(resource=f"{SLOT}@1", oldest_first=True), metadata=metadata
        )
    assert [drift.name for drift in told.drifts] == [f"{SLOT}@1"]
    assert [event.action for event in told.events] == ["drift.begin"]
    (drift,) = listed.drifts
    assert (drift.state, drift.serving, drift.inference_count) == (drift_pb2.Drift.STATE_DRIFTED, True, 42 * 50)
    assert dict(drift.labels)["line"] == "3"
    first = drift.statistics[0]
    assert (first.name, first.drifted, len(first.reference_bins)) == ("sharpness", True, 0)
    assert first.evidence_log10 > first.evidence_needed_log10
    assert [len(one.reference_bins) for one in whole.statistics if one.name == "sharpness"] == [32]
    assert len(history.points) == 9
    assert history.points[-1].distances["sharpness"] > 0.5
    (condition,) = [one for one in agent.conditions if one.type == "InputsDrifted"]
    assert "sharpness" in condition.message
    assert [(event.actor, event.action) for event in logged.audit_events] == [
        ("rules/drift", "drift.begin"),
        ("operators/admin", "drift.relearn"),
    ]


async def test_an_application_that_only_goes_idle_and_an_agent_that_restarts_are_not_flagged(served: Any) -> None:
    box, line = await served.agent("st-1"), Line()
    await report(box, served, line.windows(30))
    line.batch += 1 << 32
    await report(box, served, [*line.windows(3, size=1), *line.windows(20)])
    metadata = bearer(served.operator_token)
    async with box.tls_channel(served.api) as channel:
        drifts: Any = drift_service_pb2_grpc.DriftServiceStub(channel)
        found = await drifts.GetDrift(drift_service_pb2.GetDriftRequest(name=SLOT), metadata=metadata)
    assert (found.state, found.inference_count) == (drift_pb2.Drift.STATE_STEADY, 50 * 50 + 3)


@pytest.mark.parametrize(
    ("method", "request_", "code", "field"),
    [
        ("GetDrift", drift_service_pb2.GetDriftRequest(name="models/solar"), "INVALID_ARGUMENT", "name"),
        ("GetDrift", drift_service_pb2.GetDriftRequest(name=SLOT), "NOT_FOUND", "name"),
        ("ListDrifts", drift_service_pb2.ListDriftsRequest(state=UNKNOWN_STATE), "INVALID_ARGUMENT", "state"),
        ("ListDrifts", drift_service_pb2.ListDriftsRequest(page_token="x"), "INVALID_ARGUMENT", "page_token"),
        ("RelearnDrift", drift_service_pb2.RelearnDriftRequest(name=SLOT), "INVALID_ARGUMENT", "reason"),
        (
            "QueryDriftHistory",
            drift_service_pb2.QueryDriftHistoryRequest(name=SLOT, points=-1),
            "INVALID_ARGUMENT",
            "points",
        ),
    ],
)
async def test_bad_requests_are_refused(served: Any, method: str, request_: Any, code: str, field: str) -> None:
    box = served.box("operator")
    async with box.tls_channel(served.api) as channel:
        stub: Any = drift_service_pb2_grpc.DriftServiceStub(channel)
        refusal = await refused(getattr(stub, method)(request_, metadata=bearer(served.operator_token)))
    assert (refusal.code, refusal.field) == (grpc.StatusCode[code], field)


def test_drifts_are_named_by_slot_and_version() -> None:
    assert parse_drift_name("agents/st-1/drifts/solar-7@12", field="name") == ("st-1", "solar-7", 12)
    assert parse_drift_name("agents/st-1/drifts/solar-7", field="name") == ("st-1", "solar-7", None)
    for name in (
        "",
        "agents/st-1",
        "agents/st-1/drifts/",
        "agents/st-1/drifts/a@",
        "agents/st-1/drifts/a@x",
        "a/b/c/d",
    ):
        with pytest.raises(DomainError) as raised:
            parse_drift_name(name, field="name")
        assert raised.value.reason is Reason.FIELD_INVALID
