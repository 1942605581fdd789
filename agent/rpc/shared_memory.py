"""Triton's system shared-memory extension: tensors in POSIX shared memory that an application registers by name.

Rules kept:
- Off unless the operator names a prefix; only regions whose key begins with it are opened, never through a link.
- Every range is checked against what was registered, and that against the file, before a byte is touched.
- Inputs are read into memory of our own (pread) and outputs written by pwrite, never through a mapping: an
  application that shrinks its region would kill this process by SIGBUS, and one that writes on while we infer would
  have another image judged than the one that is kept as a sample. The copy costs some 20 us for 150 kB.
- A region is closed when its last request is done, never under one.
"""

import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent import limits
from agent.domain.errors import Reason, RequestError

SHM_FOLDER = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
_KEY = re.compile(r"/?(?P<file>[A-Za-z0-9_.-]{1,250})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """What an application registered: `byte_size` bytes of `key` from `offset` on."""

    name: str
    key: str
    offset: int
    byte_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionRange:
    """`byte_size` bytes of a region, from `offset` within it."""

    region: str
    offset: int
    byte_size: int


@dataclass(slots=True, eq=False)
class _Open:
    region: Region
    descriptor: int
    users: int = 0
    retired: bool = False


class SharedMemory:
    """Registered regions. Thread-safe; `close` once at the end."""

    def __init__(
        self,
        prefix: str,
        *,
        folder: Path = SHM_FOLDER,
        regions_max: int = limits.SHARED_REGIONS_MAX,
        region_bytes_max: int = limits.SHARED_REGION_BYTES_MAX,
    ) -> None:
        """`prefix` is one beginning of keys, or several with commas between; an empty one switches the extension off.
        Raises RequestError for one that no key can begin with."""
        self._prefixes = tuple(_checked_prefix(each) for each in prefix.split(",")) if prefix else ()
        self._folder = folder
        self._regions_max = regions_max
        self._region_bytes_max = region_bytes_max
        self._lock = threading.Lock()
        self._open: dict[str, _Open] = {}

    @property
    def enabled(self) -> bool:
        return bool(self._prefixes)

    def register(self, region: Region) -> None:
        """Open the region. Raises RequestError: REGION_EXISTS for a name that is taken, INPUT_INVALID for a key or
        range that is not allowed or not there, SHARED_MEMORY_OFF."""
        self._check_enabled()
        _check_name(region.name)
        path = self._path(region.key)
        _check_range(region.offset, region.byte_size, "byte_size")
        if region.byte_size == 0:
            raise _invalid("byte_size", "a region of no bytes", "register what the tensors need")
        if region.byte_size > self._region_bytes_max:
            raise _invalid("byte_size", f"{region.byte_size} bytes", f"register at most {self._region_bytes_max}")
        with self._lock:
            if region.name in self._open:
                raise RequestError(
                    f"{region.name!r} is registered already",
                    field="name",
                    remedy="unregister it first, or choose another name",
                    reason=Reason.REGION_EXISTS,
                )
            if len(self._open) >= self._regions_max:
                raise RequestError(
                    f"{len(self._open)} regions are registered",
                    field="name",
                    remedy="unregister one that is not used any more",
                    reason=Reason.QUEUE_FULL,
                )
            self._open[region.name] = _Open(region, _open_file(path, region))

    def unregister(self, name: str) -> None:
        """Forget the region, or all of them for an empty name. One that is not registered is no error, as with
        Triton."""
        self._check_enabled()
        with self._lock:
            names = [name] if name else list(self._open)
            gone = [self._open.pop(each) for each in names if each in self._open]
        for each in gone:
            self._retire(each)

    def regions(self, name: str) -> tuple[Region, ...]:
        """The named region, or all of them, by name. Raises RequestError (REGION_NOT_FOUND)."""
        self._check_enabled()
        with self._lock:
            if name and name not in self._open:
                raise RequestError(
                    f"{name[:64]!r} is not registered",
                    field="name",
                    remedy="register it first",
                    reason=Reason.REGION_NOT_FOUND,
                )
            return tuple(each.region for key, each in sorted(self._open.items()) if name in {"", key})

    def check(self, wanted: RegionRange, *, field: str) -> None:
        """Raises RequestError (INPUT_INVALID, REGION_NOT_FOUND) unless the range lies within a registered region."""
        with self._borrowed(wanted, field):
            return

    def read(self, wanted: RegionRange, *, field: str) -> memoryview:
        """Return a copy of the bytes. Raises RequestError (INPUT_INVALID, REGION_NOT_FOUND)."""
        with self._borrowed(wanted, field) as opened:
            content = np.empty(wanted.byte_size, np.uint8)
            place = opened.region.offset + wanted.offset
            got = os.preadv(opened.descriptor, [content.data], place) if wanted.byte_size else 0
        if got != wanted.byte_size:
            raise _invalid(
                field,
                f"{wanted.region!r} ends after {got} of {wanted.byte_size} bytes",
                "do not shrink a region in use",
            )
        return content.data

    def write(self, wanted: RegionRange, content: memoryview, *, field: str) -> None:
        """Write all of `content` to the beginning of the range. Raises RequestError (INPUT_INVALID,
        REGION_NOT_FOUND)."""
        if content.nbytes > wanted.byte_size:
            raise _invalid(
                field,
                f"{content.nbytes} bytes do not fit into {wanted.byte_size}",
                f"give the output at least {content.nbytes} bytes",
            )
        with self._borrowed(wanted, field) as opened:
            place = opened.region.offset + wanted.offset
            # A shrunk region would grow again by the write, into memory that its owner has given back.
            if os.fstat(opened.descriptor).st_size < place + content.nbytes:
                raise _invalid(field, f"{wanted.region!r} has been shrunk", "do not shrink a region in use")
            if content.nbytes:
                os.pwrite(opened.descriptor, content, place)

    def close(self) -> None:
        """Forget every region."""
        if self.enabled:
            self.unregister("")

    def _check_enabled(self) -> None:
        if not self.enabled:
            raise RequestError(
                "shared memory is off",
                remedy="start the agent with --shared-memory PREFIX, or send tensors in the message",
                reason=Reason.SHARED_MEMORY_OFF,
            )

    def _path(self, key: str) -> Path:
        found = _KEY.fullmatch(key)
        if found is None or not found["file"].startswith(self._prefixes):
            allowed = " or ".join(f"/{each}" for each in self._prefixes)
            raise _invalid("key", f"{key[:64]!r} is not allowed", f"use a key that begins with {allowed}")
        return self._folder / found["file"]

    @contextmanager
    def _borrowed(self, wanted: RegionRange, field: str) -> Iterator[_Open]:
        self._check_enabled()
        _check_range(wanted.offset, wanted.byte_size, field)
        with self._lock:
            opened = self._open.get(wanted.region)
            if opened is None:
                raise RequestError(
                    f"{wanted.region[:64]!r} is not registered",
                    field=field,
                    remedy="register the region first",
                    reason=Reason.REGION_NOT_FOUND,
                )
            if wanted.offset + wanted.byte_size > opened.region.byte_size:
                raise _invalid(
                    field,
                    f"bytes {wanted.offset} to {wanted.offset + wanted.byte_size} of {wanted.region!r}",
                    f"stay within its {opened.region.byte_size} bytes",
                )
            opened.users += 1
        try:
            yield opened
        finally:
            with self._lock:
                opened.users -= 1
                unused = opened.retired and opened.users == 0
            if unused:
                os.close(opened.descriptor)

    def _retire(self, opened: _Open) -> None:
        with self._lock:
            opened.retired = True
            unused = opened.users == 0
        if unused:
            os.close(opened.descriptor)


def _checked_prefix(prefix: str) -> str:
    if not _KEY.fullmatch(prefix):
        raise RequestError(
            f"{prefix[:64]!r} is no beginning of a key",
            field="--shared-memory",
            remedy="use letters, digits, '_', '-' and '.', for example lineside_; commas between several",
        )
    return prefix.removeprefix("/")


def _open_file(path: Path, region: Region) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _invalid(
            "key", f"{region.key!r} cannot be opened: {error.strerror}", "create it first, readable and writable for us"
        ) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size < region.offset + region.byte_size:
        os.close(descriptor)
        raise _invalid(
            "byte_size",
            f"{region.key!r} has {found.st_size} bytes",
            f"give it {region.offset + region.byte_size} before it is registered",
        )
    return descriptor


def _check_name(name: str) -> None:
    if not name or len(name) > limits.IDENTIFIER_CHARS_MAX:
        raise _invalid("name", f"{len(name)} characters", f"use 1 to {limits.IDENTIFIER_CHARS_MAX}")


def _check_range(offset: int, byte_size: int, field: str) -> None:
    if not (0 <= offset < 1 << 62 and 0 <= byte_size < 1 << 62):
        raise _invalid(field, f"offset {offset}, size {byte_size}", "use whole numbers from 0 on")


def _invalid(field: str, message: str, remedy: str) -> RequestError:
    return RequestError(message, field=field, remedy=remedy)
