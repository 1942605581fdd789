"""Uploads over real gRPC: cut off at any point, they go on where they were."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest
from lineside.v1 import upload_pb2, upload_service_pb2, upload_service_pb2_grpc

from controlplane import limits
from controlplane.config import Settings
from controlplane.domain.ids import Digest
from tests.support.bytes_listeners import BytesListeners, serving_bytes
from tests.support.wire import Refusal, bearer, refusal_of, refused, tls_channel

CONTENT = random.Random(9).randbytes(5 * limits.CHUNK_BYTES_MAX + 123)
HEX = hashlib.sha256(CONTENT).hexdigest()
DIGEST = Digest(f"sha256:{HEX}")


class Publisher:
    """A client of UploadService that counts what it sends."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self.stub: Any = upload_service_pb2_grpc.UploadServiceStub(channel)
        self.metadata = bearer(token)
        self.sent_bytes = 0

    async def create(self, *, digest: str = DIGEST, size_bytes: int = len(CONTENT)) -> upload_pb2.Upload:
        upload = upload_pb2.Upload(digest=digest, size_bytes=size_bytes)
        request = upload_service_pb2.CreateUploadRequest(upload=upload)
        response = await self.stub.CreateUpload(request, metadata=self.metadata, timeout=20)
        created: upload_pb2.Upload = response.upload
        return created

    def write(self, offset_bytes: int, *, content: bytes = CONTENT, name: str = f"uploads/{HEX}") -> Any:
        return self.stub.WriteUpload(self._requests(offset_bytes, content, name), metadata=self.metadata, timeout=60)

    async def _requests(
        self, offset_bytes: int, content: bytes, name: str
    ) -> AsyncIterator[upload_service_pb2.WriteUploadRequest]:
        for start in range(offset_bytes, len(content), limits.CHUNK_BYTES_MAX):
            data = content[start : start + limits.CHUNK_BYTES_MAX]
            self.sent_bytes += len(data)
            yield upload_service_pb2.WriteUploadRequest(name=name, offset_bytes=start, data=data)


@pytest.fixture
async def listeners(served: Any, settings: Settings) -> AsyncIterator[BytesListeners]:
    async with serving_bytes(settings, store=served.parts.database, blobs=served.parts.blobs) as listeners:
        yield listeners


@pytest.fixture
async def publisher(served: Any, listeners: BytesListeners) -> AsyncIterator[Publisher]:
    async with tls_channel(listeners.operator_bytes, served.ca_certificate) as channel:
        yield Publisher(channel, served.operator_token)


async def stored(served: Any) -> bytes:
    return b"".join([chunk async for chunk in served.parts.blobs.read(DIGEST)])


async def test_a_blob_goes_up_and_is_stored(served: Any, publisher: Publisher) -> None:
    created = await publisher.create()
    assert (created.name, created.committed_bytes, created.complete) == (f"uploads/{HEX}", 0, False)
    written = (await publisher.write(0)).upload
    assert (written.committed_bytes, written.complete) == (len(CONTENT), True)
    assert await stored(served) == CONTENT
    assert (await publisher.create()).complete


async def cut_off_after(publisher: Publisher, settings: Settings, wanted_bytes: int) -> int:
    """Send some, cancel the call once that much is on disk, and return what is committed."""

    async def some() -> AsyncIterator[upload_service_pb2.WriteUploadRequest]:
        async for request in publisher._requests(0, CONTENT[:wanted_bytes], f"uploads/{HEX}"):
            yield request
        await asyncio.Event().wait()

    call = publisher.stub.WriteUpload(some(), metadata=publisher.metadata, timeout=60)
    part = settings.upload_dir / f"{HEX}.part"
    async with asyncio.timeout(20):
        while not part.exists() or part.stat().st_size < wanted_bytes:
            await asyncio.wait([asyncio.ensure_future(call.code())], timeout=0.01)
    call.cancel()
    return (await publisher.create()).committed_bytes


async def test_bytes_that_were_sent_are_not_sent_again(served: Any, settings: Settings, publisher: Publisher) -> None:
    await publisher.create()
    committed = await cut_off_after(publisher, settings, 2 * limits.CHUNK_BYTES_MAX)
    assert committed == 2 * limits.CHUNK_BYTES_MAX
    assert (await publisher.write(committed)).upload.complete
    assert publisher.sent_bytes == len(CONTENT)
    assert await stored(served) == CONTENT


