"""Batches, results, metric windows, and samples with the result they got."""

from datetime import datetime
from types import MappingProxyType
from typing import Any

from controlplane.app.ports import WindowPlace
from controlplane.domain.evidence import (
    EvidenceBatch,
    Histogram,
    LabelScore,
    LatencySketch,
    MetricWindow,
    Result,
    ResultOutcome,
    ShadowTally,
    ShadowWindow,
    Tally,
)
from controlplane.domain.ids import AgentId, Digest, ModelId, SampleId
from controlplane.domain.lake import Place
from controlplane.domain.sample import Sample, SampleReason
from controlplane.store.mapping.values import Row, float_from_json, float_to_json, time_from_json, time_to_json


def batch_to_row(batch: EvidenceBatch) -> dict[str, Any]:
    return {
        "agent_id": batch.agent_id,
        "batch": batch.batch,
        "receive_time": batch.receive_time,
        "dropped_results": batch.dropped_results,
        "omitted_results": batch.omitted_results,
    }


def result_to_json(result: Result) -> dict[str, Any]:
    """As a sample keeps it; `result_from_row` reads it, once its time is one."""
    return {
        "agent_id": result.agent_id,
        "batch": result.batch,
        "result_index": result.index,
        "model_id": result.slot,
        "version": result.version,
        "device": result.device,
        "infer_time": result.infer_time,
        "part_id": result.part_id,
        "request_id": result.request_id,
        "outcome": result.outcome.value,
        "labels": [[score.label, float_to_json(score.score)] for score in result.labels],
        "latency_us": result.latency_us,
        "error": result.error,
        "batch_index": result.batch_index,
        "lot": result.lot,
        "application": result.application,
    }


def result_from_row(row: Row) -> Result:
    return Result(
        agent_id=AgentId(row["agent_id"]),
        batch=row["batch"],
        index=row["result_index"],
        slot=ModelId(row["model_id"]),
        version=row["version"],
        device=row["device"],
        infer_time=row["infer_time"],
        part_id=row["part_id"],
        request_id=row["request_id"],
        outcome=ResultOutcome(row["outcome"]),
        labels=tuple(LabelScore(label=label, score=float_from_json(score)) for label, score in row["labels"]),
        latency_us=row["latency_us"],
        error=row["error"],
        batch_index=row["batch_index"],
        # The table before the lake has neither, and so have samples of that time.
        lot=row.get("lot", ""),
        application=row.get("application", ""),
    )


def window_to_row(window: MetricWindow, *, window_index: int, receive_time: datetime) -> dict[str, Any]:
    """`window_index` is its place in the batch; `receive_time` is the batch's, copied so that gates can seek by it."""
    return {
        "agent_id": window.agent_id,
        "batch": window.batch,
        "window_index": window_index,
        "model_id": window.slot,
        "version": window.version,
        "device": window.device,
        "start_time": window.start_time,
        "end_time": window.end_time,
        "receive_time": receive_time,
        "inference_count": window.inference_count,
        "error_count": window.error_count,
        "refused_count": window.refused_count,
        "latency": _sketch_to_json(window.latency),
        "confidence_histogram": list(window.confidence_histogram),
        "label_counts": dict(window.label_counts),
        "input_statistics": {name: _histogram_to_json(one) for name, one in window.input_statistics.items()},
        "omitted_count": window.omitted_count,
    }


def window_from_row(row: Row) -> MetricWindow:
    return MetricWindow(
        agent_id=AgentId(row["agent_id"]),
        batch=row["batch"],
        slot=ModelId(row["model_id"]),
        version=row["version"],
        device=row["device"],
        start_time=row["start_time"],
        end_time=row["end_time"],
        inference_count=row["inference_count"],
        error_count=row["error_count"],
        refused_count=row["refused_count"],
        latency=_sketch_from_json(row["latency"]),
        confidence_histogram=tuple(row["confidence_histogram"]),
        label_counts=MappingProxyType(dict(row["label_counts"])),
        input_statistics=MappingProxyType(
            {name: _histogram_from_json(one) for name, one in sorted(row["input_statistics"].items())}
        ),
        omitted_count=row["omitted_count"],
    )


def _histogram_to_json(histogram: Histogram) -> dict[str, Any]:
    return {"low": histogram.low, "high": histogram.high, "bin_counts": list(histogram.bin_counts)}


def _histogram_from_json(value: Row) -> Histogram:
    return Histogram(low=value["low"], high=value["high"], bin_counts=tuple(value["bin_counts"]))


def placed_window_from_row(row: Row) -> tuple[WindowPlace, MetricWindow]:
    """The window with its place, the key of a page."""
    window = window_from_row(row)
    return (window.start_time, window.agent_id, window.batch, row["window_index"]), window


