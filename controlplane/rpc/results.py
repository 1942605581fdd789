"""ResultService."""

from datetime import datetime

from lineside.v1 import result_service_pb2, result_service_pb2_grpc

from controlplane.app.metrics import Metrics
from controlplane.app.result_questions import ResultQuestions
from controlplane.app.results import Results
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.lake import ResultFilter, ResultSpan
from controlplane.rpc.authentication import Context
from controlplane.rpc.convert.evidence import result_to_proto, summary_to_proto
from controlplane.rpc.convert.names import parse_agent_name, parse_model_name
from controlplane.rpc.convert.results import answer_to_proto, question_from_proto, rejudgement_to_proto, traced_to_proto
from controlplane.rpc.convert.times import time_from_proto


class ResultServicer(result_service_pb2_grpc.ResultServiceServicer):
    """Results and metrics, for operators."""

    def __init__(self, *, results: Results, questions: ResultQuestions, metrics: Metrics) -> None:
        self._results = results
        self._questions = questions
        self._metrics = metrics

    async def ListResults(
        self, request: result_service_pb2.ListResultsRequest, context: Context
    ) -> result_service_pb2.ListResultsResponse:
        page = await self._results.list(
            filter_from_proto(request),
            page_size=request.page_size,
            page_token=request.page_token,
            newest_first=request.newest_first,
        )
        return result_service_pb2.ListResultsResponse(
            results=map(result_to_proto, page.items), next_page_token=page.next_token
        )

    async def QueryMetrics(
        self, request: result_service_pb2.QueryMetricsRequest, context: Context
    ) -> result_service_pb2.QueryMetricsResponse:
        start, end = _times(request)
        summaries = await self._metrics.query(
            parse_model_name(request.model, field="model"),
            start_time=start,
            end_time=end,
            by_agent=request.by_agent,
        )
        return result_service_pb2.QueryMetricsResponse(summaries=map(summary_to_proto, summaries))

    async def QueryResults(
        self, request: result_service_pb2.QueryResultsRequest, context: Context
    ) -> result_service_pb2.QueryResultsResponse:
        start, end = _times(request)
        model = parse_model_name(request.model, field="model") if request.model else None
        told = await self._questions.query(
            request.sql,
            span=ResultSpan(start_time=start, end_time=end, model_id=model),
            row_limit=request.row_limit,
        )
        return answer_to_proto(told)

    async def TracePart(
        self, request: result_service_pb2.TracePartRequest, context: Context
    ) -> result_service_pb2.TracePartResponse:
        page = await self._results.trace(request.part_id, page_size=request.page_size, page_token=request.page_token)
        return result_service_pb2.TracePartResponse(
            results=map(traced_to_proto, page.items), next_page_token=page.next_token
        )

    async def RejudgeParts(
        self, request: result_service_pb2.RejudgePartsRequest, context: Context
    ) -> result_service_pb2.RejudgePartsResponse:
        told = await self._questions.rejudge(
            question_from_proto(request), page_size=request.page_size, page_token=request.page_token
        )
        return rejudgement_to_proto(told)


def _times(
    request: result_service_pb2.QueryMetricsRequest | result_service_pb2.QueryResultsRequest,
) -> tuple[datetime | None, datetime | None]:
    start = time_from_proto(request.start_time, field="start_time") if request.HasField("start_time") else None
    end = time_from_proto(request.end_time, field="end_time") if request.HasField("end_time") else None
    return start, end


def filter_from_proto(request: result_service_pb2.ListResultsRequest) -> ResultFilter:
    """Return the filter; fields that are not set mean any."""
    if request.version < 0 or (request.version and not request.model):
        raise FieldInvalidError(
            "a version is a number of a model", field="version", remedy="name the model too, and a version from 1"
        )
    return ResultFilter(
        model_id=parse_model_name(request.model, field="model") if request.model else None,
        version=request.version or None,
        agent_id=parse_agent_name(request.agent, field="agent") if request.agent else None,
        part_id=request.part_id or None,
    )
