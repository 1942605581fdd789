"""Results in columns from the agent's own client to the controller's lake, through it and straight into the store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from lineside.v1 import evidence_service_pb2, evidence_service_pb2_grpc

from agent import limits as agent_limits
from agent.app.evidence import result_of
from agent.app.ports import EvidenceBatch, Identity
from agent.app.result_columns import result_files
from agent.config import Endpoints
from agent.rpc.controller import GrpcController
from controlplane import limits
from controlplane.app.results import Results
from controlplane.composition import Parts, fleet_listener
from controlplane.domain.evidence import Result
from controlplane.domain.ids import AgentId
from controlplane.domain.lake import ResultFilter, ResultSpan
from controlplane.rpc import server
from controlplane.rpc.convert.evidence import result_to_proto
from tests.rpc.conftest import ANY_PORT, Served
from tests.support.factories import after_seconds, make_result
from tests.support.putting import Bucket
from tests.support.wire import Box, refused


class BoxIdentity:
    """`agent.app.ports.Certificates` of a box; only reading is asked of it."""

    def __init__(self, box: Box) -> None:
        self._box = box

    def read(self) -> Identity:
        return Identity(
            key_pem=self._box.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            certificate_pem=self._box.certificate,
            ca_pem=self._box.ca_certificate,
        )


@asynccontextmanager
async def controller_of(box: Box, fleet: str) -> AsyncIterator[GrpcController]:
    endpoints = Endpoints(api=fleet, fleet=fleet, agent_bytes=fleet)
    controller = GrpcController(endpoints, BoxIdentity(box), agent=box.name)  # type: ignore[arg-type]
    # Evidence rides on the connection of a Sync stream; here it dials by itself.
    await controller._fleet_channel().channel_ready()
    try:
        yield controller
    finally:
        await controller.close()


def results_of(batch: int, count: int, **overrides: Any) -> list[Result]:
    return [
        make_result(batch=batch, index=index, part_id=f"{batch}-{index}", lot="lot-1", application="plc", **overrides)
        for index in range(count)
    ]


def batch_of(results: list[Result]) -> EvidenceBatch:
    """As the spool gives it: a box knows results by what is in them."""
    return EvidenceBatch(
        number=results[0].batch, windows=(), results=tuple(result_of(result_to_proto(result)) for result in results)
    )


async def stored(parts: Parts) -> list[Result]:
    results = Results(store=parts.store, objects=parts.objects, codec=parts.codec)
    return [*(await results.list(ResultFilter(), page_size=1000)).items]


async def keys(parts: Parts) -> list[str]:
    async with parts.store.read() as work:
        return sorted(one.key for one in await work.result_index.list_span(ResultSpan(), limit=100))


async def test_results_are_the_same_in_rows_and_in_columns(served: Served) -> None:
    box = await served.agent("st-1")
    many = agent_limits.COLUMNS_RESULTS_MIN
    async with controller_of(box, served.fleet) as controller:
        batches = [results_of(number, many) for number in (1, 2)] + [results_of(3, 2)]
        await controller.report_evidence(batch_of(batches[0]))  # in rows: nothing is known of the controller yet
        assert controller._takes_files
        for batch in (batches[1], batches[1], batches[2]):
            await controller.report_evidence(batch_of(batch))
    assert await stored(served.parts) == [*batches[0], *batches[1], *batches[2]]
    assert all("/line=3/" in key for key in await keys(served.parts))


async def test_a_batch_over_midnight_is_a_file_a_day(served: Served) -> None:
    box = await served.agent("st-1")
    late = [
        replace(result, infer_time=after_seconds(43_180 + index))
        for index, result in enumerate(results_of(7, agent_limits.COLUMNS_RESULTS_MIN))
    ]
    async with controller_of(box, served.fleet) as controller:
        await controller.report_evidence(EvidenceBatch(number=1, windows=(), results=()))
        await controller.report_evidence(batch_of(late))
    assert await stored(served.parts) == late
    assert [key.split("/")[4] for key in await keys(served.parts)] == ["day=2026-03-01", "day=2026-03-02"]


@pytest.fixture
async def bucket() -> AsyncIterator[Bucket]:
    bucket = Bucket()
    async with bucket.listening():
        yield bucket


@asynccontextmanager
async def signing(served: Served, bucket: Bucket) -> AsyncIterator[tuple[Parts, str]]:
    """A fleet listener whose object store signs."""
    parts = replace(served.parts, objects=bucket.objects())
    fleet = await server.start(fleet_listener(parts), ANY_PORT)
    try:
        yield parts, str(fleet.address)
    finally:
        await fleet.stop(0)


async def test_large_files_go_straight_to_the_store(
    served: Served, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_limits, "UPLOAD_FILE_BYTES_MIN", 1_000)
    box = await served.agent("st-1")
    first, second = results_of(1, 40), results_of(2, 40)
    async with signing(served, bucket) as (parts, fleet):
        async with controller_of(box, fleet) as controller:
            await controller.report_evidence(batch_of(first))
            assert bucket.puts == []
            await controller.report_evidence(batch_of(second))
            await controller.report_evidence(batch_of(second))
        assert await stored(parts) == [*first, *second]
        named = await keys(parts)
    assert len(bucket.puts) == 2
    assert [key for key in bucket.puts if key in named] == [bucket.puts[0]]


async def test_a_box_that_cannot_reach_the_store_sends_its_results_to_the_controller(
    served: Served, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_limits, "UPLOAD_FILE_BYTES_MIN", 1_000)
    monkeypatch.setattr(agent_limits, "UPLOAD_REST_BATCHES", 2)
    bucket.refuse = True
    box = await served.agent("st-1")
    batches = [results_of(number, 40) for number in range(1, 6)]
    async with signing(served, bucket) as (parts, fleet), controller_of(box, fleet) as controller:
        for batch in batches:
            await controller.report_evidence(batch_of(batch))
        assert await stored(parts) == [result for batch in batches for result in batch]
    # Of four files in columns the first was tried, two rested, and the fourth was tried again.
    assert len(bucket.puts) == 2


def request_of(results: list[Result], **file: Any) -> evidence_service_pb2.ReportEvidenceRequest:
    (made,) = result_files(batch_of(results).results, agent="st-1", batch=results[0].batch)
    fields = {
        "digest": made.digest,
        "size_bytes": len(made.content),
        "row_count": made.rows,
        "content": made.content,
        **file,
    }
    return evidence_service_pb2.ReportEvidenceRequest(
        batch=results[0].batch, result_files=[evidence_service_pb2.ResultFile(**fields)]
    )


FOREIGN = "results/site=a/line=3/station=b/day=2026-03-01/st-2-1-x.parquet"


@pytest.mark.parametrize(
    ("file", "field"),
    [
        ({"digest": "sha256:" + "0" * 64}, "result_files.digest"),
        ({"size_bytes": 1}, "result_files.digest"),
        ({"row_count": 1}, "result_files.row_count"),
        ({"content": b""}, "result_files.digest"),
    ],
)
async def test_a_file_that_is_not_what_it_says_is_refused(served: Served, file: dict[str, Any], field: str) -> None:
    box = await served.agent("st-1")
    async with box.mtls_channel(served.fleet) as channel:
        stub: Any = evidence_service_pb2_grpc.EvidenceServiceStub(channel)
        refusal = await refused(stub.ReportEvidence(request_of(results_of(1, 3), **file), timeout=20))
    assert refusal.field == field
    assert refusal.remedy
    assert await stored(served.parts) == []


async def test_rows_and_files_together_are_refused(served: Served) -> None:
    box = await served.agent("st-1")
    request = request_of(results_of(1, 3))
    request.results.append(result_to_proto(results_of(1, 1)[0]))
    async with box.mtls_channel(served.fleet) as channel:
        stub: Any = evidence_service_pb2_grpc.EvidenceServiceStub(channel)
        assert (await refused(stub.ReportEvidence(request, timeout=20))).field == "result_files"


async def test_an_upload_under_a_key_that_is_not_the_batchs_is_refused(served: Served, bucket: Bucket) -> None:
    box = await served.agent("st-1")
    results = results_of(1, 3)
    async with signing(served, bucket) as (parts, fleet), box.mtls_channel(fleet) as channel:
        stub: Any = evidence_service_pb2_grpc.EvidenceServiceStub(channel)
        content = request_of(results).result_files[0].content
        for key in (
            FOREIGN,
            "blobs/sha256/00/00",
            "results/../x",
            FOREIGN.replace("st-2-1", "st-1-2"),
            FOREIGN.replace("st-2", "st-1").replace("03-01", "03-02"),
            FOREIGN.replace("st-2", "st-1").replace("03-01", "13-01"),
        ):
            if ".." not in key:
                await parts.objects.put(key, content)
            refusal = await refused(stub.ReportEvidence(request_of(results, content=b"", upload_key=key), timeout=20))
            assert (refusal.reason, refusal.field) == ("FIELD_INVALID", "result_files.upload_key")
        assert await stored(parts) == []


async def test_an_upload_that_is_not_there_is_tried_again_later(served: Served, bucket: Bucket) -> None:
    box = await served.agent("st-1")
    results = results_of(1, 3)
    async with signing(served, bucket) as (parts, fleet), box.mtls_channel(fleet) as channel:
        stub: Any = evidence_service_pb2_grpc.EvidenceServiceStub(channel)
        made = await stub.CreateResultUploads(
            evidence_service_pb2.CreateResultUploadsRequest(
                batch=1, files=[evidence_service_pb2.PlannedResultFile(day="2026-03-01")]
            ),
            timeout=20,
        )
        request = request_of(results, content=b"", upload_key=made.uploads[0].key)
        refusal = await refused(stub.ReportEvidence(request, timeout=20))
        assert refusal.code.name == "UNAVAILABLE"
        await parts.objects.put(made.uploads[0].key, request_of(results).result_files[0].content)
        await stub.ReportEvidence(request, timeout=20)
        assert await stored(parts) == results
        assert await keys(parts) == [made.uploads[0].key]


async def test_uploads_are_asked_for_within_bounds_and_only_where_the_store_signs(
    served: Served, bucket: Bucket
) -> None:
    box = await served.agent("st-1")
    request = evidence_service_pb2.CreateResultUploadsRequest
    planned = evidence_service_pb2.PlannedResultFile
    async with box.mtls_channel(served.fleet) as channel:
        stub: Any = evidence_service_pb2_grpc.EvidenceServiceStub(channel)
        assert not (await stub.CreateResultUploads(request(batch=1, files=[planned(day="2026-03-01")]))).uploads
    async with signing(served, bucket) as (_, fleet), box.mtls_channel(fleet) as channel:
        stub = evidence_service_pb2_grpc.EvidenceServiceStub(channel)
        for bad, field in (
            (request(batch=-1, files=[planned(day="2026-03-01")]), "batch"),
            (request(batch=1), "files"),
            (request(batch=1, files=[planned(day="2026-03-01")] * (limits.LAKE_FILES_A_BATCH_MAX + 1)), "files"),
            (request(batch=1, files=[planned(day="1.3.2026")]), "files.day"),
            (request(batch=1, files=[planned(day="20260301")]), "files.day"),
        ):
            refusal = await refused(stub.CreateResultUploads(bad, timeout=20))
            assert (refusal.field, bool(refusal.remedy)) == (field, True)


async def test_a_controller_that_never_said_so_gets_rows(served: Served) -> None:
    box = await served.agent("st-1")
    async with controller_of(box, served.fleet) as controller:
        controller._takes_files = False
        assert await controller._result_files(batch_of(results_of(1, 100))) == ()


def test_an_agent_writes_the_columns_that_the_controller_keeps() -> None:
    from agent.app import result_columns
    from controlplane.lake import schema
    from controlplane.lake.codec import ParquetCodec

    assert result_columns.COLUMNS.equals(schema.COLUMNS)
    results = [*results_of(1, 3), make_result(index=3, labels=(), error="no", part_id="")]
    (file,) = result_files(batch_of(results).results, agent="st-1", batch=1)
    checked = ParquetCodec().check(file.content, agent_id=AgentId("st-1"), batch=1)
    assert (checked.content, checked.digest, checked.rows, checked.day) == (file.content, file.digest, 4, file.day)
