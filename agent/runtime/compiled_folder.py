"""Compiled blobs on disk: a local cache, never shipped as truth.

OpenVINO neither checks a blob nor prunes the folder, and its key knows paths but not content. So each compiled model
has a folder of its own, keyed by everything that it depends on; a child writes into a partial folder, which becomes the
real one, with the hash of each blob, only when the child has compiled and inferred.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from agent.domain.device import Configuration, PerformanceHint

_SEAL = "compiled.json"
_PARTIAL = ".partial"


class CompiledFolder:
    """Folders of compiled models under one root. `prune` must not run beside `begin` and `finish`."""

    def __init__(self, root: Path, *, version: str) -> None:
        """`version` changes with OpenVINO, the instruction set and the drivers: no blob of another one is used."""
        self._root = root
        self._version = version

    def entry(self, model: Path, configuration: Configuration, hint: PerformanceHint) -> Path:
        """Folder of a compiled model, there or not. The model's path contains its artifact's digest."""
        parts = (configuration.device, configuration.precision, str(configuration.streams), hint.value)
        key = "\n".join((str(model), *parts, self._version))
        return self._root / hashlib.sha256(key.encode()).hexdigest()[:32]

    def begin(self, entry: Path) -> Path:
        """An empty folder to compile into."""
        partial = entry.with_suffix(_PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        return partial

    def finish(self, entry: Path, *, model: Path) -> None:
        """The partial folder is good: write down its hashes and put it in the entry's place."""
        partial = entry.with_suffix(_PARTIAL)
        seal = {"model": str(model), "version": self._version, "blobs": dict(_hashes(partial))}
        (partial / _SEAL).write_text(json.dumps(seal))
        shutil.rmtree(entry, ignore_errors=True)
        partial.rename(entry)

    def abandon(self, entry: Path) -> None:
        """Throw away what a failed child left."""
        shutil.rmtree(entry.with_suffix(_PARTIAL), ignore_errors=True)

    def is_intact(self, entry: Path) -> bool:
        """Whether every blob is the one that `finish` saw, and nothing else lies there."""
        seal = _read_seal(entry)
        return seal is not None and seal.get("blobs") == dict(_hashes(entry))

    def touch(self, entry: Path) -> None:
        """It is used now, which makes it the last to go."""
        with suppress(OSError):  # a read-only disk keeps what it has
            os.utime(entry / _SEAL)

    def prune(self, *, bytes_max: int, keep: Collection[Path] = ()) -> None:
        """Drop partial folders, compiled models whose artifact, OpenVINO or driver is gone, and, above `bytes_max`,
        those that were used longest ago; what is in `keep` and has its artifact stays."""
        held: list[Path] = []
        for entry in sorted(self._root.iterdir()) if self._root.is_dir() else ():
            seal = _read_seal(entry)
            if seal is None or seal.get("version") != self._version or not Path(str(seal.get("model"))).exists():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                held.append(entry)
        size_bytes = {entry: _size_bytes(entry) for entry in held}
        total_bytes = sum(size_bytes.values())
        for entry in sorted(held, key=_used_time):
            if total_bytes <= bytes_max:
                return
            if entry not in keep:
                shutil.rmtree(entry, ignore_errors=True)
                total_bytes -= size_bytes[entry]


def _used_time(entry: Path) -> tuple[int, str]:
    return ((entry / _SEAL).stat().st_mtime_ns, entry.name)


def _size_bytes(entry: Path) -> int:
    return sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())


def _read_seal(entry: Path) -> dict[str, object] | None:
    """None where there is none, or one that a power cut has torn."""
    try:
        seal = json.loads((entry / _SEAL).read_text())
    except (OSError, ValueError):
        return None
    return seal if isinstance(seal, dict) else None


def _hashes(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _SEAL:
            with path.open("rb") as file:
                yield str(path.relative_to(folder)), hashlib.file_digest(file, "sha256").hexdigest()
