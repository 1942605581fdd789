"""Uploads: blobs into the object store, resumable and verified."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from controlplane import limits, observability
from controlplane.app.ports import BlobStore
from controlplane.domain.errors import FieldInvalidError, Reason
from controlplane.domain.ids import Digest, check_digest

log = structlog.get_logger(__name__)


class UploadWriter(Protocol):
    """The one writer of an upload. Its calls raise PreconditionError (UPLOAD_OFFSET) once a newer one took over."""

    @property
    def path(self) -> Path: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def committed_bytes(self) -> int: ...
    async def append(self, data: bytes) -> None: ...
    async def sha256(self) -> Digest:
        """Digest of the committed bytes."""
        ...

    async def close(self) -> None:
        """What is committed stays."""
        ...


class UploadStaging(Protocol):
    """Where bytes wait until a blob is whole. Survives a kill of the process at any point."""

    async def begin(self, digest: Digest, *, size_bytes: int) -> int:
        """Find or start an upload; return the committed bytes. Raises StorageError (STORAGE_FULL) when the rest
        does not fit on the disk. Another size than announced before starts anew."""
        ...

    async def open(self, digest: Digest, *, offset_bytes: int) -> UploadWriter:
        """Become the writer in place of any other. Raises ResourceNotFoundError, or PreconditionError
        (UPLOAD_OFFSET) unless the offset is what is committed."""
        ...

    async def discard(self, digest: Digest) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An upload as it stands."""

    digest: Digest
    size_bytes: int
    committed_bytes: int
    complete: bool

    @property
    def name(self) -> str:
        return upload_name(self.digest)


def upload_name(digest: Digest) -> str:
    return f"uploads/{digest.removeprefix('sha256:')}"


def parse_upload_name(name: str) -> Digest:
    """Return the digest of `uploads/{sha256 hex}`, else raise FieldInvalidError (field "name")."""
    collection, _, hex_digits = name.partition("/")
    if collection != "uploads":
        raise FieldInvalidError(
            f"{name!r} is no upload", field="name", remedy='write "uploads/" and 64 lower-case hex digits'
        )
    return check_digest(f"sha256:{hex_digits}", field="name")


class Uploads:
    """Brings blobs into the object store."""

    def __init__(self, *, staging: UploadStaging, blobs: BlobStore) -> None:
        self._staging = staging
        self._blobs = blobs

    async def create(self, digest: str, size_bytes: int) -> Upload:
        """Find or start the upload of a blob."""
        checked = check_digest(digest, field="upload.digest")
        if not 0 <= size_bytes <= limits.UPLOAD_BYTES_MAX:
            raise FieldInvalidError(
                f"a blob has 0 to {limits.UPLOAD_BYTES_MAX} bytes, not {size_bytes}",
                field="upload.size_bytes",
                remedy="split the model's weights into several files" if size_bytes > 0 else "state the size",
            )
        if await self._blobs.has(checked):
            stored_bytes = await self._blobs.size(checked)
            return Upload(digest=checked, size_bytes=stored_bytes, committed_bytes=stored_bytes, complete=True)
        # Where all bytes are there already, a write without any verifies and stores them: that may take minutes.
        committed = await self._staging.begin(checked, size_bytes=size_bytes)
        return Upload(digest=checked, size_bytes=size_bytes, committed_bytes=committed, complete=False)

    async def write(self, digest: Digest, *, offset_bytes: int, pieces: AsyncIterator[bytes]) -> Upload:
        """Append the pieces, which keep what came of them when they end early; with the last byte verify the
        digest and store the blob. Raises FieldInvalidError (DIGEST_MISMATCH) after dropping bytes that are not
        the blob's."""
        if await self._blobs.has(digest):
            stored_bytes = await self._blobs.size(digest)
            return Upload(digest=digest, size_bytes=stored_bytes, committed_bytes=stored_bytes, complete=True)
        writer = await self._staging.open(digest, offset_bytes=offset_bytes)
        if offset_bytes:
            log.info(observability.UPLOAD_RESUMED, digest=digest, offset_bytes=offset_bytes)
        try:
            async for piece in pieces:
                await self._append(writer, piece)
            complete = writer.committed_bytes == writer.size_bytes
            if complete:
                await self._store(digest, writer)
        finally:
            await writer.close()
        return Upload(
            digest=digest, size_bytes=writer.size_bytes, committed_bytes=writer.committed_bytes, complete=complete
        )

    async def _append(self, writer: UploadWriter, piece: bytes) -> None:
        if writer.committed_bytes + len(piece) > writer.size_bytes:
            raise FieldInvalidError(
                f"{writer.committed_bytes + len(piece)} bytes came for a blob of {writer.size_bytes}",
                field="data",
                remedy="announce the blob's real size with CreateUpload",
            )
        await writer.append(piece)

    async def _store(self, digest: Digest, writer: UploadWriter) -> None:
        came = await writer.sha256()
        if came != digest:
            await self._staging.discard(digest)
            raise FieldInvalidError(
                f"the bytes that came have the digest {came}, not {digest}",
                field="upload.digest",
                remedy="compute the digest of the file again and upload it from the start: nothing was kept",
                reason=Reason.DIGEST_MISMATCH,
            )
        await self._blobs.put_file(digest, writer.path)
        await self._staging.discard(digest)
