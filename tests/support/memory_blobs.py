"""A BlobStore in memory; passes the contract in `tests/contracts/test_blob_store.py`."""

from collections.abc import AsyncIterator
from pathlib import Path

from controlplane import limits
from controlplane.domain.errors import FieldInvalidError, ResourceNotFoundError
from controlplane.domain.ids import Digest


class MemoryBlobStore:
    """Blobs in a dict, open to the test as `blobs`."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}

    async def has(self, digest: Digest) -> bool:
        return digest in self.blobs

    async def size(self, digest: Digest) -> int:
        return len(self._get(digest))

    async def put_file(self, digest: Digest, path: Path) -> None:
        self.blobs[digest] = path.read_bytes()

    async def put_bytes(self, digest: Digest, content: bytes) -> None:
        self.blobs[digest] = bytes(content)

    async def read(self, digest: Digest, *, offset_bytes: int = 0) -> AsyncIterator[bytes]:
        content = self._get(digest)
        if not 0 <= offset_bytes <= len(content):
            raise FieldInvalidError("outside the blob", field="offset_bytes", remedy=f"use 0 to {len(content)}")
        for start in range(offset_bytes, len(content), limits.CHUNK_BYTES_MAX):
            yield content[start : start + limits.CHUNK_BYTES_MAX]

    async def fetch(self, digest: Digest, path: Path) -> None:
        path.write_bytes(self._get(digest))

    def _get(self, digest: Digest) -> bytes:
        if digest not in self.blobs:
            raise ResourceNotFoundError(f"blobs/{digest} is not stored")
        return self.blobs[digest]
