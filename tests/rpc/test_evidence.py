"""Evidence over mTLS, and what operators see of it."""

from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lineside.v1 import (
    evidence_pb2,
    evidence_service_pb2,
    evidence_service_pb2_grpc,
    result_service_pb2,
    result_service_pb2_grpc,
)

from controlplane.domain.errors import DomainError, Reason
from controlplane.domain.ids import AgentId
from controlplane.rpc.convert.evidence import (
    batch_from_proto,
    result_from_proto,
    result_to_proto,
    shadow_window_from_proto,
    shadow_window_to_proto,
    window_from_proto,
    window_to_proto,
)
from tests.support.factories import NOW, after_seconds, make_model, make_result, make_shadow_window, make_window
from tests.support.wire import Box, bearer, refused

ST_1 = AgentId("st-1")


def report_of(batch: int, **overrides: Any) -> evidence_service_pb2.ReportEvidenceRequest:
    results = [result_to_proto(make_result(part_id=f"{batch}-{index}")) for index in range(3)]
    fields = {"batch": batch, "windows": [window_to_proto(make_window())], "results": results, **overrides}
    return evidence_service_pb2.ReportEvidenceRequest(**fields)


async def report(box: Box, served: Any, request: evidence_service_pb2.ReportEvidenceRequest) -> bool:
    async with box.mtls_channel(served.fleet) as channel:
        stub: Any = evidence_service_pb2_grpc.EvidenceServiceStub(channel)
        return bool((await stub.ReportEvidence(request, timeout=20)).duplicate)


async def test_evidence_arrives_once_and_is_seen(served: Any) -> None:
    box = await served.agent("st-1")
    async with served.parts.store.write() as work:
        await work.models.add(make_model())
    assert [await report(box, served, report_of(number)) for number in (1, 1, 2)] == [False, True, False]
    async with box.tls_channel(served.api) as channel:
        stub: Any = result_service_pb2_grpc.ResultServiceStub(channel)
        listed = await stub.ListResults(
            result_service_pb2.ListResultsRequest(model="models/solar", version=1, agent="agents/st-1", page_size=4),
            metadata=bearer(served.operator_token),
        )
        metrics = await stub.QueryMetrics(
            result_service_pb2.QueryMetricsRequest(
                model="models/solar", by_agent=True, start_time=Timestamp(seconds=1)
            ),
            metadata=bearer(served.operator_token),
        )
    assert [result.name for result in listed.results] == [
        f"agents/st-1/results/{n}" for n in ("1-0", "1-1", "1-2", "2-0")
    ]
    assert listed.next_page_token
    (summary,) = metrics.summaries
    assert (summary.model_version, summary.agent, summary.device) == ("models/solar/versions/1", "agents/st-1", "CPU")
    assert (summary.inference_count, summary.error_count) == (20, 2)
    assert 0 < summary.latency_ms_p50 <= summary.latency_ms_p95 <= summary.latency_ms_p99


async def test_an_agent_reports_only_as_itself(served: Any) -> None:
    box = await served.agent("st-1")
    foreign = report_of(1, results=[result_to_proto(make_result(agent_id="st-2"))])
    async with box.mtls_channel(served.fleet) as channel:
        stub: Any = evidence_service_pb2_grpc.EvidenceServiceStub(channel)
        refusal = await refused(stub.ReportEvidence(foreign, timeout=20))
    assert (refusal.code, refusal.reason, refusal.field) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "NOT_YOURS",
        "results.agent",
    )
    assert refusal.remedy


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"model": "solar"}, "model"),
        ({"version": 1}, "version"),
        ({"model": "models/solar", "version": -1}, "version"),
        ({"agent": "models/x"}, "agent"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": "x"}, "page_token"),
    ],
)
async def test_bad_questions_name_field_and_remedy(served: Any, request_: dict[str, Any], field: str) -> None:
    async with served.box("nobody").tls_channel(served.api) as channel:
        stub: Any = result_service_pb2_grpc.ResultServiceStub(channel)
        refusal = await refused(
            stub.ListResults(result_service_pb2.ListResultsRequest(**request_), metadata=bearer(served.operator_token))
        )
    assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert refusal.remedy


def test_results_and_windows_survive_the_wire() -> None:
    result = make_result(infer_time=after_seconds(0.123456), error="no", batch_index=2)
    assert result_from_proto(result_to_proto(result), agent_id=ST_1, batch=1, index=0, field="r") == result
    window = make_window(start_time=NOW - timedelta(seconds=1))
    assert window_from_proto(window_to_proto(window), agent_id=ST_1, batch=1) == window
    counted = make_window(label_counts={"good": 8, "": 1}, omitted_count=3)
    assert window_from_proto(window_to_proto(counted), agent_id=ST_1, batch=1) == counted
    shadow = make_shadow_window(skipped=3, errors=1, score_distance_histogram=(1,) * 20)
    assert shadow_window_from_proto(shadow_window_to_proto(shadow), agent_id=ST_1, batch=1) == shadow


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"serving_version": "models/solar"}, "shadow_windows.serving_version"),
        ({"candidate_version": "models/weld/versions/2"}, "shadow_windows.candidate_version"),
        ({"candidate_version": "models/solar/versions/1"}, "shadow_windows.candidate_version"),
        ({"slot": "wind"}, "shadow_windows.serving_version"),
        ({"end_time": Timestamp(seconds=1 << 50)}, "shadow_windows.end_time"),
    ],
)
def test_shadow_windows_that_make_no_sense_are_refused(overrides: dict[str, Any], field: str) -> None:
    message = shadow_window_to_proto(make_shadow_window())
    message.MergeFrom(evidence_pb2.ShadowWindow(**overrides))
    with pytest.raises(DomainError) as refusal:
        batch_from_proto(evidence_service_pb2.ReportEvidenceRequest(shadow_windows=[message]), agent_id=ST_1)
    assert refusal.value.field == field
    assert refusal.value.remedy


def test_a_result_of_a_sample_has_no_name() -> None:
    assert result_to_proto(make_result(batch=-1, index=-1)).name == ""


@pytest.mark.parametrize(
    ("overrides", "field", "reason"),
    [
        ({"model_version": "models/solar"}, "results.model_version", Reason.FIELD_INVALID),
        ({"model_version": "models/solar/versions/0"}, "results.model_version", Reason.FIELD_INVALID),
        ({"model_version": "models/solar/versions/" + "9" * 30}, "results.model_version", Reason.FIELD_INVALID),
        ({"slot": "wind"}, "results.model_version", Reason.FIELD_INVALID),
        ({"outcome": evidence_pb2.Result.OUTCOME_UNSPECIFIED}, "results.outcome", Reason.FIELD_INVALID),
        ({"infer_time": Timestamp(seconds=1 << 50)}, "results.infer_time", Reason.FIELD_INVALID),
        ({"agent": "agents/st-2"}, "results.agent", Reason.NOT_YOURS),
    ],
)
def test_results_that_make_no_sense_are_refused(overrides: dict[str, Any], field: str, reason: Reason) -> None:
    message = result_to_proto(make_result())
    message.MergeFrom(evidence_pb2.Result(**{k: v for k, v in overrides.items() if k != "outcome"}))
    if "outcome" in overrides:
        message.outcome = overrides["outcome"]
    with pytest.raises(DomainError) as refusal:
        batch_from_proto(evidence_service_pb2.ReportEvidenceRequest(results=[message]), agent_id=ST_1)
    assert (refusal.value.field, refusal.value.reason) == (field, reason)
    assert refusal.value.remedy
