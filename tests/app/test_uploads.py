"""Uploads over the real folder: resumed after any end of the process, verified with the last byte."""

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane import limits
from controlplane.app.uploads import Upload, Uploads, parse_upload_name
from controlplane.artifacts.staging import UploadFolder
from controlplane.domain.errors import (
    DomainError,
    FieldInvalidError,
    LimitExceededError,
    PreconditionError,
    Reason,
    ResourceNotFoundError,
    StorageError,
)
from tests.support.factories import digest_of
from tests.support.memory_blobs import MemoryBlobStore

CONTENT = random.Random(2).randbytes(3_000_000)
DIGEST = digest_of(CONTENT)
PART = DIGEST.removeprefix("sha256:") + ".part"


@pytest.fixture
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


def uploads_in(folder: Path, blobs: MemoryBlobStore) -> Uploads:
    """A fresh process, as far as memory goes."""
    return Uploads(staging=UploadFolder(folder), blobs=blobs)


async def pieces(content: bytes, size_bytes: int = 700_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size_bytes):
        yield content[start : start + size_bytes]


async def write_some(uploads: Uploads, up_to: int, *, start: int = 0) -> Upload:
    return await uploads.write(DIGEST, offset_bytes=start, pieces=pieces(CONTENT[start:up_to]))


async def test_a_blob_is_stored_when_its_last_byte_has_come(folder: Path, blobs: MemoryBlobStore) -> None:
    uploads = uploads_in(folder, blobs)
    created = await uploads.create(DIGEST, len(CONTENT))
    assert (created.committed_bytes, created.complete) == (0, False)
    written = await write_some(uploads, len(CONTENT))
    assert (written.committed_bytes, written.complete) == (len(CONTENT), True)
    assert blobs.blobs == {DIGEST: CONTENT}
    assert list(folder.iterdir()) == []


async def test_a_blob_that_is_stored_needs_no_bytes(folder: Path, blobs: MemoryBlobStore) -> None:
    await blobs.put_bytes(DIGEST, CONTENT)
    uploads = uploads_in(folder, blobs)
    assert (await uploads.create(DIGEST, len(CONTENT))).complete
    assert (await write_some(uploads, len(CONTENT))).complete


@pytest.mark.parametrize("same_process", [True, False])
async def test_goes_on_from_what_is_on_disk(folder: Path, blobs: MemoryBlobStore, same_process: bool) -> None:
    before = uploads_in(folder, blobs)
    await before.create(DIGEST, len(CONTENT))
    assert (await write_some(before, 1_234_567)).committed_bytes == 1_234_567
    after = before if same_process else uploads_in(folder, blobs)
    assert (await after.create(DIGEST, len(CONTENT))).committed_bytes == 1_234_567
    assert (await write_some(after, len(CONTENT), start=1_234_567)).complete
    assert blobs.blobs[DIGEST] == CONTENT


async def test_what_came_before_a_stream_broke_is_kept(folder: Path, blobs: MemoryBlobStore) -> None:
    uploads = uploads_in(folder, blobs)
    await uploads.create(DIGEST, len(CONTENT))

    async def broken() -> AsyncIterator[bytes]:
        yield CONTENT[:1_000_000]
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await uploads.write(DIGEST, offset_bytes=0, pieces=broken())
    assert (await uploads.create(DIGEST, len(CONTENT))).committed_bytes == 1_000_000


async def test_a_kill_between_the_last_byte_and_the_store_needs_no_byte_again(
    folder: Path, blobs: MemoryBlobStore
) -> None:
    await uploads_in(folder, blobs).create(DIGEST, len(CONTENT))
    (folder / PART).write_bytes(CONTENT)
    uploads = uploads_in(folder, blobs)
    assert (await uploads.create(DIGEST, len(CONTENT))).committed_bytes == len(CONTENT)
    assert (await write_some(uploads, len(CONTENT), start=len(CONTENT))).complete
    assert blobs.blobs == {DIGEST: CONTENT}


async def test_an_empty_blob_needs_a_write_of_nothing(folder: Path, blobs: MemoryBlobStore) -> None:
    uploads, empty = uploads_in(folder, blobs), digest_of(b"")
    await uploads.create(empty, 0)
    assert (await uploads.write(empty, offset_bytes=0, pieces=pieces(b""))).complete
    assert blobs.blobs == {empty: b""}


