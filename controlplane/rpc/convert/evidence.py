"""Evidence on the wire."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from lineside.v1 import evidence_pb2, evidence_service_pb2, result_service_pb2

from controlplane.app.metrics import MetricSummary
from controlplane.domain.distribution import quantile_ms
from controlplane.domain.errors import FieldInvalidError, ForbiddenError, Reason
from controlplane.domain.evidence import (
    EvidenceBatch,
    LabelScore,
    LatencySketch,
    MetricWindow,
    Result,
    ResultOutcome,
    SentResults,
    ShadowWindow,
)
from controlplane.domain.ids import AgentId, Digest, ModelId
from controlplane.rpc.convert.input_statistics import input_statistics_from_proto, input_statistics_to_proto
from controlplane.rpc.convert.names import parse_version_name, version_name
from controlplane.rpc.convert.times import time_from_proto, time_to_proto

_OUTCOMES: Mapping[int, ResultOutcome] = MappingProxyType(
    {
        evidence_pb2.Result.OUTCOME_OK: ResultOutcome.OK,
        evidence_pb2.Result.OUTCOME_ERROR: ResultOutcome.ERROR,
    }
)
_OUTCOMES_TO_PROTO = MappingProxyType(
    {
        ResultOutcome.OK: evidence_pb2.Result.OUTCOME_OK,
        ResultOutcome.ERROR: evidence_pb2.Result.OUTCOME_ERROR,
    }
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def batch_from_proto(message: evidence_service_pb2.ReportEvidenceRequest, *, agent_id: AgentId) -> EvidenceBatch:
    """Return the batch as `agent_id`'s own; its receive time is left to the use case. Raises ForbiddenError
    (NOT_YOURS) when a result names another agent."""
    return EvidenceBatch(
        agent_id=agent_id,
        batch=message.batch,
        receive_time=_EPOCH,
        windows=tuple(window_from_proto(window, agent_id=agent_id, batch=message.batch) for window in message.windows),
        results=tuple(
            result_from_proto(result, agent_id=agent_id, batch=message.batch, index=index, field="results")
            for index, result in enumerate(message.results)
        ),
        dropped_results=message.dropped_results,
        omitted_results=message.omitted_results,
        files=tuple(
            SentResults(
                digest=Digest(file.digest),
                size_bytes=file.size_bytes,
                rows=file.row_count,
                content=file.content,
                upload_key=file.upload_key,
            )
            for file in message.result_files
        ),
        shadow_windows=tuple(
            shadow_window_from_proto(window, agent_id=agent_id, batch=message.batch)
            for window in message.shadow_windows
        ),
    )


def window_from_proto(message: evidence_pb2.MetricWindow, *, agent_id: AgentId, batch: int) -> MetricWindow:
    slot, version = _slot_version(message.slot, message.model_version, field="windows.model_version")
    return MetricWindow(
        agent_id=agent_id,
        batch=batch,
        slot=slot,
        version=version,
        device=message.device,
        start_time=time_from_proto(message.start_time, field="windows.start_time"),
        end_time=time_from_proto(message.end_time, field="windows.end_time"),
        inference_count=message.inference_count,
        error_count=message.error_count,
        refused_count=message.refused_count,
        latency=_sketch_from_proto(message.latency),
        confidence_histogram=tuple(message.confidence_histogram),
        label_counts=MappingProxyType(dict(message.label_counts)),
        input_statistics=input_statistics_from_proto(message.input_statistics),
        omitted_count=message.omitted_count,
    )


def window_to_proto(window: MetricWindow) -> evidence_pb2.MetricWindow:
    return evidence_pb2.MetricWindow(
        slot=window.slot,
        model_version=version_name(window.slot, window.version),
        device=window.device,
        start_time=time_to_proto(window.start_time),
        end_time=time_to_proto(window.end_time),
        inference_count=window.inference_count,
        error_count=window.error_count,
        refused_count=window.refused_count,
        latency=_sketch_to_proto(window.latency),
        confidence_histogram=window.confidence_histogram,
        label_counts=window.label_counts,
        input_statistics=input_statistics_to_proto(window.input_statistics),
        omitted_count=window.omitted_count,
    )


def shadow_window_from_proto(message: evidence_pb2.ShadowWindow, *, agent_id: AgentId, batch: int) -> ShadowWindow:
    """Raises FieldInvalidError unless both versions are of the slot's model, and differ."""
    slot, serving = _slot_version(message.slot, message.serving_version, field="shadow_windows.serving_version")
    _, candidate = _slot_version(slot, message.candidate_version, field="shadow_windows.candidate_version")
    if candidate == serving:
        raise FieldInvalidError(
            f"{message.candidate_version} is compared with itself",
            field="shadow_windows.candidate_version",
            remedy="report the version that answered and another one",
        )
    return ShadowWindow(
        agent_id=agent_id,
        batch=batch,
        slot=slot,
        serving_version=serving,
        candidate_version=candidate,
        device=message.device,
        start_time=time_from_proto(message.start_time, field="shadow_windows.start_time"),
        end_time=time_from_proto(message.end_time, field="shadow_windows.end_time"),
        compared=message.compared_count,
        agreed=message.agreed_count,
        errors=message.error_count,
        skipped=message.skipped_count,
        candidate_latency=_sketch_from_proto(message.candidate_latency),
        serving_latency=_sketch_from_proto(message.serving_latency),
        score_distance_histogram=tuple(message.score_distance_histogram),
    )


