"""What is seen in contents, read once each and kept."""

import asyncio
from collections.abc import Iterable, Mapping

from controlplane import limits
from controlplane.app.ports import BlobStore, Store
from controlplane.app.ports_datasets import Picture, PictureReader
from controlplane.app.retries import retry_stale
from controlplane.domain.errors import ResourceNotFoundError
from controlplane.domain.ids import Digest
from controlplane.domain.sample import Sample


class PictureReading:
    """Reads contents of samples that nobody read yet."""

    def __init__(self, *, store: Store, blobs: BlobStore, reader: PictureReader) -> None:
        self._store = store
        self._blobs = blobs
        self._reader = reader

    async def of(self, samples: Iterable[Sample]) -> Mapping[Digest, Picture]:
        """Return what is seen in the content of each sample."""
        types = {sample.digest: sample.content_type for sample in samples}
        async with self._store.read() as work:
            known = dict(await work.pictures.find(types.keys()))
        unread = sorted(types.keys() - known.keys())
        for start in range(0, len(unread), limits.DATABASE_BATCH_MAX):
            batch = unread[start : start + limits.DATABASE_BATCH_MAX]
            turns = asyncio.Semaphore(limits.CONTENTS_AT_ONCE_MAX)
            read = await asyncio.gather(*(self._read(digest, types[digest], turns) for digest in batch))
            known |= {picture.digest: picture for picture in read}

            async def keep(read: list[Picture] = read) -> None:
                async with self._store.write() as work:
                    await work.pictures.add(read)

            await retry_stale(keep)
        return known

    async def _read(self, digest: Digest, content_type: str, turns: asyncio.Semaphore) -> Picture:
        async with turns:
            try:
                content = b"".join([chunk async for chunk in self._blobs.read(digest)])
            except ResourceNotFoundError:
                # An object store that lost it: the sample is in no dataset until somebody brings it back.
                return Picture(digest=digest, readable=False)
            return await asyncio.to_thread(self._reader.read, digest, content, content_type=content_type)