async def test_a_writer_cancelled_in_mid_write_leaves_a_sound_upload(
    folder: Path, blobs: MemoryBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = uploads_in(folder, blobs)
    await uploads.create(DIGEST, len(CONTENT))
    writing, go_on, pwrite = threading.Event(), threading.Event(), os.pwrite

    def slow_pwrite(file: int, data: memoryview, offset_bytes: int) -> int:
        writing.set()
        go_on.wait(20)
        return pwrite(file, data, offset_bytes)

    monkeypatch.setattr(os, "pwrite", slow_pwrite)
    older = asyncio.create_task(write_some(uploads, 700_000))
    await asyncio.to_thread(writing.wait, 20)
    older.cancel()
    newer = asyncio.create_task(write_some(uploads, len(CONTENT), start=700_000))
    done, _ = await asyncio.wait([older, newer], timeout=0.2)
    assert not done, "the thread is still writing"
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await older
    assert (await newer).complete
    assert blobs.blobs[DIGEST] == CONTENT


async def test_bytes_of_another_digest_are_dropped(folder: Path, blobs: MemoryBlobStore) -> None:
    uploads = uploads_in(folder, blobs)
    await uploads.create(DIGEST, len(CONTENT))
    with pytest.raises(FieldInvalidError) as refusal:
        await uploads.write(DIGEST, offset_bytes=0, pieces=pieces(bytes(len(CONTENT))))
    assert refusal.value.reason is Reason.DIGEST_MISMATCH
    assert refusal.value.field == "upload.digest"
    assert refusal.value.remedy
    assert blobs.blobs == {}
    assert list(folder.iterdir()) == []
    assert (await uploads.create(DIGEST, len(CONTENT))).committed_bytes == 0


async def test_a_spoiled_prefix_from_before_a_restart_is_found_out(folder: Path, blobs: MemoryBlobStore) -> None:
    await uploads_in(folder, blobs).create(DIGEST, len(CONTENT))
    (folder / PART).write_bytes(bytes(1_000_000))
    with pytest.raises(FieldInvalidError) as refusal:
        await write_some(uploads_in(folder, blobs), len(CONTENT), start=1_000_000)
    assert refusal.value.reason is Reason.DIGEST_MISMATCH


async def test_a_wrong_offset_names_the_right_one(folder: Path, blobs: MemoryBlobStore) -> None:
    uploads = uploads_in(folder, blobs)
    await uploads.create(DIGEST, len(CONTENT))
    await write_some(uploads, 500_000)
    for wrong in (0, 499_999, 500_001):
        with pytest.raises(PreconditionError) as refusal:
            await write_some(uploads, len(CONTENT), start=wrong)
        assert refusal.value.reason is Reason.UPLOAD_OFFSET
        assert refusal.value.field == "offset_bytes"
        assert "500000" in refusal.value.remedy
    assert (await write_some(uploads, len(CONTENT), start=500_000)).complete


async def test_bytes_beyond_the_announced_size_are_refused(folder: Path, blobs: MemoryBlobStore) -> None:
    uploads = uploads_in(folder, blobs)
    await uploads.create(DIGEST, len(CONTENT) - 1)
    with pytest.raises(FieldInvalidError) as refusal:
        await write_some(uploads, len(CONTENT))
    assert refusal.value.field == "data"
    assert blobs.blobs == {}


async def test_another_size_starts_the_upload_anew(folder: Path, blobs: MemoryBlobStore) -> None:
    uploads = uploads_in(folder, blobs)
    await uploads.create(DIGEST, 2_000_000)
    await write_some(uploads, 1_000_000)
    assert (await uploads.create(DIGEST, len(CONTENT))).committed_bytes == 0
    assert (await write_some(uploads, len(CONTENT))).complete


async def test_a_newer_writer_takes_over_from_one_that_hangs(folder: Path, blobs: MemoryBlobStore) -> None:
    uploads = uploads_in(folder, blobs)
    await uploads.create(DIGEST, len(CONTENT))
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        yield CONTENT[:1_000_000]
        arrived.set()
        await go_on.wait()
        yield CONTENT[1_000_000:]

    older = asyncio.create_task(uploads.write(DIGEST, offset_bytes=0, pieces=hanging()))
    await arrived.wait()
    newer = await write_some(uploads, 2_000_000, start=1_000_000)
    assert newer.committed_bytes == 2_000_000
    go_on.set()
    with pytest.raises(PreconditionError, match="taken this upload over") as refusal:
        await older
    assert refusal.value.remedy
    assert (await write_some(uploads, len(CONTENT), start=2_000_000)).complete
    assert blobs.blobs[DIGEST] == CONTENT


async def test_a_writer_in_another_process_is_not_disturbed(folder: Path, blobs: MemoryBlobStore) -> None:
    one, other = uploads_in(folder, blobs), uploads_in(folder, blobs)
    await one.create(DIGEST, len(CONTENT))
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        yield CONTENT[:1_000_000]
        arrived.set()
        await go_on.wait()
        yield CONTENT[1_000_000:]

    first = asyncio.create_task(one.write(DIGEST, offset_bytes=0, pieces=hanging()))
    await arrived.wait()
    with pytest.raises(PreconditionError, match="another writer"):
        await write_some(other, len(CONTENT), start=1_000_000)
    go_on.set()
    assert (await first).complete


async def test_writing_an_unknown_upload_is_not_found(folder: Path, blobs: MemoryBlobStore) -> None:
    with pytest.raises(ResourceNotFoundError):
        await write_some(uploads_in(folder, blobs), len(CONTENT))


@pytest.mark.parametrize(
    ("digest", "size_bytes", "field"),
    [
        ("sha256:x", 1, "upload.digest"),
        (DIGEST.upper(), 1, "upload.digest"),
        (DIGEST, -1, "upload.size_bytes"),
        (DIGEST, limits.UPLOAD_BYTES_MAX + 1, "upload.size_bytes"),
    ],
)
async def test_bad_requests_name_field_and_remedy(
    folder: Path, blobs: MemoryBlobStore, digest: str, size_bytes: int, field: str
) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        await uploads_in(folder, blobs).create(digest, size_bytes)
    assert refusal.value.field == field
    assert refusal.value.remedy
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", "uploads", "uploads/", "uploads/../etc", f"blobs/{'a' * 64}", "uploads/" + "A" * 64]
)
def test_only_names_of_uploads_are_taken(name: str) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        parse_upload_name(name)
    assert refusal.value.field == "name"


