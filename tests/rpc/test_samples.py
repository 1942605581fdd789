"""Samples from agents, over mTLS, and to operators."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from lineside.v1 import (
    sample_content_service_pb2,
    sample_content_service_pb2_grpc,
    sample_pb2,
    sample_service_pb2,
    sample_service_pb2_grpc,
    sample_upload_service_pb2,
    sample_upload_service_pb2_grpc,
)

from controlplane.config import Settings
from controlplane.rpc.convert.samples import sample_to_proto
from tests.support.bytes_listeners import BytesListeners, serving_bytes
from tests.support.factories import digest_of, make_sample
from tests.support.wire import Box, bearer, refused

CONTENT = bytes(range(256)) * 8192
SAMPLE = make_sample(digest=digest_of(CONTENT), size_bytes=len(CONTENT))


@pytest.fixture
async def listeners(served: Any, settings: Settings) -> AsyncIterator[BytesListeners]:
    async with serving_bytes(settings, store=served.parts.database, blobs=served.parts.blobs) as listeners:
        yield listeners


def upload_of(sample: sample_pb2.Sample, *, content: bytes = CONTENT, sample_id: str = "sample-1") -> Any:
    return sample_upload_service_pb2.UploadSampleRequest(sample_id=sample_id, sample=sample, content=content)


async def upload(box: Box, listeners: BytesListeners, request: Any) -> Any:
    async with box.mtls_channel(listeners.agent_bytes) as channel:
        stub: Any = sample_upload_service_pb2_grpc.SampleUploadServiceStub(channel)
        return await stub.UploadSample(request, timeout=20)


async def test_a_sample_arrives_once_and_is_read(served: Any, listeners: BytesListeners) -> None:
    box = await served.agent("st-1")
    request = upload_of(sample_to_proto(SAMPLE))
    assert [(await upload(box, listeners, request)).duplicate for _ in range(2)] == [False, True]
    metadata = bearer(served.operator_token)
    async with box.tls_channel(served.api) as channel:
        stub: Any = sample_service_pb2_grpc.SampleServiceStub(channel)
        listed = await stub.ListSamples(
            sample_service_pb2.ListSamplesRequest(
                model="models/solar",
                agent="agents/st-1",
                reason=sample_pb2.Sample.REASON_LEAST_CONFIDENCE,
            ),
            metadata=metadata,
        )
        got = await stub.GetSample(sample_service_pb2.GetSampleRequest(name="samples/sample-1"), metadata=metadata)
    assert list(listed.samples) == [got]
    assert (got.name, got.agent, got.digest, got.result.part_id) == (
        "samples/sample-1",
        "agents/st-1",
        SAMPLE.digest,
        "cell-7",
    )
    async with box.tls_channel(listeners.operator_bytes) as channel:
        contents: Any = sample_content_service_pb2_grpc.SampleContentServiceStub(channel)
        call = contents.ReadSampleContent(
            sample_content_service_pb2.ReadSampleContentRequest(name="samples/sample-1"), metadata=metadata
        )
        assert b"".join([response.data async for response in call]) == CONTENT


async def test_an_agent_uploads_only_its_own(served: Any, listeners: BytesListeners) -> None:
    first, other = await served.agent("st-1"), await served.agent("st-2")
    await upload(first, listeners, upload_of(sample_to_proto(SAMPLE)))
    in_anothers_name = await refused(upload(other, listeners, upload_of(sample_to_proto(SAMPLE), sample_id="mine")))
    assert (in_anothers_name.reason, in_anothers_name.field) == ("NOT_YOURS", "sample.agent")
    own = sample_to_proto(SAMPLE)
    own.ClearField("agent")
    own.result.ClearField("agent")
    over_anothers_id = await refused(upload(other, listeners, upload_of(own)))
    assert (over_anothers_id.code, over_anothers_id.reason, over_anothers_id.field) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "NOT_YOURS",
        "sample_id",
    )
    assert (await upload(other, listeners, upload_of(own, sample_id="mine"))).duplicate is False


@pytest.mark.parametrize(
    ("change", "content", "field"),
    [
        ({"content_type": "text/html"}, CONTENT, "sample.content_type"),
        ({"digest": "x"}, CONTENT, "sample.digest"),
        ({}, CONTENT[::-1], "sample.digest"),
        ({"size_bytes": 1}, CONTENT, "sample.size_bytes"),
    ],
)
async def test_bad_samples_name_field_and_remedy(
    served: Any, listeners: BytesListeners, *, change: dict[str, Any], content: bytes, field: str
) -> None:
    box = await served.agent("st-1")
    sample = sample_to_proto(SAMPLE)
    for name, value in change.items():
        setattr(sample, name, value)
    refusal = await refused(upload(box, listeners, upload_of(sample, content=content)))
    assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert refusal.remedy
