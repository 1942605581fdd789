"""Models and versions."""

from typing import Any

from controlplane.domain.catalog import Artifact, ArtifactFile, Model, ModelSignature, ModelVersion, TensorSpec, Yank
from controlplane.domain.ids import Digest, ModelId
from controlplane.store.mapping.values import Row, text_map, time_from_json, time_to_json


def model_to_row(model: Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "uid": model.uid,
        "create_time": model.create_time,
        "description": model.description,
        "latest_version": model.latest_version,
        "revision": model.revision,
    }


def model_from_row(row: Row) -> Model:
    return Model(
        id=ModelId(row["id"]),
        uid=row["uid"],
        create_time=row["create_time"],
        description=row["description"],
        latest_version=row["latest_version"],
        revision=row["revision"],
    )


def version_to_row(version: ModelVersion) -> dict[str, Any]:
    return {
        "model_id": version.model_id,
        "number": version.number,
        "uid": version.uid,
        "create_time": version.create_time,
        "artifact_digest": version.artifact.digest,
        "artifact": [file_to_json(file) for file in version.artifact.files],
        "signature": signature_to_json(version.signature),
        "notes": version.notes,
        "yank": yank_to_json(version.yank),
    }


def version_from_row(row: Row) -> ModelVersion:
    return ModelVersion(
        model_id=ModelId(row["model_id"]),
        number=row["number"],
        uid=row["uid"],
        create_time=row["create_time"],
        artifact=Artifact(files=tuple(file_from_json(value) for value in row["artifact"])),
        signature=signature_from_json(row["signature"]),
        notes=row["notes"],
        yank=None if row["yank"] is None else _yank_from_json(row["yank"]),
    )


def version_to_blob_rows(version: ModelVersion) -> list[dict[str, Any]]:
    """One row a distinct digest: two files of the same content are one blob."""
    digests = sorted({file.digest for file in version.artifact.files})
    return [{"model_id": version.model_id, "number": version.number, "digest": digest} for digest in digests]


def yank_to_json(yank: Yank | None) -> dict[str, Any] | None:
    """None stays None."""
    return None if yank is None else {"time": time_to_json(yank.time), "reason": yank.reason, "actor": yank.actor}


def _yank_from_json(value: Row) -> Yank:
    time = time_from_json(value["time"])
    assert time is not None
    return Yank(time=time, reason=value["reason"], actor=value["actor"])


def file_to_json(file: ArtifactFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "digest": file.digest,
        "size_bytes": file.size_bytes,
        "chunk_digests": [digest.hex() for digest in file.chunk_digests],
    }


def file_from_json(value: Row) -> ArtifactFile:
    return ArtifactFile(
        path=value["path"],
        digest=Digest(value["digest"]),
        size_bytes=value["size_bytes"],
        chunk_digests=tuple(bytes.fromhex(digest) for digest in value["chunk_digests"]),
    )


def _tensor_to_json(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _tensor_from_json(value: Row) -> TensorSpec:
    return TensorSpec(name=value["name"], datatype=value["datatype"], shape=tuple(value["shape"]))


def signature_to_json(signature: ModelSignature) -> dict[str, Any]:
    return {
        "format": signature.format,
        "entry_path": signature.entry_path,
        "inputs": [_tensor_to_json(tensor) for tensor in signature.inputs],
        "outputs": [_tensor_to_json(tensor) for tensor in signature.outputs],
        "precision": signature.precision,
        "rt_info": dict(signature.rt_info),
    }


def signature_from_json(value: Row) -> ModelSignature:
    return ModelSignature(
        format=value["format"],
        entry_path=value["entry_path"],
        inputs=tuple(_tensor_from_json(tensor) for tensor in value["inputs"]),
        outputs=tuple(_tensor_from_json(tensor) for tensor in value["outputs"]),
        precision=value["precision"],
        rt_info=text_map(value["rt_info"]),
    )
