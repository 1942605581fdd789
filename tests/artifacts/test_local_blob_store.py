"""What only a folder shows: durability, leftovers, full and broken disks."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controlplane import limits
from controlplane.artifacts import durable
from controlplane.artifacts.blob_store import LocalBlobStore, blob_key, open_blob_store
from controlplane.artifacts.durable import DurableFolder
from controlplane.domain.errors import FieldInvalidError, Reason, StorageError
from tests.support.factories import digest_of

CONTENT = bytes(3 * limits.CHUNK_BYTES_MAX)
DIGEST = digest_of(CONTENT)


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow further, as a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files_under(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


async def test_a_blob_lies_under_its_digest(tmp_path: Path) -> None:
    await LocalBlobStore(tmp_path).put_bytes(DIGEST, CONTENT)
    hex_digits = DIGEST.removeprefix("sha256:")
    assert files_under(tmp_path) == [Path(f"blobs/sha256/{hex_digits[:2]}/{hex_digits}")]


async def test_a_blob_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[Path, bool]] = []
    blob = tmp_path / blob_key(DIGEST)
    fsync = os.fsync

    def watch(file: int) -> None:
        synced.append((Path(os.readlink(f"/proc/self/fd/{file}")), blob.exists()))
        fsync(file)

    monkeypatch.setattr(os, "fsync", watch)
    await LocalBlobStore(tmp_path).put_bytes(DIGEST, CONTENT)
    assert [path.parent.name for path, named in synced if not named] == ["incoming"]
    assert [path for path, named in synced if named] == [*blob.parents[:3], tmp_path]


def test_names_of_folders_are_made_durable_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, synced = DurableFolder(tmp_path), list[Path]()
    monkeypatch.setattr(durable, "sync_folder", synced.append)
    folder.put("samples/2026/first", b"1")
    assert synced == [tmp_path / "samples/2026", tmp_path / "samples", tmp_path]
    synced.clear()
    folder.put("samples/2026/second", b"2")
    assert synced == [tmp_path / "samples/2026"]
    folder.put("samples/2027/first", b"3")
    assert synced[1:] == [tmp_path / "samples/2027", tmp_path / "samples", tmp_path]


async def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    blobs = LocalBlobStore(tmp_path)
    with files_of_at_most(1 << 20), pytest.raises(StorageError) as refusal:
        await blobs.put_bytes(DIGEST, CONTENT)
    assert refusal.value.reason is Reason.STORAGE_FULL
    assert str(tmp_path) in refusal.value.message
    assert "free space" in refusal.value.remedy
    assert files_under(tmp_path) == []
    await blobs.put_bytes(DIGEST, CONTENT)
    assert await blobs.has(DIGEST)


async def test_a_broken_folder_is_told(tmp_path: Path) -> None:
    blobs = LocalBlobStore(tmp_path)
    (tmp_path / "incoming").rmdir()
    (tmp_path / "incoming").write_text("in the way")
    with pytest.raises(StorageError) as refusal:
        await blobs.put_bytes(DIGEST, CONTENT)
    assert refusal.value.reason is Reason.STORAGE_UNAVAILABLE
    assert refusal.value.remedy


def test_only_old_leftovers_of_kills_are_dropped(tmp_path: Path) -> None:
    LocalBlobStore(tmp_path)
    old, young = tmp_path / "incoming" / "old", tmp_path / "incoming" / "young"
    for path in (old, young):
        path.touch()
    os.utime(old, (0, 0))
    LocalBlobStore(tmp_path)
    assert files_under(tmp_path) == [Path("incoming/young")]


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        open_blob_store("ftp://host/folder")
    assert refusal.value.field == "artifact_url"
    assert "file:///" in refusal.value.remedy


async def test_a_folder_is_opened_by_its_address(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    await open_blob_store(folder.as_uri()).put_bytes(DIGEST, CONTENT)
    assert await LocalBlobStore(folder).has(DIGEST)