async def test_what_cannot_fit_is_refused_before_a_byte_is_sent(folder: Path, blobs: MemoryBlobStore) -> None:
    tight = UploadFolder(folder, free_bytes=lambda _: limits.UPLOAD_DISK_RESERVE_BYTES + 10)
    uploads = Uploads(staging=tight, blobs=blobs)
    await uploads.create(digest_of("fits"), 10)
    with pytest.raises(StorageError) as refusal:
        await uploads.create(DIGEST, 11)
    assert refusal.value.reason is Reason.STORAGE_FULL
    assert str(folder) in refusal.value.message
    assert "free space" in refusal.value.remedy


async def test_a_disk_that_fills_up_is_told_and_the_upload_goes_on_later(folder: Path, blobs: MemoryBlobStore) -> None:
    uploads = uploads_in(folder, blobs)
    await uploads.create(DIGEST, len(CONTENT))
    (folder / PART).symlink_to("/dev/full")
    with pytest.raises(StorageError) as refusal:
        await write_some(uploads, len(CONTENT))
    assert refusal.value.reason is Reason.STORAGE_FULL
    assert refusal.value.remedy
    (folder / PART).unlink()
    assert (await uploads.create(DIGEST, len(CONTENT))).committed_bytes == 0
    assert (await write_some(uploads, len(CONTENT))).complete


async def test_a_folder_that_is_gone_is_told(folder: Path, blobs: MemoryBlobStore) -> None:
    uploads = uploads_in(folder, blobs)
    folder.rmdir()
    with pytest.raises(StorageError) as refusal:
        await uploads.create(DIGEST, 10)
    assert refusal.value.reason is Reason.STORAGE_UNAVAILABLE


async def test_abandoned_uploads_are_dropped(folder: Path, blobs: MemoryBlobStore) -> None:
    uploads = uploads_in(folder, blobs)
    await uploads.create(DIGEST, len(CONTENT))
    await write_some(uploads, 1_000_000)
    young = digest_of("young")
    await uploads.create(young, 10)
    for path in folder.glob(f"{DIGEST.removeprefix('sha256:')}.*"):
        os.utime(path, (1, 1))
    await uploads.create(young, 10)
    assert [path.name for path in folder.iterdir()] == [f"{young.removeprefix('sha256:')}.size"]


async def test_unfinished_uploads_are_bounded(
    folder: Path, blobs: MemoryBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UPLOADS_MAX", 2)
    uploads = uploads_in(folder, blobs)
    for name in "ab":
        await uploads.create(digest_of(name), 1)
    with pytest.raises(LimitExceededError) as refusal:
        await uploads.create(digest_of("c"), 1)
    assert refusal.value.remedy
    await uploads.create(digest_of("a"), 1)


async def test_every_refusal_is_a_domain_error_with_a_reason(folder: Path, blobs: MemoryBlobStore) -> None:
    with pytest.raises(DomainError) as refusal:
        await uploads_in(folder, blobs).create("", 0)
    assert refusal.value.reason in Reason
