"""Making what was written survive a power cut."""

import os
import shutil
import time
from pathlib import Path
from uuid import uuid4

from controlplane import limits

_INCOMING = "incoming"
_FOLDERS_REMEMBERED_MAX = 10_000


class DurableFolder:
    """Files that appear whole under their names, after their bytes are on the disk: each goes to `incoming/`, is made
    durable and renamed. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder where it is missing. Raises OSError."""
        self._folder = folder
        self._named: set[Path] = set()
        """Folders whose own names are durable. Written without a lock: to sync them once more does no harm."""
        (folder / _INCOMING).mkdir(parents=True, exist_ok=True)

    def put(self, key: str, source: Path | bytes) -> None:
        """Write a file, over one that is there. Raises OSError; nothing is left then."""
        incoming, target = self._folder / _INCOMING / uuid4().hex, self._folder / key
        try:
            if isinstance(source, Path):
                shutil.copyfile(source, incoming)
            else:
                incoming.write_bytes(source)
            sync_path(incoming)
            target.parent.mkdir(parents=True, exist_ok=True)
            incoming.rename(target)
        except BaseException:
            incoming.unlink(missing_ok=True)
            raise
        self._sync_names(target.parent)

    def drop_left_by_kills(self) -> None:
        """Only what is old: another process of this controller may be putting now."""
        oldest = time.time() - limits.UPLOAD_AGE_SECONDS_MAX
        for left in (self._folder / _INCOMING).iterdir():
            if left.stat().st_mtime < oldest:
                left.unlink(missing_ok=True)

    def _sync_names(self, folder: Path) -> None:
        sync_folder(folder)
        if folder in self._named:
            return
        above = folder
        while above != self._folder:
            above = above.parent
            sync_folder(above)
        if len(self._named) >= _FOLDERS_REMEMBERED_MAX:
            self._named.clear()
        self._named.add(folder)


def sync_path(path: Path) -> None:
    """fsync a file; raises OSError."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """fsync a folder, so that names within it are durable; raises OSError."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    file = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
