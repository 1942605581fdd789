"""Resumable uploads of blobs: what the controller already holds is not sent again.

The upload of a blob is its digest, so whoever offers the same bytes, after whatever break, goes on where the last
writer stopped. The loop asks for the committed bytes, sends the rest, and asks again when the stream breaks, until the
blob is complete or no byte was committed for as long as limits allow.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from lineside.v1 import artifact_pb2, upload_pb2, upload_service_pb2, upload_service_pb2_grpc

from controlplane.client import limits
from controlplane.client.channel import Connection
from controlplane.client.errors import ApiError, ClientError, IntegrityError, UnreachableError
from controlplane.client.files import unreadable
from controlplane.client.retry import Backoff

Committed = Callable[[int], None]
"""Told how many bytes of the blob the controller holds or has been sent; may fall back when a stream broke."""


def upload_blob(
    connection: Connection, *, source: Path, file: artifact_pb2.ArtifactFile, committed: Committed = lambda _: None
) -> None:
    """Bring the bytes of `source` to the controller, which verifies them against `file.digest`. Raises ClientError."""
    backoff = Backoff(connection.pacing, budget_seconds=limits.TRANSFER_RETRY_SECONDS)
    held_bytes = 0
    while True:
        try:
            upload = _ask(connection, file)
            if upload.committed_bytes > held_bytes:
                backoff.reset()
                held_bytes = upload.committed_bytes
            if not upload.complete:
                upload = _write(connection, source, upload, committed)
        except ClientError as failure:
            if not _can_go_on(failure):
                raise
            connection.forget_bytes()
            if not backoff.wait():
                raise
            continue
        if upload.complete:
            committed(file.size_bytes)
            return
        if not backoff.wait():
            raise IntegrityError(
                f"the controller holds {upload.committed_bytes} of {file.size_bytes} bytes and takes no more",
                field=file.path,
                remedy="look at the controller's log and disk, then publish again",
            )


def _can_go_on(failure: ClientError) -> bool:
    """Say whether asking again can help: nobody answered, or another writer was ahead of us."""
    other_writer = isinstance(failure, ApiError) and (failure.reason == "UPLOAD_OFFSET" or failure.code == "ABORTED")
    return isinstance(failure, UnreachableError) or other_writer


def _ask(connection: Connection, file: artifact_pb2.ArtifactFile) -> upload_pb2.Upload:
    stub = upload_service_pb2_grpc.UploadServiceStub(connection.bytes_channel())
    wanted = upload_pb2.Upload(digest=file.digest, size_bytes=file.size_bytes)
    return connection.call_bytes(stub.CreateUpload, upload_service_pb2.CreateUploadRequest(upload=wanted)).upload


def _write(connection: Connection, source: Path, upload: upload_pb2.Upload, committed: Committed) -> upload_pb2.Upload:
    stub = upload_service_pb2_grpc.UploadServiceStub(connection.bytes_channel())
    broken: list[OSError] = []
    try:
        return connection.send_bytes(stub.WriteUpload, _pieces(source, upload, committed, broken)).upload
    except ClientError:
        if broken:
            raise unreadable(source, broken[0]) from broken[0]
        raise


def _pieces(
    source: Path, upload: upload_pb2.Upload, committed: Committed, broken: list[OSError]
) -> Iterator[upload_service_pb2.WriteUploadRequest]:
    """Yield the bytes from the committed ones on, at least one message: an empty blob is an empty message.

    Runs in a thread of gRPC, which ends the call when this raises but does not say why: that is left in `broken`.
    """
    offset_bytes = upload.committed_bytes
    try:
        with source.open("rb") as opened:
            opened.seek(offset_bytes)
            first = True
            while (data := opened.read(limits.CHUNK_BYTES)) or first:
                yield upload_service_pb2.WriteUploadRequest(name=upload.name, offset_bytes=offset_bytes, data=data)
                offset_bytes += len(data)
                first = False
                committed(offset_bytes)
    except OSError as error:
        broken.append(error)
        raise
