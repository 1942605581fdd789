"""Model bytes for agents: ranges of what is assigned to the one that asks, and nothing else."""

import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from lineside.v1 import artifact_service_pb2, artifact_service_pb2_grpc

from controlplane import limits
from controlplane.config import Settings
from controlplane.domain.catalog import Artifact, ArtifactFile
from controlplane.rpc.artifacts import SERVICE, response_bytes
from tests.support.bytes_listeners import BytesListeners, serving_bytes
from tests.support.factories import digest_of, make_desired, make_desired_slot, make_model, make_version
from tests.support.wire import Box, Refusal, refusal_of

CONTENT = random.Random(10).randbytes(3 * limits.CHUNK_BYTES_MAX + 77)
DIGEST = digest_of(CONTENT)


@pytest.fixture
async def listeners(served: Any, settings: Settings) -> AsyncIterator[BytesListeners]:
    async with serving_bytes(settings, store=served.parts.database, blobs=served.parts.blobs) as listeners:
        yield listeners


@pytest.fixture
async def st_1(served: Any) -> Box:
    """An agent that should run version 1, whose one file is CONTENT."""
    box: Box = await served.agent("st-1")
    await served.parts.blobs.put_bytes(DIGEST, CONTENT)
    file = ArtifactFile(path="net.onnx", digest=DIGEST, size_bytes=len(CONTENT))
    async with served.parts.store.write() as work:
        await work.models.add(make_model())
        await work.models.add_version(make_version(number=1, artifact=Artifact(files=(file,))))
        await work.desired.save([make_desired(agent_id="st-1", generation=1, slots=(make_desired_slot(version=1),))])
    return box


async def read(box: Box, listeners: BytesListeners, *, digest: str = DIGEST, offset_bytes: int = 0) -> list[bytes]:
    async with box.mtls_channel(listeners.agent_bytes) as channel:
        stub: Any = artifact_service_pb2_grpc.ArtifactServiceStub(channel)
        request = artifact_service_pb2.ReadBlobRequest(digest=digest, offset_bytes=offset_bytes)
        return [response.data async for response in stub.ReadBlob(request, timeout=20)]


async def refused_read(box: Box, listeners: BytesListeners, **request: Any) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await read(box, listeners, **request)
    return refusal_of(error.value)


@pytest.mark.parametrize("size_bytes", [0, 1, 127, 128, 20_000, limits.CHUNK_BYTES_MAX])
def test_responses_are_what_the_contract_says(size_bytes: int) -> None:
    data = CONTENT[:size_bytes]
    assert artifact_service_pb2.ReadBlobResponse.FromString(response_bytes(data)).data == data


def test_every_method_of_the_contract_is_served() -> None:
    (service,) = artifact_service_pb2.DESCRIPTOR.services_by_name.values()
    assert (service.full_name, [method.name for method in service.methods]) == (SERVICE, ["ReadBlob"])


async def test_an_agent_reads_what_it_should_run(st_1: Box, listeners: BytesListeners) -> None:
    chunks = await read(st_1, listeners)
    assert b"".join(chunks) == CONTENT
    assert max(map(len, chunks)) == limits.CHUNK_BYTES_MAX


@pytest.mark.parametrize("offset_bytes", [1, limits.CHUNK_BYTES_MAX + 1, len(CONTENT)])
async def test_what_was_received_is_not_sent_again(st_1: Box, listeners: BytesListeners, offset_bytes: int) -> None:
    assert b"".join(await read(st_1, listeners, offset_bytes=offset_bytes)) == CONTENT[offset_bytes:]


async def test_a_read_that_is_cut_off_goes_on_elsewhere(st_1: Box, listeners: BytesListeners) -> None:
    async with st_1.mtls_channel(listeners.agent_bytes) as channel:
        stub: Any = artifact_service_pb2_grpc.ArtifactServiceStub(channel)
        call = stub.ReadBlob(artifact_service_pb2.ReadBlobRequest(digest=DIGEST), timeout=20)
        first = (await call.read()).data
        call.cancel()
    assert first + b"".join(await read(st_1, listeners, offset_bytes=len(first))) == CONTENT


async def test_an_agent_does_not_read_anothers_artifacts(served: Any, st_1: Box, listeners: BytesListeners) -> None:
    other = await served.agent("st-2")
    for digest in (DIGEST, digest_of("no such blob")):
        refusal = await refused_read(other, listeners, digest=digest)
        assert (refusal.code, refusal.reason, refusal.field) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "NOT_YOURS",
            "digest",
        )
        assert refusal.remedy


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"digest": "sha256:x"}, "digest"),
        ({"offset_bytes": -1}, "offset_bytes"),
        ({"offset_bytes": 1 << 40}, "offset_bytes"),
    ],
)
async def test_bad_requests_name_field_and_remedy(
    st_1: Box, listeners: BytesListeners, request_: dict[str, Any], field: str
) -> None:
    refusal = await refused_read(st_1, listeners, **request_)
    assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert refusal.remedy


async def test_without_a_certificate_nothing_is_answered(st_1: Box, listeners: BytesListeners) -> None:
    async with st_1.tls_channel(listeners.agent_bytes) as channel:
        stub: Any = artifact_service_pb2_grpc.ArtifactServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.ReadBlob(artifact_service_pb2.ReadBlobRequest(digest=DIGEST), timeout=20).read()
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
