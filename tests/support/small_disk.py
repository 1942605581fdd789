"""A disk of the test's own that fills up and becomes read-only on demand: a tmpfs, for which the test must be root."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """Mounted at `folder`. Its size is a bound and costs no memory."""

    folder: Path
    size_bytes: int

    def fill(self) -> None:
        """Let nothing more fit, without writing any of it; an empty disk keeps one page."""
        # Whoever writes meanwhile makes the size too small, which the kernel refuses; then once more.
        while not self._try(f"size={self._held_bytes()}"):
            continue

    def leave(self, free_bytes: int) -> None:
        """Let so many bytes fit beyond what is held."""
        self._remount(f"size={self._held_bytes() + free_bytes}")

    def free(self) -> None:
        """Give back what `fill` or `leave` took."""
        self._remount(f"size={self.size_bytes}")

    def make_read_only(self) -> bool:
        """Whether that could be done: not while a file is open for writing."""
        return self._try("ro")

    def make_writable(self) -> None:
        self._remount("rw")

    def _held_bytes(self) -> int:
        found = os.statvfs(self.folder)
        # A size of 0 would mean no bound.
        return max(1, found.f_blocks - found.f_bfree) * found.f_frsize

    def _try(self, options: str) -> bool:
        command = ["mount", "-o", f"remount,{options}", str(self.folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _remount(self, options: str) -> None:
        assert self._try(options), f"{self.folder} cannot be remounted with {options}"


@cache
def why_not() -> str:
    """Why no disk can be mounted here; empty where one can."""
    if os.geteuid() != 0:
        return "mounting a tmpfs takes root"
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            subprocess.run(["umount", folder], capture_output=True, check=True)
    return tried.stderr.strip()


@contextmanager
def mounted(folder: Path, *, size_bytes: int) -> Iterator[SmallDisk]:
    """A disk at `folder` for the length of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=700", "tmpfs", folder], capture_output=True, check=True
    )
    try:
        yield SmallDisk(folder, size_bytes)
    finally:
        # Lazily: whatever still holds a file must not keep the mount behind the test.
        subprocess.run(["umount", "-l", folder], capture_output=True, check=True)
