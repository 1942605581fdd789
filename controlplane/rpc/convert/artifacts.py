"""Artifacts and model signatures on the wire."""

from types import MappingProxyType

from lineside.v1 import artifact_pb2, model_pb2

from controlplane.domain.catalog import (
    CHUNK_SIZE_BYTES,
    Artifact,
    ArtifactFile,
    ModelSignature,
    TensorSpec,
)
from controlplane.domain.errors import FieldInvalidError, Reason
from controlplane.domain.ids import Digest


def artifact_to_proto(artifact: Artifact) -> artifact_pb2.Artifact:
    """Return the whole manifest with the digest of each chunk."""
    return artifact_pb2.Artifact(
        digest=artifact.digest,
        size_bytes=artifact.size_bytes,
        files=[
            artifact_pb2.ArtifactFile(
                path=file.path,
                digest=file.digest,
                size_bytes=file.size_bytes,
                chunk_digests=file.chunk_digests,
                chunk_size_bytes=CHUNK_SIZE_BYTES,
            )
            for file in artifact.files
        ],
    )


def artifact_from_proto(message: artifact_pb2.Artifact) -> Artifact:
    """Return the artifact. Raises FieldInvalidError for bad paths, digests or order, for chunk digests that do
    not fit the size, and (DIGEST_MISMATCH) when the message names another digest than its files give."""
    artifact = Artifact(files=tuple(_file_from_proto(file) for file in message.files))
    if message.digest and message.digest != artifact.digest:
        raise FieldInvalidError(
            f"the files give {artifact.digest}, not {message.digest}",
            field="artifact.digest",
            remedy="leave it empty, or compute it over the sorted lines of the manifest",
            reason=Reason.DIGEST_MISMATCH,
        )
    return artifact


def _file_from_proto(message: artifact_pb2.ArtifactFile) -> ArtifactFile:
    digests = tuple(message.chunk_digests)
    if digests:
        _check_chunks(message, digests)
    return ArtifactFile(
        path=message.path,
        digest=Digest(message.digest),
        size_bytes=message.size_bytes,
        chunk_digests=digests,
    )


def _check_chunks(message: artifact_pb2.ArtifactFile, digests: tuple[bytes, ...]) -> None:
    if message.chunk_size_bytes not in (0, CHUNK_SIZE_BYTES):
        raise FieldInvalidError(
            f"chunks of {message.chunk_size_bytes} bytes are not supported",
            field="artifact.files.chunk_size_bytes",
            remedy=f"use chunks of {CHUNK_SIZE_BYTES} bytes",
        )
    wanted = -(-message.size_bytes // CHUNK_SIZE_BYTES)
    if len(digests) != wanted or any(len(digest) != 32 for digest in digests):
        raise FieldInvalidError(
            f"{message.path!r} of {message.size_bytes} bytes needs {wanted} digests of 32 bytes",
            field="artifact.files.chunk_digests",
            remedy="send the raw sha256 of each chunk, or none",
        )


def signature_to_proto(signature: ModelSignature) -> model_pb2.ModelSignature:
    """Return the signature."""
    return model_pb2.ModelSignature(
        format=signature.format,
        entry_path=signature.entry_path,
        inputs=[_tensor_to_proto(tensor) for tensor in signature.inputs],
        outputs=[_tensor_to_proto(tensor) for tensor in signature.outputs],
        precision=signature.precision,
        rt_info=dict(signature.rt_info),
    )


def signature_from_proto(message: model_pb2.ModelSignature) -> ModelSignature:
    """Return the signature."""
    return ModelSignature(
        format=message.format,
        entry_path=message.entry_path,
        inputs=tuple(_tensor_from_proto(tensor) for tensor in message.inputs),
        outputs=tuple(_tensor_from_proto(tensor) for tensor in message.outputs),
        precision=message.precision,
        rt_info=MappingProxyType(dict(message.rt_info)),
    )


def _tensor_to_proto(tensor: TensorSpec) -> model_pb2.TensorSpec:
    return model_pb2.TensorSpec(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)


def _tensor_from_proto(message: model_pb2.TensorSpec) -> TensorSpec:
    return TensorSpec(name=message.name, datatype=message.datatype, shape=tuple(message.shape))
