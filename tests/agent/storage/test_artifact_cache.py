"""Artifacts on disk: complete or absent, resumed byte by byte, and never outside the cache."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from agent.domain.artifact import Artifact, ArtifactFile, manifest_digest
from agent.domain.errors import ArtifactError, ControllerError, Reason
from agent.storage import durable
from agent.storage.artifact_cache import DiskArtifactCache
from tests.support.clock import LoopClock
from tests.support.fake_controller import FakeController


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def offer(controller: FakeController, **contents: bytes) -> Artifact:
    files = tuple(
        ArtifactFile(path=path.replace("__", "/").replace("_", "."), digest=digest_of(content), size_bytes=len(content))
        for path, content in sorted(contents.items())
    )
    controller.blobs.update({digest_of(content): content for content in contents.values()})
    return Artifact(digest=manifest_digest(files), files=files)


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


@pytest.fixture
def cache(tmp_path: Path) -> DiskArtifactCache:
    return DiskArtifactCache(tmp_path, clock=LoopClock(), reserve_bytes=0)


async def test_a_fetched_artifact_is_whole_and_named_by_its_digest(
    cache: DiskArtifactCache, controller: FakeController
) -> None:
    artifact = offer(controller, model_xml=b"x" * 5000, sub__weights_bin=b"w" * 70_000, empty_txt=b"")
    assert cache.folder(artifact) is None
    folder = await cache.fetch(artifact, controller)
    assert folder == cache.folder(artifact)
    assert artifact.digest.removeprefix("sha256:") in str(folder)
    assert (folder / "model.xml").read_bytes() == b"x" * 5000
    assert (folder / "sub" / "weights.bin").read_bytes() == b"w" * 70_000
    assert (folder / "empty.txt").read_bytes() == b""
    assert cache.received_bytes(artifact) == artifact.size_bytes
    assert cache.digests() == {artifact.digest}


async def test_a_broken_download_goes_on_and_asks_for_no_byte_twice(tmp_path: Path, controller: FakeController) -> None:
    artifact = offer(controller, model_bin=os.urandom(100_000))
    controller.break_after_bytes = 40_960
    with pytest.raises(ControllerError):
        await DiskArtifactCache(tmp_path, clock=LoopClock(), reserve_bytes=0).fetch(artifact, controller)
    again = DiskArtifactCache(tmp_path, clock=LoopClock(), reserve_bytes=0)  # a restart
    assert again.received_bytes(artifact) == 40_960
    await again.fetch(artifact, controller)
    assert [offset for _, offset in controller.asked] == [0, 40_960]
    assert controller.sent_bytes == 100_000


async def test_a_kill_between_the_last_byte_and_the_rename_loses_no_byte(
    tmp_path: Path, cache: DiskArtifactCache, controller: FakeController
) -> None:
    artifact = offer(controller, a_bin=b"a" * 3000, b_bin=b"b" * 3000)
    for file in artifact.files:
        (tmp_path / "partial").mkdir(exist_ok=True)
        (tmp_path / "partial" / file.digest.removeprefix("sha256:")).write_bytes(controller.blobs[file.digest])
    staging = tmp_path / "artifacts" / f".{artifact.digest.removeprefix('sha256:')}.tmp"
    staging.mkdir(parents=True)
    (staging / "a.bin").write_bytes(b"half")
    folder = await cache.fetch(artifact, controller)
    assert controller.asked == []
    assert (folder / "a.bin").read_bytes() == b"a" * 3000
    assert not staging.exists()


async def test_wrong_bytes_are_discarded_and_reported(cache: DiskArtifactCache, controller: FakeController) -> None:
    artifact = offer(controller, model_bin=b"right" * 1000)
    right = controller.blobs[artifact.files[0].digest]
    controller.blobs[artifact.files[0].digest] = b"wrong" * 1000
    with pytest.raises(ArtifactError) as caught:
        await cache.fetch(artifact, controller)
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert cache.received_bytes(artifact) == 0
    controller.blobs[artifact.files[0].digest] = right
    await cache.fetch(artifact, controller)


@pytest.mark.parametrize("extra", [b"", b"and more"])
async def test_damage_on_disk_is_found_before_it_is_served(
    tmp_path: Path, cache: DiskArtifactCache, controller: FakeController, extra: bytes
) -> None:
    artifact = offer(controller, model_bin=b"right" * 1000)
    (tmp_path / "partial").mkdir()
    damaged = tmp_path / "partial" / artifact.files[0].digest.removeprefix("sha256:")
    damaged.write_bytes(b"wrong" * 1000 + extra)
    if extra:  # too long to be a part of it: begun anew at once
        await cache.fetch(artifact, controller)
        return
    with pytest.raises(ArtifactError):
        await cache.fetch(artifact, controller)
    await cache.fetch(artifact, controller)


async def test_more_bytes_than_announced_are_refused(cache: DiskArtifactCache, controller: FakeController) -> None:
    artifact = offer(controller, model_bin=b"right" * 1000)
    controller.blobs[artifact.files[0].digest] += b"x" * 100_000
    with pytest.raises(ArtifactError) as caught:
        await cache.fetch(artifact, controller)
    assert caught.value.reason is Reason.DIGEST_MISMATCH


async def test_a_stream_that_ends_early_keeps_its_bytes(cache: DiskArtifactCache, controller: FakeController) -> None:
    content = os.urandom(20_000)
    artifact = offer(controller, model_bin=content)
    controller.blobs[artifact.files[0].digest] = content[:8192]
    with pytest.raises(ControllerError) as caught:
        await cache.fetch(artifact, controller)
    assert caught.value.retryable
    assert cache.received_bytes(artifact) == 8192


async def test_a_full_disk_is_known_before_the_first_byte(tmp_path: Path, controller: FakeController) -> None:
    artifact = offer(controller, model_bin=b"x" * 1000)
    with pytest.raises(ArtifactError) as caught:
        await DiskArtifactCache(tmp_path, clock=LoopClock(), reserve_bytes=1 << 60).fetch(artifact, controller)
    assert caught.value.reason is Reason.DISK_FULL
    assert caught.value.remedy
    assert controller.asked == []


async def test_a_disk_that_fills_up_meanwhile_is_named(
    cache: DiskArtifactCache, controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    artifact = offer(controller, model_bin=b"x" * 5000)
    monkeypatch.setattr(durable, "write_fully", full)
    with pytest.raises(ArtifactError) as caught:
        await cache.fetch(artifact, controller)
    assert caught.value.reason is Reason.DISK_FULL


@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a/../../b", "a//b", "", ".", "a\\b", "a\0b"])
async def test_nothing_is_written_outside(
    tmp_path: Path, cache: DiskArtifactCache, controller: FakeController, path: str
) -> None:
    file = ArtifactFile(path=path, digest=digest_of(b"x"), size_bytes=1)
    controller.blobs[file.digest] = b"x"
    with pytest.raises(ArtifactError):
        await cache.fetch(Artifact(digest=manifest_digest([file]), files=(file,)), controller)
    assert list(tmp_path.rglob("*")) == []


async def test_pruning_keeps_what_is_kept(cache: DiskArtifactCache, controller: FakeController) -> None:
    kept, dropped = offer(controller, a_bin=b"a" * 10), offer(controller, b_bin=b"b" * 10)
    unfinished = offer(controller, c_bin=b"c" * 5000)
    await cache.fetch(kept, controller)
    await cache.fetch(dropped, controller)
    controller.break_after_bytes = 1024
    with pytest.raises(ControllerError):
        await cache.fetch(unfinished, controller)
    assert cache.digests() == {kept.digest, dropped.digest, unfinished.files[0].digest}
    cache.prune(frozenset({kept.digest, unfinished.files[0].digest}))
    assert cache.digests() == {kept.digest, unfinished.files[0].digest}
    cache.prune(frozenset())
    assert cache.digests() == frozenset()
