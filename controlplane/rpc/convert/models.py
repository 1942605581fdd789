"""Models and versions on the wire."""

from lineside.v1 import model_pb2

from controlplane.domain.catalog import Model, ModelVersion
from controlplane.rpc.convert.artifacts import artifact_to_proto, signature_to_proto
from controlplane.rpc.convert.times import optional_time_to_proto, time_to_proto


def model_to_proto(model: Model) -> model_pb2.Model:
    return model_pb2.Model(
        name=f"models/{model.id}",
        uid=model.uid,
        create_time=time_to_proto(model.create_time),
        etag=str(model.revision),
        description=model.description,
        latest_version=model.latest_version,
    )


def version_to_proto(version: ModelVersion) -> model_pb2.ModelVersion:
    """Return the whole version. But for its yank it never changes, so its uid is its etag."""
    yank = version.yank
    return model_pb2.ModelVersion(
        name=version.name,
        uid=version.uid,
        number=version.number,
        create_time=time_to_proto(version.create_time),
        etag=version.uid,
        artifact=artifact_to_proto(version.artifact),
        signature=signature_to_proto(version.signature),
        notes=version.notes,
        yank_time=optional_time_to_proto(yank.time if yank is not None else None),
        yank_reason=yank.reason if yank is not None else "",
    )
