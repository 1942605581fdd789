"""Artifacts as the agent knows them: files to fetch by digest, and what the model takes and gives."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from agent.domain.errors import ArtifactError, Reason

CHUNK_SIZE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFile:
    """`digest` is "sha256:" + hex of the file; `path` is relative, already checked to stay inside."""

    path: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    digest: str
    files: tuple[ArtifactFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """`datatype` in the Open Inference Protocol's words; -1 for a dynamic dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSignature:
    entry_path: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    format: str = ""
    precision: str = ""
    rt_info: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def check_path(path: str) -> None:
    """Raise ArtifactError for a path that is not a plain relative one: nothing may be written outside the cache."""
    parts = path.split("/")
    if not path or "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise ArtifactError(
            f"{path!r} is no path within an artifact",
            field="artifact.files.path",
            remedy="publish the version again with plain relative file names",
            reason=Reason.DIGEST_MISMATCH,
        )


def manifest_digest(files: Iterable[ArtifactFile]) -> str:
    """The digest of an artifact with these files: over the lines "{file sha256 hex} {size} {path}\\n", by path."""
    ordered = sorted(files, key=lambda file: file.path)
    lines = (f"{file.digest.removeprefix('sha256:')} {file.size_bytes} {file.path}\n" for file in ordered)
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
