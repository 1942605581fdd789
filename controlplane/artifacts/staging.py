"""Blobs on their way in: `{sha256 hex}.part` holds the bytes, `{sha256 hex}.size` the size that was announced.

What holds:
- What is committed is what the file holds, so a killed process goes on where its last write ended.
- One writer an upload: a newer one takes over, and the older is refused at its next write.
- The sha256 runs along with the writes; a prefix from before a restart is hashed again once.
- A file is locked while it is written, so that a second process on the same folder is refused.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from controlplane import limits
from controlplane.app.uploads import UploadWriter
from controlplane.artifacts.durable import sync_folder
from controlplane.artifacts.failures import told_as_storage_error
from controlplane.domain.errors import (
    LimitExceededError,
    PreconditionError,
    Reason,
    ResourceNotFoundError,
    StorageError,
)
from controlplane.domain.ids import Digest

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class _Upload:
    """What this process knows of an upload: who writes it, and the hash of its first bytes."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    writer: "_Writer | None" = None
    hashed_bytes: int = 0
    sha256: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def forget_hash(self) -> None:
        self.hashed_bytes = 0
        self.sha256 = hashlib.sha256()


def free_bytes_of(folder: Path) -> int:
    """Free bytes of the file system that the folder is on."""
    return shutil.disk_usage(folder).free


