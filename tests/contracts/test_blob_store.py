"""What every BlobStore keeps: the folder, any store of obstore's (its memory store here), and the fake."""

import random
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from controlplane import limits
from controlplane.app.ports import BlobStore
from controlplane.artifacts.blob_store import LocalBlobStore, ObjectBlobStore
from controlplane.domain.errors import FieldInvalidError, ResourceNotFoundError
from controlplane.domain.ids import Digest
from tests.support.factories import digest_of
from tests.support.memory_blobs import MemoryBlobStore

CONTENT = random.Random(1).randbytes(2 * limits.CHUNK_BYTES_MAX + 17)
DIGEST = digest_of(CONTENT)


@pytest.fixture(params=["local", "object", "fake"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    match request.param:
        case "local":
            return LocalBlobStore(tmp_path / "artifacts")
        case "object":
            return ObjectBlobStore(MemoryStore(), url="memory://")
        case _:
            return MemoryBlobStore()


async def read_all(blobs: BlobStore, digest: Digest, offset_bytes: int = 0) -> list[bytes]:
    return [chunk async for chunk in blobs.read(digest, offset_bytes=offset_bytes)]


async def test_gives_back_the_bytes_it_was_given(blobs: BlobStore) -> None:
    await blobs.put_bytes(DIGEST, CONTENT)
    assert b"".join(await read_all(blobs, DIGEST)) == CONTENT
    assert await blobs.size(DIGEST) == len(CONTENT)


async def test_stores_a_file_and_leaves_it_where_it_is(blobs: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    await blobs.put_file(DIGEST, source)
    assert source.read_bytes() == CONTENT
    assert b"".join(await read_all(blobs, DIGEST)) == CONTENT


@pytest.mark.parametrize("offset_bytes", [0, 1, limits.CHUNK_BYTES_MAX, len(CONTENT) - 1, len(CONTENT)])
async def test_reads_from_an_offset_in_chunks_of_at_most_a_mebibyte(blobs: BlobStore, offset_bytes: int) -> None:
    await blobs.put_bytes(DIGEST, CONTENT)
    chunks = await read_all(blobs, DIGEST, offset_bytes)
    assert b"".join(chunks) == CONTENT[offset_bytes:]
    assert all(0 < len(chunk) <= limits.CHUNK_BYTES_MAX for chunk in chunks)


@pytest.mark.parametrize("offset_bytes", [-1, len(CONTENT) + 1])
async def test_an_offset_outside_the_blob_is_refused(blobs: BlobStore, offset_bytes: int) -> None:
    await blobs.put_bytes(DIGEST, CONTENT)
    with pytest.raises(FieldInvalidError) as refusal:
        await read_all(blobs, DIGEST, offset_bytes)
    assert refusal.value.field == "offset_bytes"
    assert refusal.value.remedy


async def test_an_absent_blob_is_not_found(blobs: BlobStore, tmp_path: Path) -> None:
    assert not await blobs.has(DIGEST)
    for asked in (blobs.size(DIGEST), read_all(blobs, DIGEST), blobs.fetch(DIGEST, tmp_path / "copy")):
        with pytest.raises(ResourceNotFoundError, match=DIGEST):
            await asked


async def test_an_empty_blob_is_a_blob(blobs: BlobStore) -> None:
    empty = digest_of(b"")
    await blobs.put_bytes(empty, b"")
    assert await blobs.has(empty)
    assert await read_all(blobs, empty) == []


async def test_putting_the_same_blob_again_changes_nothing(blobs: BlobStore) -> None:
    await blobs.put_bytes(DIGEST, CONTENT)
    await blobs.put_bytes(DIGEST, CONTENT)
    assert b"".join(await read_all(blobs, DIGEST)) == CONTENT


async def test_fetch_writes_the_blob_to_a_file(blobs: BlobStore, tmp_path: Path) -> None:
    await blobs.put_bytes(DIGEST, CONTENT)
    await blobs.fetch(DIGEST, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT


async def test_a_reader_that_stops_early_leaves_the_store_usable(blobs: BlobStore) -> None:
    await blobs.put_bytes(DIGEST, CONTENT)
    async for _ in blobs.read(DIGEST):
        break
    assert b"".join(await read_all(blobs, DIGEST)) == CONTENT
