"""Blobs in an object store, by digest.

What holds:
- A blob lies under `blobs/sha256/{first two hex digits}/{hex}` and never changes.
- A blob that is there is whole: it appears by an atomic put or rename, after its bytes are durable.
- Callers have verified the digest before they put.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, from_url

from controlplane import limits
from controlplane.app.ports import BlobStore
from controlplane.artifacts.durable import DurableFolder
from controlplane.artifacts.failures import storage_error, told_as_storage_error
from controlplane.domain.errors import FieldInvalidError, ResourceNotFoundError
from controlplane.domain.ids import Digest

_READ_THREADS = 8


def open_blob_store(url: str) -> BlobStore:
    """Return the store at `url`: `file:///folder` (made when missing), `s3://`, `gs://` or `az://`.

    Credentials of cloud stores come from the environment, as obstore documents them.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalBlobStore(Path(unquote(parts.path)))
    if parts.scheme not in {"s3", "gs", "az", "azure", "abfs", "abfss"}:
        raise FieldInvalidError(
            f"{url!r} is no address of an object store",
            field="artifact_url",
            remedy="use file:///folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix",
        )
    with told_as_storage_error(f"the artifact store {url}"):
        return ObjectBlobStore(from_url(url), url=url)


def blob_key(digest: Digest) -> str:
    hex_digits = digest.removeprefix("sha256:")
    return f"blobs/sha256/{hex_digits[:2]}/{hex_digits}"


class ObjectBlobStore:
    """Any store that obstore knows whose puts are atomic and durable: S3, GCS, Azure, memory."""

    def __init__(self, store: Any, *, url: str) -> None:
        self._store = store
        self._what = f"the artifact store {url}"

    async def has(self, digest: Digest) -> bool:
        try:
            await self.size(digest)
        except ResourceNotFoundError:
            return False
        return True

    async def size(self, digest: Digest) -> int:
        with told_as_storage_error(self._what):
            try:
                return int((await obstore.head_async(self._store, blob_key(digest)))["size"])
            except FileNotFoundError as error:
                raise ResourceNotFoundError(f"blobs/{digest} is not stored") from error

    async def put_file(self, digest: Digest, path: Path) -> None:
        await self._put(digest, path)

    async def put_bytes(self, digest: Digest, content: bytes) -> None:
        await self._put(digest, content)

    async def _put(self, digest: Digest, source: Path | bytes) -> None:
        with told_as_storage_error(self._what):
            await obstore.put_async(self._store, blob_key(digest), source)

    async def read(self, digest: Digest, *, offset_bytes: int = 0) -> AsyncIterator[bytes]:
        if check_offset(offset_bytes, size_bytes=await self.size(digest)):
            return
        with told_as_storage_error(self._what):
            got = await obstore.get_async(
                self._store, blob_key(digest), options={"range": {"offset": offset_bytes}} if offset_bytes else None
            )
            async for piece in got.stream(min_chunk_size=limits.CHUNK_BYTES_MAX):
                view = memoryview(piece)
                for start in range(0, len(view), limits.CHUNK_BYTES_MAX):
                    yield bytes(view[start : start + limits.CHUNK_BYTES_MAX])

    async def fetch(self, digest: Digest, path: Path) -> None:
        with told_as_storage_error(str(path)), path.open("wb") as file:
            async for chunk in self.read(digest):
                await asyncio.to_thread(file.write, chunk)


class LocalBlobStore(ObjectBlobStore):
    """A folder. obstore writes it without fsync, and its stream costs a copy more than the file itself: puts and reads
    bypass it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        with told_as_storage_error(f"the artifact folder {self._folder}"):
            self._durable = DurableFolder(self._folder)
            self._durable.drop_left_by_kills()
        super().__init__(LocalStore(self._folder), url=self._folder.as_uri())
        self._readers = ThreadPoolExecutor(_READ_THREADS, thread_name_prefix="blob-read")

    async def _put(self, digest: Digest, source: Path | bytes) -> None:
        if not await self.has(digest):
            with told_as_storage_error(self._what):
                await asyncio.to_thread(self._durable.put, blob_key(digest), source)

    async def read(self, digest: Digest, *, offset_bytes: int = 0) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        file = await loop.run_in_executor(self._readers, self._open, digest)
        ahead: Future[bytes] | None = None
        try:
            if check_offset(offset_bytes, size_bytes=os.fstat(file).st_size):
                return
            ahead = self._readers.submit(self._read_chunk, file, offset_bytes)
            while chunk := await asyncio.wrap_future(ahead, loop=loop):
                offset_bytes += len(chunk)
                ahead = self._readers.submit(self._read_chunk, file, offset_bytes)
                yield chunk
        finally:
            # A read may still be under way in a thread: the file is closed after it, not under it.
            if ahead is None:
                os.close(file)
            else:
                ahead.add_done_callback(lambda _: os.close(file))

    def _open(self, digest: Digest) -> int:
        try:
            return os.open(self._folder / blob_key(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise ResourceNotFoundError(f"blobs/{digest} is not stored") from error
        except OSError as error:
            raise storage_error(error, what=self._what) from error

    def _read_chunk(self, file: int, offset_bytes: int) -> bytes:
        with told_as_storage_error(self._what):
            return os.pread(file, limits.CHUNK_BYTES_MAX, offset_bytes)


def check_offset(offset_bytes: int, *, size_bytes: int) -> bool:
    """Whether nothing is left to read from the offset on; raises FieldInvalidError when it lies outside the blob."""
    if not 0 <= offset_bytes <= size_bytes:
        raise FieldInvalidError(
            f"{offset_bytes} lies outside the blob of {size_bytes} bytes",
            field="offset_bytes",
            remedy=f"use an offset from 0 to {size_bytes}",
        )
    return offset_bytes == size_bytes
