"""Verified artifacts by digest.

Rules kept here:
- A folder under `artifacts/` is complete and has the right bytes: it appears by one rename, after every file was
  verified and made durable (once an artifact, not once a chunk).
- A byte that is on disk is never asked for again: a download goes on from what `partial/` holds, after hashing it.
- Bytes that turn out wrong are discarded whole, so that a fresh try starts clean.
- Nothing is written outside the cache, whatever paths a manifest names.
"""

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import structlog

from agent import limits
from agent.app.ports import Clock, Controller
from agent.domain.artifact import Artifact, ArtifactFile, check_path
from agent.domain.errors import ArtifactError, ControllerError, Reason
from agent.storage import durable
from agent.storage.pace import Pace

_HASH_BLOCK_BYTES = 4 << 20

_log = structlog.get_logger()


@dataclass(slots=True)
class DownloadCounts:
    """Since the start. A download that went on after a failure counts as one failed and one complete."""

    received_bytes: int = 0
    complete: int = 0
    failed: int = 0


class DiskArtifactCache:
    """`app.ports.ArtifactCache` in a folder. One fetch at a time."""

    def __init__(self, root: Path, *, clock: Clock, reserve_bytes: int = limits.DISK_RESERVE_BYTES) -> None:
        self._pace = Pace(clock)
        self._artifacts = root / "artifacts"
        self._partial = root / "partial"
        self._reserve_bytes = reserve_bytes
        self.counts = DownloadCounts()

    def folder(self, artifact: Artifact) -> Path | None:
        path = self._artifacts / _hex(artifact.digest)
        return path if path.is_dir() else None

    def received_bytes(self, artifact: Artifact) -> int:
        if self.folder(artifact) is not None:
            return artifact.size_bytes
        return sum(_size(self._partial / _hex(digest)) for digest in {file.digest for file in artifact.files})

    def digests(self) -> frozenset[str]:
        names = [*_entries(self._artifacts), *_entries(self._partial)]
        return frozenset(f"sha256:{name}" for name in names if not name.startswith("."))

    def prune(self, keep: frozenset[str]) -> None:
        for digest in self.digests() - keep:
            shutil.rmtree(self._artifacts / _hex(digest), ignore_errors=True)
            (self._partial / _hex(digest)).unlink(missing_ok=True)

    async def fetch(self, artifact: Artifact, controller: Controller, *, bytes_per_second_max: int = 0) -> Path:
        for file in artifact.files:
            check_path(file.path)
        loop = asyncio.get_running_loop()
        # One thread hashes and writes in order while the loop receives; both release the interpreter's lock.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="artifact") as worker:
            try:
                await loop.run_in_executor(worker, self._make_room, artifact)
                for file in artifact.files:
                    await self._fetch_file(file, controller, worker, bytes_per_second_max=bytes_per_second_max)
                path = await loop.run_in_executor(worker, self._publish, artifact)
            except OSError as error:
                self.counts.failed += 1
                raise _disk_error(error) from error
            except (ArtifactError, ControllerError):
                self.counts.failed += 1
                raise
            self.counts.complete += 1
            return path

    def _make_room(self, artifact: Artifact) -> None:
        """Raises ArtifactError (DISK_FULL) when the rest would eat into the reserve."""
        for folder in (self._artifacts, self._partial):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        missing_bytes = artifact.size_bytes - self.received_bytes(artifact)
        free_bytes = shutil.disk_usage(self._partial).free
        if missing_bytes > 0 and free_bytes < missing_bytes + self._reserve_bytes:
            raise ArtifactError(
                f"{missing_bytes} bytes are missing; {free_bytes} are free, of which {self._reserve_bytes} stay free",
                field="artifact",
                remedy="free some disk on the agent's box, then offer the version again with `lineside rollouts`",
                reason=Reason.DISK_FULL,
            )

    async def _fetch_file(
        self, file: ArtifactFile, controller: Controller, worker: ThreadPoolExecutor, *, bytes_per_second_max: int
    ) -> None:
        loop = asyncio.get_running_loop()
        path = self._partial / _hex(file.digest)
        writer = await loop.run_in_executor(worker, _FileWriter.resume, path, file)
        try:
            if writer.size_bytes < file.size_bytes:
                if writer.size_bytes:
                    _log.info("download_resumed", digest=file.digest, offset_bytes=writer.size_bytes)
                stream = self._counted(controller.read_blob(file.digest, offset_bytes=writer.size_bytes))
                await _pump(self._pace.keep(stream, bytes_per_second_max), writer, worker)
            await loop.run_in_executor(worker, writer.verify)
        finally:
            # A cancelled fetch may have left a write running in the thread: the file is closed after it, not under it.
            await asyncio.shield(loop.run_in_executor(worker, writer.close))

    async def _counted(self, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in stream:
            self.counts.received_bytes += len(chunk)
            yield chunk

    def _publish(self, artifact: Artifact) -> Path:
        """Put the verified files together under their names, durably, and show the folder by one rename."""
        target = self._artifacts / _hex(artifact.digest)
        if target.is_dir():
            return target
        staging = self._artifacts / f".{target.name}.tmp"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        folders = {staging}
        for file in artifact.files:
            path = staging.joinpath(*PurePosixPath(file.path).parts)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            folders.update(parent for parent in path.parents if staging in (parent, *parent.parents))
            # A link, so that a kill from here on leaves the received bytes where the next start looks for them.
            os.link(self._partial / _hex(file.digest), path)
        for folder in folders:
            durable.sync_folder(folder)
        staging.rename(target)
        durable.sync_folder(self._artifacts)
        for file in artifact.files:
            (self._partial / _hex(file.digest)).unlink(missing_ok=True)
        return target


async def _pump(stream: AsyncIterator[bytes], writer: "_FileWriter", worker: ThreadPoolExecutor) -> None:
    """Hand the stream's bytes to the writer in order, a bounded number of chunks ahead of it."""
    loop = asyncio.get_running_loop()
    room = asyncio.Semaphore(limits.DOWNLOAD_QUEUE_CHUNKS)
    last: asyncio.Future[None] | None = None

    def settle(done: asyncio.Future[None]) -> None:
        room.release()
        if not done.cancelled():
            done.exception()  # read here; the failure itself is raised below, from the writer

    async for chunk in stream:
        await room.acquire()
        if writer.error is not None:
            break
        last = loop.run_in_executor(worker, writer.write, chunk)
        last.add_done_callback(settle)
    if last is not None:
        await asyncio.wait([last])
    if writer.error is not None:
        raise writer.error
    if last is not None and writer.size_bytes < writer.size_bytes_wanted:
        # Some bytes are better than before: keep them and go on later. No bytes at all would go on for ever.
        raise ControllerError("the stream of a file ended early", field="artifact.files")


class _FileWriter:
    """A file on its way, hashed as it grows. Every method but `error` runs in the one worker thread."""

    def __init__(self, path: Path, file: ArtifactFile) -> None:
        self._path = path
        self._file = file
        self._hash = hashlib.sha256()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size_bytes = 0
        self.size_bytes_wanted = file.size_bytes
        self.error: OSError | ArtifactError | None = None

    @classmethod
    def resume(cls, path: Path, file: ArtifactFile) -> "_FileWriter":
        """Open what is there and hash it; more than the file may have is no part of it and is discarded."""
        writer = cls(path, file)
        if os.fstat(writer._descriptor).st_size > file.size_bytes:
            os.ftruncate(writer._descriptor, 0)
        while block := os.read(writer._descriptor, _HASH_BLOCK_BYTES):
            writer._hash.update(block)
            writer.size_bytes += len(block)
        return writer

    def write(self, chunk: bytes) -> None:
        if self.error is not None:
            return
        if self.size_bytes + len(chunk) > self._file.size_bytes:
            self.error = self._discard(f"more than {self._file.size_bytes} bytes came")
            return
        try:
            durable.write_fully(self._descriptor, chunk)
        except OSError as error:
            self.error = error
            return
        self._hash.update(chunk)
        self.size_bytes += len(chunk)

    def verify(self) -> None:
        """Make the bytes durable if they are the right ones; else discard them and raise DIGEST_MISMATCH."""
        if self.size_bytes != self._file.size_bytes:
            raise self._discard(f"{self.size_bytes} of {self._file.size_bytes} bytes came")
        digest = f"sha256:{self._hash.hexdigest()}"
        if digest != self._file.digest:
            raise self._discard(f"the bytes have {digest}")
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def _discard(self, what: str) -> ArtifactError:
        os.ftruncate(self._descriptor, 0)
        return ArtifactError(
            f"{self._file.path} should be {self._file.digest}: {what}",
            field="artifact.files",
            remedy="the bytes are discarded and asked for once more; if it goes on, publish the version again",
            reason=Reason.DIGEST_MISMATCH,
        )


def _hex(digest: str) -> str:
    """The digest's hex digits, safe as a file name; the wire's conversion has refused every other form."""
    algorithm, _, digits = digest.partition(":")
    assert algorithm == "sha256"
    assert len(digits) == 64
    assert not set(digits) - set("0123456789abcdef")
    return digits


def _entries(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _disk_error(error: OSError) -> ArtifactError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return ArtifactError(
        f"cannot keep the artifact: {error.strerror or error}",
        field="artifact",
        remedy="free some disk on the agent's box" if full else "make the agent's folder writable",
        reason=Reason.DISK_FULL if full else Reason.STATE_UNWRITABLE,
    )
