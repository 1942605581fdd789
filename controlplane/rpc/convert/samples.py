"""Samples on the wire."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from lineside.v1 import evidence_pb2, sample_pb2, sample_upload_service_pb2

from controlplane import limits
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import AgentId, SampleId, check_digest, check_resource_id
from controlplane.domain.sample import Sample, SampleReason
from controlplane.rpc.convert.evidence import check_own, result_from_proto, result_to_proto
from controlplane.rpc.convert.times import time_from_proto, time_to_proto

_REASONS_TO_PROTO = MappingProxyType(
    {
        SampleReason.RANDOM: sample_pb2.Sample.REASON_RANDOM,
        SampleReason.LEAST_CONFIDENCE: sample_pb2.Sample.REASON_LEAST_CONFIDENCE,
        SampleReason.MARGIN: sample_pb2.Sample.REASON_MARGIN,
        SampleReason.ENTROPY: sample_pb2.Sample.REASON_ENTROPY,
        SampleReason.CLASS_QUOTA: sample_pb2.Sample.REASON_CLASS_QUOTA,
        SampleReason.OUTLIER: sample_pb2.Sample.REASON_OUTLIER,
        SampleReason.SHADOW_DISAGREEMENT: sample_pb2.Sample.REASON_SHADOW_DISAGREEMENT,
        SampleReason.IMPORTED: sample_pb2.Sample.REASON_IMPORTED,
    }
)
_REASONS: Mapping[int, SampleReason] = MappingProxyType({wire: reason for reason, wire in _REASONS_TO_PROTO.items()})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def reason_from_proto(reason: int, *, field: str) -> SampleReason:
    if reason not in _REASONS:
        raise FieldInvalidError("it is not stated why", field=field, remedy=f"send one of {', '.join(SampleReason)}")
    return _REASONS[reason]


def sample_from_proto(request: sample_upload_service_pb2.UploadSampleRequest, *, agent_id: AgentId) -> Sample:
    """Return the sample as `agent_id`'s own; its create time is left to the use case. Raises ForbiddenError
    (NOT_YOURS) when it names another agent."""
    message = request.sample
    check_own(message.agent, agent_id=agent_id, field="sample.agent")
    result = result_from_proto(message.result, agent_id=agent_id, batch=-1, index=-1, field="sample.result")
    return Sample(
        id=SampleId(check_resource_id(request.sample_id, field="sample_id")),
        agent_id=agent_id,
        model_id=result.slot,
        capture_time=time_from_proto(message.capture_time, field="sample.capture_time"),
        create_time=_EPOCH,
        reason=_own_reason(message.reason),
        result=result,
        content_type=message.content_type,
        digest=check_digest(message.digest, field="sample.digest"),
        size_bytes=message.size_bytes,
        input_name=message.input_name,
        value=_value(message.value),
        input_statistics=_statistics(message.input_statistics),
        label_hint=message.label_hint,
    )


def _own_reason(reason: int) -> SampleReason:
    known = reason_from_proto(reason, field="sample.reason")
    if known is SampleReason.IMPORTED:
        raise FieldInvalidError(
            "an agent imports no samples", field="sample.reason", remedy="say why the agent has kept it"
        )
    return known


def _value(value: float) -> float:
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0


def _statistics(statistics: Mapping[str, float]) -> Mapping[str, float]:
    """Those that are numbers, within bounds."""
    ordered = sorted((name, value) for name, value in statistics.items() if math.isfinite(value))
    return MappingProxyType(dict(ordered[: limits.INPUT_STATISTICS_MAX]))


def _result_to_proto(sample: Sample) -> evidence_pb2.Result:
    """Of an imported sample, which was never inferred, only the part is known."""
    if sample.reason is SampleReason.IMPORTED:
        return evidence_pb2.Result(slot=sample.model_id, part_id=sample.result.part_id)
    return result_to_proto(sample.result)


def sample_to_proto(sample: Sample) -> sample_pb2.Sample:
    return sample_pb2.Sample(
        name=f"samples/{sample.id}",
        agent=f"agents/{sample.agent_id}" if sample.agent_id else "",
        capture_time=time_to_proto(sample.capture_time),
        create_time=time_to_proto(sample.create_time),
        reason=_REASONS_TO_PROTO[sample.reason],
        result=_result_to_proto(sample),
        content_type=sample.content_type,
        digest=sample.digest,
        size_bytes=sample.size_bytes,
        input_name=sample.input_name,
        value=sample.value,
        input_statistics=sample.input_statistics,
        label_hint=sample.label_hint,
        site=sample.place.site,
        line=sample.place.line,
        station=sample.place.station,
    )