class UploadFolder:
    """Uploads in one folder; implements `app.uploads.UploadStaging`."""

    def __init__(
        self,
        folder: Path,
        *,
        wall_time: Callable[[], float] = time.time,
        free_bytes: Callable[[Path], int] = free_bytes_of,
    ) -> None:
        self._folder = folder
        self._what = f"the upload folder {folder}"
        self._wall_time = wall_time
        self._free_bytes = free_bytes
        self._uploads: dict[Digest, _Upload] = {}
        with told_as_storage_error(self._what):
            folder.mkdir(parents=True, exist_ok=True)

    async def begin(self, digest: Digest, *, size_bytes: int) -> int:
        """Find or start the upload; return the committed bytes. Another announced size than before starts anew."""
        await self._blocking(self._prune)
        async with self._upload(digest).lock:
            return await self._blocking(self._begin, digest, size_bytes)

    def _begin(self, digest: Digest, size_bytes: int) -> int:
        announced = self._announced(digest)
        committed = self._committed(digest)
        if announced != size_bytes:
            if announced is None and len(list(self._folder.glob("*.size"))) >= limits.UPLOADS_MAX:
                raise LimitExceededError(
                    f"{limits.UPLOADS_MAX} uploads are unfinished",
                    remedy="finish those; abandoned ones are dropped after "
                    f"{limits.UPLOAD_AGE_SECONDS_MAX // 86400} days",
                )
            self._uploads[digest].writer = None
            self._uploads[digest].forget_hash()
            self._part(digest).unlink(missing_ok=True)
            committed = 0
        self._check_space(size_bytes - committed)
        if announced != size_bytes:
            # Renamed into place: a kill leaves no half-written number.
            half = self._size(digest).with_suffix(".new")
            half.write_text(str(size_bytes))
            half.replace(self._size(digest))
        return committed

    async def size(self, digest: Digest) -> int:
        announced = await self._blocking(self._announced, digest)
        if announced is None:
            raise ResourceNotFoundError(
                f"uploads/{digest.removeprefix('sha256:')} does not exist", field="name", remedy="create the upload"
            )
        return announced

    async def open(self, digest: Digest, *, offset_bytes: int) -> UploadWriter:
        """Become the writer. Raises PreconditionError (UPLOAD_OFFSET) unless the offset is what is committed."""
        size_bytes = await self.size(digest)
        upload = self._upload(digest)
        writer = _Writer(self, digest, upload, size_bytes)
        before, upload.writer = upload.writer, writer
        async with upload.lock:
            if before is not None:
                before.release()
            await self._blocking(writer.open, offset_bytes)
        return writer

    async def discard(self, digest: Digest) -> None:
        await self._blocking(self._discard, digest)

    def _discard(self, digest: Digest) -> None:
        self._part(digest).unlink(missing_ok=True)
        self._size(digest).unlink(missing_ok=True)
        sync_folder(self._folder)
        self._uploads.pop(digest, None)

    def _prune(self) -> None:
        oldest = self._wall_time() - limits.UPLOAD_AGE_SECONDS_MAX
        for size in self._folder.glob("*.size"):
            part = size.with_suffix(".part")
            touched = max(path.stat().st_mtime for path in (size, part) if path.exists())
            if touched < oldest:
                self._discard(Digest(f"sha256:{size.stem}"))

    def _check_space(self, wanted_bytes: int) -> None:
        free_bytes = self._free_bytes(self._folder) - limits.UPLOAD_DISK_RESERVE_BYTES
        if wanted_bytes > free_bytes:
            raise StorageError(
                f"{self._what} has room for {max(free_bytes, 0)} bytes, not for {wanted_bytes}",
                remedy="free space on it and try again: what is uploaded is kept",
                reason=Reason.STORAGE_FULL,
            )

    async def _blocking(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it in a thread, and be done only when it is: a call that is cancelled must not leave a thread that
        writes behind the lock, or into a file that is closed meanwhile."""
        with told_as_storage_error(self._what):
            running = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await _finished(running)
                raise

    def _upload(self, digest: Digest) -> _Upload:
        return self._uploads.setdefault(digest, _Upload())

    def _announced(self, digest: Digest) -> int | None:
        try:
            return int(self._size(digest).read_text())
        except FileNotFoundError:
            return None

    def _committed(self, digest: Digest) -> int:
        try:
            return self._part(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def _part(self, digest: Digest) -> Path:
        return self._folder / f"{digest.removeprefix('sha256:')}.part"

    def _size(self, digest: Digest) -> Path:
        return self._folder / f"{digest.removeprefix('sha256:')}.size"


async def _finished(running: "asyncio.Future[T]") -> None:
    """Return when it is done, however often this task is cancelled meanwhile; its outcome no longer matters."""
    while not running.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([running])
    if not running.cancelled():
        running.exception()


class _Writer:
    """The one writer of an upload, until a newer one takes over."""

    def __init__(self, staging: UploadFolder, digest: Digest, upload: _Upload, size_bytes: int) -> None:
        self._staging = staging
        self._digest = digest
        self._upload = upload
        self._file = -1
        self.size_bytes = size_bytes
        self.committed_bytes = 0

    @property
    def path(self) -> Path:
        return self._staging._part(self._digest)  # noqa: SLF001  # one module, two halves

    def open(self, offset_bytes: int) -> None:
        """Blocks. Locks the file and hashes what a process before this one wrote."""
        committed = self._staging._committed(self._digest)  # noqa: SLF001
        if offset_bytes != committed:
            raise PreconditionError(
                f"the upload goes on at {committed}, not at {offset_bytes}",
                field="offset_bytes",
                remedy=f"send the bytes from offset {committed} on",
                reason=Reason.UPLOAD_OFFSET,
            )
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise _taken_over() from error
        self.committed_bytes = committed
        if self._upload.hashed_bytes > committed:
            self._upload.forget_hash()
        while wanted := min(committed - self._upload.hashed_bytes, limits.CHUNK_BYTES_MAX):
            piece = os.pread(self._file, wanted, self._upload.hashed_bytes)
            if not piece:
                raise OSError(errno.EIO, "the upload became shorter")
            self._upload.sha256.update(piece)
            self._upload.hashed_bytes += len(piece)

    async def append(self, data: bytes) -> None:
        """Write behind what is committed. The caller keeps within `size_bytes`."""
        async with self._upload.lock:
            self._check_owner()
            await self._staging._blocking(self._append, data)  # noqa: SLF001

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._file, rest, self.committed_bytes)
            self._upload.sha256.update(rest[:written])
            self._upload.hashed_bytes += written
            self.committed_bytes += written
            rest = rest[written:]

    async def sha256(self) -> Digest:
        """Digest of what is committed."""
        async with self._upload.lock:
            self._check_owner()
            return Digest("sha256:" + self._upload.sha256.hexdigest())

    async def close(self) -> None:
        """Give the upload up; what is committed stays."""
        async with self._upload.lock:
            self.release()
            if self._upload.writer is self:
                self._upload.writer = None

    def release(self) -> None:
        """Close the file, and with it the lock. Further calls do nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _check_owner(self) -> None:
        if self._upload.writer is not self:
            self.release()
            raise _taken_over()


def _taken_over() -> PreconditionError:
    return PreconditionError(
        "another writer has taken this upload over",
        field="name",
        remedy="ask again with CreateUpload how many bytes are held, and go on from there",
        reason=Reason.UPLOAD_OFFSET,
    )
