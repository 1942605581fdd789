"""Results and metrics: what came back from the line."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from lineside.v1 import evidence_pb2, result_service_pb2, result_service_pb2_grpc

from controlplane.client import limits
from controlplane.client.channel import Connection
from controlplane.client.names import agent_name, model_name
from controlplane.client.pages import iterate


class Results:
    """Calls of ResultService."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = result_service_pb2_grpc.ResultServiceStub(connection.api)

    def list(
        self,
        *,
        model: str = "",
        version: int = 0,
        agent: str = "",
        part_id: str = "",
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[evidence_pb2.Result]:
        """Yield results in the order of their arrival, or newest first; version 0 means every one."""

        def fetch(size: int, token: str) -> tuple[list[evidence_pb2.Result], str]:
            request = result_service_pb2.ListResultsRequest(
                model=model_name(model) if model else "",
                version=version,
                agent=agent_name(agent) if agent else "",
                part_id=part_id,
                newest_first=newest_first,
                page_size=size,
                page_token=token,
            )
            page = self._connection.call(self._stub.ListResults, request)
            return [*page.results], page.next_page_token

        return iterate(fetch, limit=limit)

    def metrics(
        self,
        model: str,
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        by_agent: bool = False,
    ) -> tuple[result_service_pb2.MetricSummary, ...]:
        """Return merged metrics, a row for each version, or for each version, agent and device. Times are aware."""
        request = result_service_pb2.QueryMetricsRequest(model=model_name(model), by_agent=by_agent)
        if start_time is not None:
            request.start_time.FromDatetime(start_time)
        if end_time is not None:
            request.end_time.FromDatetime(end_time)
        return tuple(self._connection.call(self._stub.QueryMetrics, request).summaries)

    def query(
        self,
        sql: str,
        *,
        model: str = "",
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        row_limit: int = 0,
    ) -> result_service_pb2.QueryResultsResponse:
        """Answer one SELECT over the table `results`. A model and times, which are aware, leave out files."""
        request = result_service_pb2.QueryResultsRequest(
            sql=sql, model=model_name(model) if model else "", row_limit=row_limit
        )
        if start_time is not None:
            request.start_time.FromDatetime(start_time)
        if end_time is not None:
            request.end_time.FromDatetime(end_time)
        return self._connection.call(self._stub.QueryResults, request, deadline_seconds=limits.QUERY_SECONDS)

    def trace(self, part_id: str, *, limit: int | None = None) -> Iterator[result_service_pb2.TracedResult]:
        """Yield every result of the part in the order of arrival, with the sample that was kept of its input."""

        def fetch(size: int, token: str) -> tuple[list[result_service_pb2.TracedResult], str]:
            request = result_service_pb2.TracePartRequest(part_id=part_id, page_size=size, page_token=token)
            page = self._connection.call(self._stub.TracePart, request, deadline_seconds=limits.QUERY_SECONDS)
            return [*page.results], page.next_page_token

        return iterate(fetch, limit=limit)

    def rejudge(
        self,
        passed_version: str,
        judging_version: str,
        *,
        good_labels: Iterable[str],
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        limit: int | None = None,
        counted: Callable[[int, int], None] = lambda _passed, _judged: None,
    ) -> Iterator[result_service_pb2.RejudgedPart]:
        """Yield the parts that one version passed and the other judges otherwise, by part. Versions are resource names;
        `counted` is told how many parts passed, and how many of those the other version has judged."""
        good = [*good_labels]

        def fetch(size: int, token: str) -> tuple[list[result_service_pb2.RejudgedPart], str]:
            request = result_service_pb2.RejudgePartsRequest(
                passed_version=passed_version,
                judging_version=judging_version,
                good_labels=good,
                page_size=size,
                page_token=token,
            )
            if start_time is not None:
                request.start_time.FromDatetime(start_time)
            if end_time is not None:
                request.end_time.FromDatetime(end_time)
            page = self._connection.call(self._stub.RejudgeParts, request, deadline_seconds=limits.QUERY_SECONDS)
            counted(page.passed_parts, page.judged_parts)
            return [*page.parts], page.next_page_token

        return iterate(fetch, limit=limit)
