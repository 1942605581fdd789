"""UploadService."""

from collections.abc import AsyncIterator

from lineside.v1 import upload_pb2, upload_service_pb2, upload_service_pb2_grpc

from controlplane import limits
from controlplane.app.uploads import Upload, Uploads, parse_upload_name
from controlplane.domain.errors import FieldInvalidError
from controlplane.rpc.authentication import Context


class UploadServicer(upload_service_pb2_grpc.UploadServiceServicer):
    """Resumable uploads, for publishers."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    async def CreateUpload(
        self, request: upload_service_pb2.CreateUploadRequest, context: Context
    ) -> upload_service_pb2.CreateUploadResponse:
        upload = await self._uploads.create(request.upload.digest, request.upload.size_bytes)
        return upload_service_pb2.CreateUploadResponse(upload=_to_proto(upload))

    async def WriteUpload(
        self, request_iterator: AsyncIterator[upload_service_pb2.WriteUploadRequest], context: Context
    ) -> upload_service_pb2.WriteUploadResponse:
        first = await anext(request_iterator, None)
        if first is None:
            raise FieldInvalidError("the stream is empty", field="name", remedy="name the upload in the first message")
        upload = await self._uploads.write(
            parse_upload_name(first.name), offset_bytes=first.offset_bytes, pieces=_pieces(first, request_iterator)
        )
        return upload_service_pb2.WriteUploadResponse(upload=_to_proto(upload))


async def _pieces(
    first: upload_service_pb2.WriteUploadRequest, rest: AsyncIterator[upload_service_pb2.WriteUploadRequest]
) -> AsyncIterator[bytes]:
    yield _checked(first.data)
    async for request in rest:
        if request.name not in {"", first.name}:
            raise FieldInvalidError(
                "another upload in the same stream", field="name", remedy="write each upload in a stream of its own"
            )
        yield _checked(request.data)


def _checked(data: bytes) -> bytes:
    if len(data) > limits.CHUNK_BYTES_MAX:
        raise FieldInvalidError(
            f"{len(data)} bytes are more than {limits.CHUNK_BYTES_MAX}", field="data", remedy="send smaller pieces"
        )
    return data


def _to_proto(upload: Upload) -> upload_pb2.Upload:
    return upload_pb2.Upload(
        name=upload.name,
        digest=upload.digest,
        size_bytes=upload.size_bytes,
        committed_bytes=upload.committed_bytes,
        complete=upload.complete,
    )
