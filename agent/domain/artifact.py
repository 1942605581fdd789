"""Artifacts as the agent knows them: files to fetch by digest, and what the model takes and gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

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
