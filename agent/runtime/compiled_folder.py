"""Compiled blobs on disk: a local cache, never shipped as truth.

OpenVINO neither checks a blob nor prunes the folder, and its key knows paths but not content. So each compiled model
has a folder of its own, keyed by everything that it depends on; a child writes into a partial folder, which becomes the
real one, with the hash of each blob, only when the child has compiled and inferred.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

_SEAL = "compiled.json"
_PARTIAL = ".partial"


class CompiledFolder:
    """Folders of compiled models under one root. `prune` must not run beside `begin` and `finish`."""

    def __init__(self, root: Path, *, openvino_version: str) -> None:
        self._root = root
        self._version = openvino_version

    def entry(self, model: Path, *, device: str, hint: str, precision: str) -> Path:
        """Folder of a compiled model, there or not. The model's path contains its artifact's digest."""
        key = "\n".join((str(model), device, hint, precision, self._version))
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
        seal = {"model": str(model), "openvino": self._version, "blobs": dict(_hashes(partial))}
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

    def prune(self) -> None:
        """Drop partial folders, and compiled models whose artifact or OpenVINO is gone."""
        for entry in sorted(self._root.iterdir()) if self._root.is_dir() else ():
            seal = _read_seal(entry)
            if seal is None or seal.get("openvino") != self._version or not Path(str(seal.get("model"))).exists():
                shutil.rmtree(entry, ignore_errors=True)


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
