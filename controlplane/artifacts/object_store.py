"""Objects by key, in the same store as the blobs.

What holds:
- An object appears whole: by an atomic put or a rename, after its bytes are durable.
- A folder keeps no half-written objects: what a kill left lies in `incoming/`, which `LocalBlobStore` clears.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store, from_url

from controlplane import limits
from controlplane.app.ports_lake import ListedObject, ObjectStore, SignedPut
from controlplane.artifacts.durable import DurableFolder
from controlplane.artifacts.failures import told_as_storage_error
from controlplane.domain.errors import ResourceNotFoundError


def open_object_store(url: str) -> ObjectStore:
    """Return the store at `url`, which `open_blob_store` has taken: `file:///folder` or a cloud's."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalObjectStore(Path(unquote(parts.path)))
    with told_as_storage_error(f"the artifact store {url}"):
        return CloudObjectStore(from_url(url), url=url)


class CloudObjectStore:
    """Any store that obstore knows whose puts are atomic and durable: S3, GCS, Azure, memory."""

    def __init__(
        self,
        store: Any,
        *,
        url: str,
        sign: Callable[..., Any] = obstore.sign_async,
        can_sign: bool | None = None,
    ) -> None:
        """`sign` and `can_sign` stand for what the store offers, where it is none of the three that obstore signs."""
        self._store = store
        self._sign = sign
        self._can_sign = isinstance(store, S3Store | GCSStore | AzureStore) if can_sign is None else can_sign
        self._what = f"the artifact store {url}"

    async def put(self, key: str, content: bytes) -> None:
        with told_as_storage_error(self._what):
            await obstore.put_async(self._store, key, content)

    async def get(self, key: str) -> bytes:
        with told_as_storage_error(self._what):
            try:
                return bytes(await (await obstore.get_async(self._store, key)).bytes_async())
            except FileNotFoundError as error:
                raise _absent(key) from error

    async def stat(self, key: str) -> ListedObject:
        with told_as_storage_error(self._what):
            try:
                return _listed(await obstore.head_async(self._store, key))
            except FileNotFoundError as error:
                raise _absent(key) from error

    async def remove(self, keys: Sequence[str]) -> None:
        with told_as_storage_error(self._what):
            for key in keys:
                try:
                    await obstore.delete_async(self._store, key)
                except FileNotFoundError:  # a folder says so, a cloud does not
                    continue

    async def list(self, prefix: str) -> AsyncIterator[Sequence[ListedObject]]:
        with told_as_storage_error(self._what):
            async for page in obstore.list(self._store, prefix, chunk_size=limits.LAKE_LISTED_A_TIME):
                yield [_listed(meta) for meta in page]

    def path(self, key: str) -> Path | None:  # noqa: ARG002 - a cloud's object is nowhere on this disk
        return None

    @property
    def can_sign(self) -> bool:
        return self._can_sign

    async def sign_put(self, key: str, *, seconds: float) -> SignedPut:
        assert self._can_sign, "ask can_sign first"
        with told_as_storage_error(self._what):
            url = await self._sign(self._store, "PUT", key, timedelta(seconds=seconds))
        # Azure takes a PUT only with the kind of blob that it is to make.
        headers = {"x-ms-blob-type": "BlockBlob"} if isinstance(self._store, AzureStore) else {}
        return SignedPut(url=str(url), headers=headers)


class LocalObjectStore(CloudObjectStore):
    """A folder. obstore writes it without fsync: puts bypass it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        with told_as_storage_error(f"the artifact folder {self._folder}"):
            self._durable = DurableFolder(self._folder)
        super().__init__(LocalStore(self._folder), url=self._folder.as_uri())

    async def put(self, key: str, content: bytes) -> None:
        with told_as_storage_error(self._what):
            await asyncio.to_thread(self._durable.put, key, content)

    def path(self, key: str) -> Path | None:
        return self._folder / key


def _listed(meta: Any) -> ListedObject:
    return ListedObject(key=meta["path"], size_bytes=int(meta["size"]), modify_time=meta["last_modified"])


def _absent(key: str) -> ResourceNotFoundError:
    return ResourceNotFoundError(f"objects/{key} is not stored")
