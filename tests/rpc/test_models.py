"""The registry over the wire, with the real inspection behind it."""

import hashlib
from pathlib import Path
from typing import Any

import grpc
import pytest
from lineside.v1 import artifact_pb2, model_pb2, model_service_pb2, model_service_pb2_grpc

from controlplane.domain.ids import Digest
from tests.support.models import classifier_ir
from tests.support.wire import bearer, refused, tls_channel


async def uploaded(served: Any, folder: Path) -> artifact_pb2.Artifact:
    files = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        digest = Digest("sha256:" + hashlib.sha256(content).hexdigest())
        await served.parts.blobs.put_bytes(digest, content)
        files.append(artifact_pb2.ArtifactFile(path=path.name, digest=digest, size_bytes=len(content)))
    return artifact_pb2.Artifact(files=files)


class Operator:
    """A client of ModelService."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._stub: Any = model_service_pb2_grpc.ModelServiceStub(channel)
        self._metadata = bearer(token)

    async def call(self, method: str, **fields: Any) -> Any:
        request = getattr(model_service_pb2, f"{method}Request")(**fields)
        return await getattr(self._stub, method)(request, metadata=self._metadata, timeout=60)

    async def publish(self, artifact: artifact_pb2.Artifact, **fields: Any) -> model_pb2.ModelVersion:
        version: model_pb2.ModelVersion = await self.call(
            "PublishModelVersion", **{"parent": "models/solar", "artifact": artifact, **fields}
        )
        return version


@pytest.fixture
async def operator(served: Any) -> Any:
    async with tls_channel(served.api, served.ca_certificate) as channel:
        yield Operator(channel, served.operator_token)


@pytest.mark.openvino
async def test_models_are_published_numbered_and_listed(served: Any, operator: Operator, tmp_path: Path) -> None:
    for bias in (1.0, 2.0):
        classifier_ir(tmp_path / str(bias), bias=bias, labels="ok defect")
    artifacts = [await uploaded(served, tmp_path / str(bias)) for bias in (1.0, 2.0)]
    first, second = [await operator.publish(artifact, notes="n") for artifact in artifacts]
    assert [first.name, second.name] == ["models/solar/versions/1", "models/solar/versions/2"]
    assert await operator.publish(artifacts[0]) == first
    assert first.signature.rt_info["model_info/labels"] == "ok defect"
    assert [(t.name, t.datatype, list(t.shape)) for t in first.signature.inputs] == [("x", "FP32", [-1, 3, 8, 8])]
    assert await operator.call("GetModelVersion", name=first.name) == first
    listed = await operator.call("ListModelVersions", parent="models/solar")
    assert [version.number for version in listed.model_versions] == [2, 1]
    (model,) = (await operator.call("ListModels")).models
    assert model == await operator.call("GetModel", name="models/solar")
    assert model.latest_version == 2


@pytest.mark.openvino
async def test_a_refused_publish_leaves_no_model(served: Any, operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "net.onnx").write_bytes(b"no model at all")
    artifact = await uploaded(served, tmp_path / "in")
    refusal = await refused(operator.publish(artifact))
    assert (refusal.code, refusal.reason, refusal.field) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "MODEL_UNREADABLE",
        "artifact",
    )
    assert refusal.remedy
    missing = artifact_pb2.ArtifactFile(path="a.onnx", digest="sha256:" + "0" * 64, size_bytes=3)
    incomplete = await refused(operator.publish(artifact_pb2.Artifact(files=[missing])))
    assert (incomplete.code, incomplete.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ARTIFACT_INCOMPLETE")
    unknown = await refused(operator.call("GetModel", name="models/solar"))
    assert unknown.code == grpc.StatusCode.NOT_FOUND


async def test_models_are_created_once(operator: Operator) -> None:
    created = await operator.call("CreateModel", model_id="solar", model=model_pb2.Model(description="cells"))
    assert (created.name, created.description, created.latest_version) == ("models/solar", "cells", 0)
    taken = await refused(operator.call("CreateModel", model_id="solar"))
    assert (taken.code, taken.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS")


@pytest.mark.parametrize(
    ("method", "fields", "field"),
    [
        ("CreateModel", {"model_id": "Solar Cells"}, "model_id"),
        ("CreateModel", {"model_id": "solar", "request_id": "7"}, "request_id"),
        ("GetModel", {"name": "solar"}, "name"),
        ("GetModelVersion", {"name": "models/solar/versions/x"}, "name"),
        ("PublishModelVersion", {"parent": "solar"}, "parent"),
        ("PublishModelVersion", {"parent": "models/solar"}, "artifact.files"),
        ("ListModels", {"page_token": "zzz"}, "page_token"),
    ],
)
async def test_bad_requests_name_field_and_remedy(
    operator: Operator, method: str, fields: dict[str, Any], field: str
) -> None:
    refusal = await refused(operator.call(method, **fields))
    assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