def tally_from_row(row: Row) -> Tally:
    """One window as what its agent did in it, for adding up."""
    inferences = row["inference_count"]
    return Tally(
        agent_id=AgentId(row["agent_id"]),
        inferences=inferences,
        errors=row["error_count"],
        latency=_sketch_from_json(row["latency"]),
        confidence_histogram=tuple(row["confidence_histogram"]),
        label_counts=MappingProxyType(dict(row["label_counts"])),
        active_seconds=(row["end_time"] - row["start_time"]).total_seconds(),
        paced_inferences=max(0, inferences - 1),
        last_receive_time=row["receive_time"],
    )


def shadow_window_to_row(window: ShadowWindow, *, window_index: int, receive_time: datetime) -> dict[str, Any]:
    """As `window_to_row`."""
    return {
        "agent_id": window.agent_id,
        "batch": window.batch,
        "window_index": window_index,
        "model_id": window.slot,
        "serving_version": window.serving_version,
        "candidate_version": window.candidate_version,
        "device": window.device,
        "start_time": window.start_time,
        "end_time": window.end_time,
        "receive_time": receive_time,
        "compared": window.compared,
        "agreed": window.agreed,
        "errors": window.errors,
        "skipped": window.skipped,
        "candidate_latency": _sketch_to_json(window.candidate_latency),
        "serving_latency": _sketch_to_json(window.serving_latency),
        "score_distance_histogram": list(window.score_distance_histogram),
    }


def shadow_window_from_row(row: Row) -> ShadowWindow:
    return ShadowWindow(
        agent_id=AgentId(row["agent_id"]),
        batch=row["batch"],
        slot=ModelId(row["model_id"]),
        serving_version=row["serving_version"],
        candidate_version=row["candidate_version"],
        device=row["device"],
        start_time=row["start_time"],
        end_time=row["end_time"],
        compared=row["compared"],
        agreed=row["agreed"],
        errors=row["errors"],
        skipped=row["skipped"],
        candidate_latency=_sketch_from_json(row["candidate_latency"]),
        serving_latency=_sketch_from_json(row["serving_latency"]),
        score_distance_histogram=tuple(row["score_distance_histogram"]),
    )


def shadow_tally_from_row(row: Row) -> ShadowTally:
    """One window as what was compared in it, for adding up."""
    return ShadowTally(
        agent_id=AgentId(row["agent_id"]),
        compared=row["compared"],
        agreed=row["agreed"],
        errors=row["errors"],
        skipped=row["skipped"],
        candidate_latency=_sketch_from_json(row["candidate_latency"]),
        serving_latency=_sketch_from_json(row["serving_latency"]),
        score_distance_histogram=tuple(row["score_distance_histogram"]),
        last_receive_time=row["receive_time"],
    )


def sample_to_row(sample: Sample) -> dict[str, Any]:
    result = result_to_json(sample.result)
    return {
        "id": sample.id,
        "agent_id": sample.agent_id,
        "model_id": sample.model_id,
        "capture_time": sample.capture_time,
        "create_time": sample.create_time,
        "reason": sample.reason.value,
        "result": {**result, "infer_time": time_to_json(result["infer_time"])},
        "content_type": sample.content_type,
        "digest": sample.digest,
        "size_bytes": sample.size_bytes,
        "input_name": sample.input_name,
        "value": sample.value,
        "input_statistics": dict(sample.input_statistics),
        "label_hint": sample.label_hint,
        "part_id": sample.result.part_id,
        "place": {"site": sample.place.site, "line": sample.place.line, "station": sample.place.station},
    }


def sample_from_row(row: Row) -> Sample:
    result = row["result"]
    return Sample(
        id=SampleId(row["id"]),
        agent_id=AgentId(row["agent_id"]),
        model_id=ModelId(row["model_id"]),
        capture_time=row["capture_time"],
        create_time=row["create_time"],
        reason=SampleReason(row["reason"]),
        result=result_from_row({**result, "infer_time": time_from_json(result["infer_time"])}),
        content_type=row["content_type"],
        digest=Digest(row["digest"]),
        size_bytes=row["size_bytes"],
        input_name=row["input_name"],
        value=row["value"],
        input_statistics=MappingProxyType(dict(sorted(row["input_statistics"].items()))),
        label_hint=row["label_hint"],
        place=Place.of(row["place"]),
    )


def _sketch_to_json(sketch: LatencySketch) -> dict[str, Any]:
    return {
        "relative_accuracy": float_to_json(sketch.relative_accuracy),
        "first_bin_key": sketch.first_bin_key,
        "bin_counts": list(sketch.bin_counts),
        "zero_count": sketch.zero_count,
        "count": sketch.count,
        "sum_ms": float_to_json(sketch.sum_ms),
        "min_ms": float_to_json(sketch.min_ms),
        "max_ms": float_to_json(sketch.max_ms),
    }


def _sketch_from_json(value: Row) -> LatencySketch:
    return LatencySketch(
        relative_accuracy=float_from_json(value["relative_accuracy"]),
        first_bin_key=value["first_bin_key"],
        bin_counts=tuple(value["bin_counts"]),
        zero_count=value["zero_count"],
        count=value["count"],
        sum_ms=float_from_json(value["sum_ms"]),
        min_ms=float_from_json(value["min_ms"]),
        max_ms=float_from_json(value["max_ms"]),
    )
