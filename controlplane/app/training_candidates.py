"""Candidates: what a trainer left, put among the blobs and read by OpenVINO, as a published version is."""

import asyncio
import hashlib
from pathlib import Path

from controlplane.app.ports import BlobStore, ModelInspector
from controlplane.domain.catalog import CHUNK_SIZE_BYTES, Artifact, ArtifactFile, ModelSignature, ModelVersion
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import Digest
from controlplane.domain.training_run import Candidate

_LABELS = "model_info/labels"


async def keep_candidate(folder: Path, base: ModelVersion, *, blobs: BlobStore, inspector: ModelInspector) -> Candidate:
    """Return the candidate whose files lie in `folder`, its blobs stored. Doing it again is as good as once.

    Raises FieldInvalidError (MODEL_UNREADABLE, field "artifact") for what OpenVINO does not read, and (field
    "candidate") for what could not take the place of the base version.
    """
    artifact = await asyncio.to_thread(read_artifact, folder)
    if artifact.digest == base.artifact.digest:
        raise FieldInvalidError(f"it is {base.name}, byte by byte", field="candidate", remedy="train something")
    signature = await inspector.inspect(folder)
    check_replaces(signature, base)
    for file in artifact.files:
        await blobs.put_file(file.digest, folder / file.path)
    return Candidate(artifact=artifact, signature=signature)


def read_artifact(folder: Path) -> Artifact:
    """Return the manifest of the plain files below `folder`. Blocks."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = (_read_file(path, path.relative_to(folder).as_posix()) for path in paths)
    return Artifact(files=tuple(sorted(files, key=lambda file: file.path)))


def check_replaces(signature: ModelSignature, base: ModelVersion) -> None:
    """Raise FieldInvalidError unless applications can use the one in place of the other."""
    before = base.signature
    for what, new, old in (
        ("inputs", signature.inputs, before.inputs),
        ("outputs", signature.outputs, before.outputs),
        ("labels", signature.rt_info.get(_LABELS, ""), before.rt_info.get(_LABELS, "")),
    ):
        if new != old:
            raise FieldInvalidError(
                f"its {what} are {new}, those of {base.name} are {old}",
                field="candidate",
                remedy="keep inputs, outputs and labels: applications go on as they are",
            )


def _read_file(path: Path, name: str) -> ArtifactFile:
    whole, chunks, size_bytes = hashlib.sha256(), [], 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_SIZE_BYTES):
            whole.update(chunk)
            chunks.append(hashlib.sha256(chunk).digest())
            size_bytes += len(chunk)
    return ArtifactFile(
        path=name,
        digest=Digest("sha256:" + whole.hexdigest()),
        size_bytes=size_bytes,
        chunk_digests=tuple(chunks),
    )
