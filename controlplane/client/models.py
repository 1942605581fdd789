"""The registry: models, their versions, and how a version gets there."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lineside.v1 import artifact_pb2, model_pb2, model_service_pb2, model_service_pb2_grpc

from controlplane.client import limits
from controlplane.client.channel import Connection
from controlplane.client.conversion import prepared
from controlplane.client.files import ModelFile, artifact_of, collect, describe
from controlplane.client.golden import Golden, golden_files
from controlplane.client.names import model_name, version_name
from controlplane.client.pages import iterate
from controlplane.client.preprocessing import Preprocessing
from controlplane.client.retry import Repeat
from controlplane.client.uploads import upload_blob


class Stage(StrEnum):
    """What publishing is at."""

    HASH = "HASH"
    UPLOAD = "UPLOAD"
    INSPECT = "INSPECT"
    """The controller reads the model; nothing is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a stage of publishing has come."""

    stage: Stage
    done_bytes: int
    total_bytes: int


OnProgress = Callable[[Progress], None]


class Models:
    """Calls of ModelService. Models are named by id or resource name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = model_service_pb2_grpc.ModelServiceStub(connection.api)

    def create(self, model: str, *, description: str = "") -> model_pb2.Model:
        """Create a model without versions."""
        request = model_service_pb2.CreateModelRequest(
            model_id=model, model=model_pb2.Model(description=description), request_id=str(uuid.uuid4())
        )
        return self._connection.call(self._stub.CreateModel, request)

    def get(self, model: str) -> model_pb2.Model:
        """Return a model."""
        return self._connection.call(self._stub.GetModel, model_service_pb2.GetModelRequest(name=model_name(model)))

    def list(self, *, limit: int | None = None) -> Iterator[model_pb2.Model]:
        """Yield models by name."""

        def fetch(size: int, token: str) -> tuple[list[model_pb2.Model], str]:
            request = model_service_pb2.ListModelsRequest(page_size=size, page_token=token)
            page = self._connection.call(self._stub.ListModels, request)
            return [*page.models], page.next_page_token

        return iterate(fetch, limit=limit)

    def get_version(self, model: str, number: int) -> model_pb2.ModelVersion:
        """Return a version."""
        request = model_service_pb2.GetModelVersionRequest(name=version_name(model, number))
        return self._connection.call(self._stub.GetModelVersion, request)

    def list_versions(self, model: str, *, limit: int | None = None) -> Iterator[model_pb2.ModelVersion]:
        """Yield the versions of a model, newest first."""

        def fetch(size: int, token: str) -> tuple[list[model_pb2.ModelVersion], str]:
            request = model_service_pb2.ListModelVersionsRequest(
                parent=model_name(model), page_size=size, page_token=token
            )
            page = self._connection.call(self._stub.ListModelVersions, request)
            return [*page.model_versions], page.next_page_token

        return iterate(fetch, limit=limit)

    def yank(self, model: str, number: int, *, reason: str) -> model_pb2.ModelVersion:
        """Forbid a version: no agent is newly given it, and a rollout to it returns its targets."""
        request = model_service_pb2.YankModelVersionRequest(name=version_name(model, number), reason=reason)
        return self._connection.call(self._stub.YankModelVersion, request, repeat=Repeat.LOST_RACE)

    def unyank(self, model: str, number: int) -> model_pb2.ModelVersion:
        """Allow a yanked version again."""
        request = model_service_pb2.UnyankModelVersionRequest(name=version_name(model, number))
        return self._connection.call(self._stub.UnyankModelVersion, request, repeat=Repeat.LOST_RACE)

    def publish(
        self,
        model: str,
        path: Path | str,
        *,
        notes: str = "",
        preprocessing: Preprocessing | None = None,
        golden: Golden | None = None,
        progress: OnProgress = lambda _: None,
    ) -> model_pb2.ModelVersion:
        """Publish the model at `path` as the next version of `model`, which need not exist yet.

        With `preprocessing`, and where OpenVINO does not read the format by itself, IR is made of it here first. The
        same bytes again return the version that they already have. Returns after the controller has read the model.
        With `golden`, agents serve it only where it answers like that. Raises InvalidInputError for a path that holds
        no model and for golden files that do not fit it, ApiError when the controller refuses it.
        """
        with ExitStack() as stack:
            source = stack.enter_context(prepared(Path(path), preprocessing))
            files = stack.enter_context(golden_files(source, collect(source), golden))
            artifact = _hash(files, progress)
            self._upload(files, artifact, progress)
        progress(Progress(stage=Stage.INSPECT, done_bytes=artifact.size_bytes, total_bytes=artifact.size_bytes))
        request = model_service_pb2.PublishModelVersionRequest(
            parent=model_name(model), artifact=artifact, notes=notes, request_id=str(uuid.uuid4())
        )
        return self._connection.call(
            self._stub.PublishModelVersion,
            request,
            deadline_seconds=limits.PUBLISH_SECONDS,
            retry_seconds=limits.TRANSFER_RETRY_SECONDS,
        )

    def _upload(self, files: tuple[ModelFile, ...], artifact: artifact_pb2.Artifact, progress: OnProgress) -> None:
        before_bytes = 0
        for source, file in zip(files, artifact.files, strict=True):

            def committed(done_bytes: int, before_bytes: int = before_bytes) -> None:
                done = before_bytes + done_bytes
                progress(Progress(stage=Stage.UPLOAD, done_bytes=done, total_bytes=artifact.size_bytes))

            upload_blob(self._connection, source=source.source, file=file, committed=committed)
            before_bytes += file.size_bytes


def _hash(files: tuple[ModelFile, ...], progress: OnProgress) -> artifact_pb2.Artifact:
    total_bytes, done_bytes = sum(file.size_bytes for file in files), 0

    def advance(read_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += read_bytes
        progress(Progress(stage=Stage.HASH, done_bytes=done_bytes, total_bytes=total_bytes))

    return artifact_of(tuple(describe(file, advance=advance) for file in files))