def shadow_window_to_proto(window: ShadowWindow) -> evidence_pb2.ShadowWindow:
    return evidence_pb2.ShadowWindow(
        slot=window.slot,
        serving_version=version_name(window.slot, window.serving_version),
        candidate_version=version_name(window.slot, window.candidate_version),
        device=window.device,
        start_time=time_to_proto(window.start_time),
        end_time=time_to_proto(window.end_time),
        compared_count=window.compared,
        agreed_count=window.agreed,
        error_count=window.errors,
        skipped_count=window.skipped,
        candidate_latency=_sketch_to_proto(window.candidate_latency),
        serving_latency=_sketch_to_proto(window.serving_latency),
        score_distance_histogram=window.score_distance_histogram,
    )


def result_from_proto(message: evidence_pb2.Result, *, agent_id: AgentId, batch: int, index: int, field: str) -> Result:
    """Return the result as `agent_id`'s own. Raises ForbiddenError (NOT_YOURS) when it names another agent."""
    check_own(message.agent, agent_id=agent_id, field=f"{field}.agent")
    slot, version = _slot_version(message.slot, message.model_version, field=f"{field}.model_version")
    return Result(
        agent_id=agent_id,
        batch=batch,
        index=index,
        slot=slot,
        version=version,
        device=message.device,
        infer_time=time_from_proto(message.infer_time, field=f"{field}.infer_time"),
        part_id=message.part_id,
        request_id=message.request_id,
        outcome=_outcome(message.outcome, field=f"{field}.outcome"),
        labels=tuple(LabelScore(label=label.label, score=label.score) for label in message.labels),
        latency_us=message.latency_us,
        error=message.error,
        batch_index=message.batch_index,
        lot=message.lot,
        application=message.application,
    )


def result_to_proto(result: Result) -> evidence_pb2.Result:
    """Return the result; its name is empty where its place in a batch is not known."""
    known = result.batch >= 0 and result.index >= 0
    return evidence_pb2.Result(
        name=f"agents/{result.agent_id}/results/{result.batch}-{result.index}" if known else "",
        agent=f"agents/{result.agent_id}",
        slot=result.slot,
        model_version=version_name(result.slot, result.version),
        device=result.device,
        infer_time=time_to_proto(result.infer_time),
        part_id=result.part_id,
        request_id=result.request_id,
        outcome=_OUTCOMES_TO_PROTO[result.outcome],
        labels=[evidence_pb2.LabelScore(label=label.label, score=label.score) for label in result.labels],
        latency_us=result.latency_us,
        error=result.error,
        batch_index=result.batch_index,
        lot=result.lot,
        application=result.application,
    )


def summary_to_proto(summary: MetricSummary) -> result_service_pb2.MetricSummary:
    return result_service_pb2.MetricSummary(
        model_version=version_name(summary.model_id, summary.version),
        agent=f"agents/{summary.agent_id}" if summary.agent_id is not None else "",
        device=summary.device or "",
        start_time=time_to_proto(summary.start_time),
        end_time=time_to_proto(summary.end_time),
        inference_count=summary.inference_count,
        error_count=summary.error_count,
        refused_count=summary.refused_count,
        latency_ms_p50=quantile_ms(summary.latency, 0.50),
        latency_ms_p95=quantile_ms(summary.latency, 0.95),
        latency_ms_p99=quantile_ms(summary.latency, 0.99),
        confidence_histogram=summary.confidence_histogram,
        dropped_results=summary.dropped_results,
        omitted_count=summary.omitted_count,
    )


def check_own(name: str, *, agent_id: AgentId, field: str) -> None:
    """Raise ForbiddenError (NOT_YOURS) when a message names another agent than the one that calls."""
    if name and name != f"agents/{agent_id}":
        raise ForbiddenError(
            f"{name[:100]!r} is not agents/{agent_id}, whose certificate this is",
            field=field,
            remedy="report as yourself, or leave it empty",
            reason=Reason.NOT_YOURS,
        )


def _slot_version(slot: str, model_version: str, *, field: str) -> tuple[ModelId, int]:
    model_id, version = parse_version_name(model_version, field=field)
    if slot and slot != model_id:
        raise FieldInvalidError(
            f"slot {slot[:100]!r} is of another model than {model_version}",
            field=field,
            remedy="a slot is named after its model",
        )
    return model_id, version


def _outcome(outcome: int, *, field: str) -> ResultOutcome:
    if outcome not in _OUTCOMES:
        raise FieldInvalidError("it is not stated how the inference ended", field=field, remedy="send OK or ERROR")
    return _OUTCOMES[outcome]


def _sketch_from_proto(message: evidence_pb2.LatencySketch) -> LatencySketch:
    return LatencySketch(
        relative_accuracy=message.relative_accuracy,
        first_bin_key=message.first_bin_key,
        bin_counts=tuple(message.bin_counts),
        zero_count=message.zero_count,
        count=message.count,
        sum_ms=message.sum_ms,
        min_ms=message.min_ms,
        max_ms=message.max_ms,
    )


def _sketch_to_proto(sketch: LatencySketch) -> evidence_pb2.LatencySketch:
    return evidence_pb2.LatencySketch(
        relative_accuracy=sketch.relative_accuracy,
        first_bin_key=sketch.first_bin_key,
        bin_counts=sketch.bin_counts,
        zero_count=sketch.zero_count,
        count=sketch.count,
        sum_ms=sketch.sum_ms,
        min_ms=sketch.min_ms,
        max_ms=sketch.max_ms,
    )
