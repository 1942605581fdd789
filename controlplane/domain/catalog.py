"""Models, their immutable versions, and the artifacts that hold their bytes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from types import MappingProxyType

from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import Digest, ModelId, check_digest

CHUNK_SIZE_BYTES = 1 << 20
"""Unit of resume and verification within a file; the measured optimum of a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFile:
    """One file. `chunk_digests` are raw sha256 of consecutive chunks of CHUNK_SIZE_BYTES, the last shorter."""

    path: str
    digest: Digest
    size_bytes: int
    chunk_digests: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        check_digest(self.digest, field="artifact.files.digest")
        parts = PurePosixPath(self.path).parts
        if not parts or self.path.startswith("/") or {".", ".."} & set(self.path.split("/")) or "\\" in self.path:
            raise FieldInvalidError(
                f"{self.path!r} is not a path within the artifact",
                field="artifact.files.path",
                remedy="use a relative path with forward slashes and without '.' or '..'",
            )
        if self.size_bytes < 0:
            raise FieldInvalidError("a size cannot be negative", field="artifact.files.size_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """The bytes of a version: files sorted by path, each path once."""

    files: tuple[ArtifactFile, ...]

    def __post_init__(self) -> None:
        paths = [file.path for file in self.files]
        if not paths or paths != sorted(set(paths)):
            raise FieldInvalidError(
                "an artifact has files, sorted by path, each path once",
                field="artifact.files",
                remedy="name each file once, in the order of their paths",
            )

    @property
    def digest(self) -> Digest:
        """Digest over the sorted lines "{file sha256 hex} {size_bytes} {path}\\n"."""
        lines = (f"{f.digest.removeprefix('sha256:')} {f.size_bytes} {f.path}\n" for f in self.files)
        return Digest("sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest())

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """A named tensor; `datatype` in the Open Inference Protocol's words, -1 for a dynamic dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSignature:
    """What a model takes and gives, as OpenVINO read it."""

    format: str
    entry_path: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: str
    rt_info: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A task lineage."""

    id: ModelId
    uid: str
    create_time: datetime
    description: str = ""
    latest_version: int = 0
    revision: int = 0
    """Counts changes; the etag. A save with another revision than the stored one is stale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Yank:
    """A version is given to no further agent; those that serve it go on until they are moved."""

    time: datetime
    reason: str
    actor: str
    """`operators/{operator}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """An immutable, numbered version."""

    model_id: ModelId
    number: int
    uid: str
    create_time: datetime
    artifact: Artifact
    signature: ModelSignature
    notes: str = ""
    yank: Yank | None = None
    """Set while the version is forbidden to further agents."""

    @property
    def name(self) -> str:
        return f"models/{self.model_id}/versions/{self.number}"
