"""Answers about results on the wire."""

from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf.struct_pb2 import ListValue
from lineside.v1 import result_service_pb2

from controlplane.app.result_questions import (
    JudgementSource,
    QueryAnswer,
    RejudgedPart,
    Rejudgement,
    RejudgeQuestion,
)
from controlplane.app.results import TracedResult
from controlplane.domain.errors import FieldInvalidError
from controlplane.rpc.convert.evidence import result_to_proto
from controlplane.rpc.convert.names import parse_version_name
from controlplane.rpc.convert.times import time_from_proto

_SOURCES: Mapping[JudgementSource, result_service_pb2.RejudgedPart.Source.ValueType] = MappingProxyType(
    {
        JudgementSource.RESULT: result_service_pb2.RejudgedPart.SOURCE_RESULT,
        JudgementSource.SAMPLE: result_service_pb2.RejudgedPart.SOURCE_SAMPLE,
    }
)


def answer_to_proto(told: QueryAnswer) -> result_service_pb2.QueryResultsResponse:
    rows = []
    for row in told.answer.rows:
        message = ListValue()
        message.extend(row)
        rows.append(message)
    return result_service_pb2.QueryResultsResponse(
        columns=[result_service_pb2.QueryColumn(name=name, type=kind) for name, kind in told.answer.columns],
        rows=rows,
        truncated=told.answer.truncated,
        file_count=told.file_count,
        file_bytes=told.file_bytes,
    )


def traced_to_proto(traced: TracedResult) -> result_service_pb2.TracedResult:
    return result_service_pb2.TracedResult(
        result=result_to_proto(traced.result),
        site=traced.place.site,
        line=traced.place.line,
        station=traced.place.station,
        sample=f"samples/{traced.sample_id}" if traced.sample_id is not None else "",
    )


def question_from_proto(request: result_service_pb2.RejudgePartsRequest) -> RejudgeQuestion:
    """Return the question; raises FieldInvalidError for versions that are none, or of two models."""
    model_id, passed = parse_version_name(request.passed_version, field="passed_version")
    other_id, judging = parse_version_name(request.judging_version, field="judging_version")
    if other_id != model_id:
        raise FieldInvalidError(
            f"{request.judging_version} is of another model",
            field="judging_version",
            remedy=f"name a version of models/{model_id}",
        )
    return RejudgeQuestion(
        model_id=model_id,
        passed_version=passed,
        judging_version=judging,
        good_labels=tuple(request.good_labels),
        start_time=time_from_proto(request.start_time, field="start_time") if request.HasField("start_time") else None,
        end_time=time_from_proto(request.end_time, field="end_time") if request.HasField("end_time") else None,
    )


def rejudgement_to_proto(told: Rejudgement) -> result_service_pb2.RejudgePartsResponse:
    return result_service_pb2.RejudgePartsResponse(
        parts=map(_part_to_proto, told.parts),
        next_page_token=told.next_token,
        passed_parts=told.passed_parts,
        judged_parts=told.judged_parts,
    )


def _part_to_proto(part: RejudgedPart) -> result_service_pb2.RejudgedPart:
    return result_service_pb2.RejudgedPart(
        part_id=part.part_id,
        passed=result_to_proto(part.passed),
        judged=result_to_proto(part.judged),
        source=_SOURCES[part.source],
    )