async def test_an_upload_goes_on_at_a_server_that_was_started_again(served: Any, settings: Settings) -> None:
    blobs, store = served.parts.blobs, served.parts.database
    async with (
        serving_bytes(settings, store=store, blobs=blobs) as before,
        tls_channel(before.operator_bytes, served.ca_certificate) as channel,
    ):
        publisher = Publisher(channel, served.operator_token)
        await publisher.create()
        await cut_off_after(publisher, settings, 3 * limits.CHUNK_BYTES_MAX)
    async with (
        serving_bytes(settings, store=store, blobs=blobs) as after,
        tls_channel(after.operator_bytes, served.ca_certificate) as channel,
    ):
        again = Publisher(channel, served.operator_token)
        committed = (await again.create()).committed_bytes
        assert committed == 3 * limits.CHUNK_BYTES_MAX
        assert (await again.write(committed)).upload.complete
        assert again.sent_bytes == len(CONTENT) - committed
    assert await stored(served) == CONTENT


async def refused_write(served: Any, listeners: BytesListeners, requests: Any) -> Refusal:
    """By a synchronous client: one of grpc.aio that is refused while it sends may report a failure of its own."""
    credentials = grpc.ssl_channel_credentials(served.ca_certificate)
    options = (
        ("grpc.ssl_target_name_override", "controlplane.lineside.internal"),
        ("grpc.max_send_message_length", -1),
    )

    def write() -> Refusal:
        with grpc.secure_channel(listeners.operator_bytes, credentials, options=options) as channel:
            stub = upload_service_pb2_grpc.UploadServiceStub(channel)
            with pytest.raises(grpc.RpcError) as error:
                stub.WriteUpload(iter(requests), metadata=bearer(served.operator_token), timeout=20)
        return refusal_of(cast("grpc.aio.AioRpcError", error.value))

    return await asyncio.to_thread(write)


def requests_of(
    offset_bytes: int, *, content: bytes = CONTENT, name: str = f"uploads/{HEX}"
) -> list[upload_service_pb2.WriteUploadRequest]:
    return [
        upload_service_pb2.WriteUploadRequest(
            name=name, offset_bytes=start, data=content[start : start + limits.CHUNK_BYTES_MAX]
        )
        for start in range(offset_bytes, len(content), limits.CHUNK_BYTES_MAX)
    ]


async def test_wrong_offsets_digests_and_names_are_refused(
    served: Any, listeners: BytesListeners, publisher: Publisher
) -> None:
    await publisher.create()
    offset = await refused_write(served, listeners, requests_of(limits.CHUNK_BYTES_MAX))
    assert (offset.code, offset.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "UPLOAD_OFFSET")
    assert "offset 0" in offset.remedy
    digest = await refused_write(served, listeners, requests_of(0, content=bytes(len(CONTENT))))
    assert (digest.code, digest.reason, digest.field) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "DIGEST_MISMATCH",
        "upload.digest",
    )
    name = await refused_write(served, listeners, requests_of(0, name="uploads/../../etc/passwd"))
    assert (name.code, name.field) == (grpc.StatusCode.INVALID_ARGUMENT, "name")
    gone = await refused_write(served, listeners, requests_of(0))
    assert gone.code == grpc.StatusCode.NOT_FOUND
    empty = await refused_write(served, listeners, [])
    assert empty.field == "name"
    bad = await refused(publisher.create(digest="sha256:short"))
    assert (bad.field, bool(bad.remedy)) == ("upload.digest", True)
    assert not await served.parts.blobs.has(DIGEST)


@pytest.mark.parametrize(
    ("size_bytes", "code"),
    [
        (limits.CHUNK_BYTES_MAX + 1, grpc.StatusCode.INVALID_ARGUMENT),
        (limits.MESSAGE_BYTES_MAX, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_oversize_pieces_and_messages_are_refused(
    served: Any, listeners: BytesListeners, publisher: Publisher, size_bytes: int, code: grpc.StatusCode
) -> None:
    await publisher.create()
    request = upload_service_pb2.WriteUploadRequest(name=f"uploads/{HEX}", data=bytes(size_bytes))
    assert (await refused_write(served, listeners, [request])).code == code
    assert (await publisher.create()).committed_bytes == 0


async def test_without_a_token_nothing_is_taken(served: Any, listeners: BytesListeners) -> None:
    async with tls_channel(listeners.operator_bytes, served.ca_certificate) as channel:
        refusal = await refused(Publisher(channel, "lso1.forged").create())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "OPERATOR_TOKEN_INVALID")
