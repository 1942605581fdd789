"""The registry: models and their immutable, numbered versions.

What holds:
- A version's blobs were all in the object store and OpenVINO had read them when it was numbered.
- Numbers of a model run from 1 without a gap; the same artifact has one number in a model.
- A refused publish changes nothing.
- A yanked version is given to no further agent; what moves agents to it turns back at the next tick of rollouts.
"""

import asyncio
import errno
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from controlplane import limits
from controlplane.app.audit import write_down
from controlplane.app.convergence import converge
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token, page_of
from controlplane.app.pins import check_reason
from controlplane.app.ports import BlobStore, ChangeNotifier, Clock, IdSource, ModelInspector, Store, UnitOfWork
from controlplane.app.requests import find_outcome, fingerprint, keep_outcome
from controlplane.app.retries import retry_stale
from controlplane.domain.audit import Happening
from controlplane.domain.catalog import (
    CHUNK_SIZE_BYTES,
    Artifact,
    ArtifactFile,
    Model,
    ModelSignature,
    ModelVersion,
    Yank,
)
from controlplane.domain.errors import (
    FieldInvalidError,
    PreconditionError,
    Reason,
    ResourceExistsError,
    ResourceNotFoundError,
    StaleWriteError,
    StorageError,
)
from controlplane.domain.ids import AgentId, ModelId, check_resource_id


@dataclass(frozen=True, slots=True, kw_only=True)
class _Publication:
    """What is to be numbered: all that a version has but its number."""

    model_id: ModelId
    artifact: Artifact
    signature: ModelSignature
    notes: str
    request_id: str
    actor: str
    asked: str
    """Fingerprint of the request."""


class Registry:
    """Creates, publishes, yanks and lists. `workspace` is a folder for the files of models under inspection; `actor` is
    `operators/{operator}`."""

    def __init__(
        self,
        *,
        store: Store,
        blobs: BlobStore,
        inspector: ModelInspector,
        clock: Clock,
        ids: IdSource,
        notifier: ChangeNotifier,
        workspace: Path,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._inspector = inspector
        self._clock = clock
        self._ids = ids
        self._notifier = notifier
        self._workspace = workspace

    async def create(self, model_id: str, *, actor: str, description: str = "", request_id: str = "") -> Model:
        """Create a model. Raises ResourceExistsError when the name is taken."""
        checked = ModelId(check_resource_id(model_id, field="model_id"))
        _check_text(description, field="model.description")
        asked = fingerprint("model", checked, description)
        async with self._store.write() as work:
            if await find_outcome(work, request_id, print_of_request=asked):
                return await work.models.get(checked)
            model = self._new_model(checked, description)
            await self._add(work, model, actor)
            await keep_outcome(
                work, request_id, print_of_request=asked, resource=f"models/{checked}", now=model.create_time
            )
            return model

    async def get(self, model_id: ModelId) -> Model:
        async with self._store.read() as work:
            return await work.models.get(model_id)

    async def list(self, *, page_size: int = 0, page_token: str = "") -> Page[Model]:
        """By id."""
        size = clamp_page_size(page_size)
        after = decode_page_token(page_token, str)
        async with self._store.read() as work:
            models = await work.models.list(after=ModelId(str(after[0])) if after else None, limit=size + 1)
        return page_of(models, size, lambda model: encode_page_token(model.id))

    async def get_version(self, model_id: ModelId, number: int) -> ModelVersion:
        async with self._store.read() as work:
            return await work.models.get_version(model_id, number)

    async def list_versions(self, model_id: ModelId, *, page_size: int = 0, page_token: str = "") -> Page[ModelVersion]:
        """Newest first. Raises ResourceNotFoundError for an unknown model."""
        size = clamp_page_size(page_size)
        before = decode_page_token(page_token, int)
        async with self._store.read() as work:
            await work.models.get(model_id)
            versions = await work.models.list_versions(
                model_id, before=int(before[0]) if before else None, limit=size + 1
            )
        return page_of(versions, size, lambda version: encode_page_token(version.number))

    async def publish(
        self, model_id: str, artifact: Artifact, *, actor: str, notes: str = "", request_id: str = ""
    ) -> ModelVersion:
        """Return the version that these bytes are, a new one if they are new. The model is created when there is none.

        Raises PreconditionError (ARTIFACT_INCOMPLETE) when a blob is missing, FieldInvalidError (MODEL_UNREADABLE)
        when OpenVINO does not read the files.
        """
        checked = ModelId(check_resource_id(model_id, field="parent"))
        _check_text(notes, field="notes")
        check_paths(artifact)
        asked = fingerprint("version", checked, artifact.digest, notes)
        async with self._store.read() as work:
            await find_outcome(work, request_id, print_of_request=asked)
            published = await work.models.find_version_by_digest(checked, artifact.digest)
        if published is not None:
            return published
        await self._check_blobs(artifact)
        whole, signature = await self._inspect(artifact)
        publication = _Publication(
            model_id=checked,
            artifact=whole,
            signature=signature,
            notes=notes,
            request_id=request_id,
            actor=actor,
            asked=asked,
        )
        for _ in range(limits.PUBLISH_TRIES_MAX - 1):
            try:
                return await self._number(publication)
            except (StaleWriteError, ResourceExistsError):
                # Another publisher of this model was faster: number again, behind it.
                continue
        return await self._number(publication)

    async def yank(self, model_id: ModelId, number: int, *, reason: str, actor: str) -> ModelVersion:
        """Forbid the version to every agent that does not have it; return it so. Agents that serve it go on. A second
        time changes nothing: the first reason stands. Raises FieldInvalidError without a reason,
        ResourceNotFoundError."""
        words = check_reason(reason, field="reason")
        yank = Yank(time=self._clock.now(), reason=words, actor=actor)
        return await self._set_yank(model_id, number, yank, actor=actor)

    async def unyank(self, model_id: ModelId, number: int, *, actor: str) -> ModelVersion:
        """Allow the version again; agents that wait for it get it at once. What is allowed already stays so."""
        return await self._set_yank(model_id, number, None, actor=actor)

    async def _set_yank(self, model_id: ModelId, number: int, yank: Yank | None, *, actor: str) -> ModelVersion:
        async def attempt() -> tuple[ModelVersion, Sequence[AgentId]]:
            async with self._store.write() as work:
                version = await work.models.get_version(model_id, number)
                if (version.yank is None) == (yank is None):
                    return version, ()
                happening = _yanked(version, yank, actor) if yank is not None else _unyanked(version, actor)
                version = await work.models.set_yank(model_id, number, yank)
                await write_down(work, [happening], clock=self._clock, ids=self._ids)
                return version, await converge(work)

        version, changed = await retry_stale(attempt)
        if changed:
            self._notifier.desired_changed(changed)
        return version

    async def _number(self, new: _Publication) -> ModelVersion:
        async with self._store.write() as work:
            published = await work.models.find_version_by_digest(new.model_id, new.artifact.digest)
            if published is not None:
                return published
            model = await self._find_or_add(work, new)
            version = ModelVersion(
                model_id=new.model_id,
                number=model.latest_version + 1,
                uid=self._ids.uid(),
                create_time=self._clock.now(),
                artifact=new.artifact,
                signature=new.signature,
                notes=new.notes,
            )
            await work.models.add_version(version)
            await work.models.save(replace(model, latest_version=version.number))
            await keep_outcome(
                work, new.request_id, print_of_request=new.asked, resource=version.name, now=version.create_time
            )
            await write_down(work, [_published(version, new.actor)], clock=self._clock, ids=self._ids)
            return version

    async def _find_or_add(self, work: UnitOfWork, new: _Publication) -> Model:
        model = await work.models.find(new.model_id)
        if model is None:
            model = self._new_model(new.model_id, "")
            await self._add(work, model, new.actor)
        return model

    async def _add(self, work: UnitOfWork, model: Model, actor: str) -> None:
        created = Happening(
            actor=actor, action="model.create", resource=f"models/{model.id}", message=model.description
        )
        await work.models.add(model)
        await write_down(work, [created], clock=self._clock, ids=self._ids)

    def _new_model(self, model_id: ModelId, description: str) -> Model:
        return Model(id=model_id, uid=self._ids.uid(), create_time=self._clock.now(), description=description)

    async def _check_blobs(self, artifact: Artifact) -> None:
        for file in artifact.files:
            try:
                stored_bytes = await self._blobs.size(file.digest)
            except ResourceNotFoundError as error:
                raise PreconditionError(
                    f"the bytes of {file.path!r} ({file.digest}) are not uploaded",
                    field="artifact.files",
                    remedy="upload them, then publish again",
                    reason=Reason.ARTIFACT_INCOMPLETE,
                ) from error
            if stored_bytes != file.size_bytes:
                raise FieldInvalidError(
                    f"{file.path!r} has {stored_bytes} bytes, not {file.size_bytes}",
                    field="artifact.files.size_bytes",
                    remedy="state the size of the file",
                )

    async def _inspect(self, artifact: Artifact) -> tuple[Artifact, ModelSignature]:
        """Return the artifact with the digests of its chunks, and what OpenVINO reads."""
        with (
            _told_as_storage_error(self._workspace),
            tempfile.TemporaryDirectory(prefix="publish-", dir=self._workspace) as name,
        ):
            folder = Path(name)
            files = [await self._fetch(file, folder) for file in artifact.files]
            return Artifact(files=tuple(files)), await self._inspector.inspect(folder)

    async def _fetch(self, file: ArtifactFile, folder: Path) -> ArtifactFile:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        await self._blobs.fetch(file.digest, path)
        digests = await asyncio.to_thread(_chunk_digests, path)
        if file.chunk_digests and file.chunk_digests != digests:
            raise FieldInvalidError(
                f"the digests of the chunks of {file.path!r} are not those of its bytes",
                field="artifact.files.chunk_digests",
                remedy="leave them out: the controller computes them",
                reason=Reason.DIGEST_MISMATCH,
            )
        return replace(file, chunk_digests=digests)


def _published(version: ModelVersion, actor: str) -> Happening:
    return Happening(
        actor=actor,
        action="version.publish",
        resource=version.name,
        message=version.notes,
        evidence={"digest": version.artifact.digest, "size_bytes": version.artifact.size_bytes},
        related=(f"models/{version.model_id}",),
    )


def _yanked(version: ModelVersion, yank: Yank, actor: str) -> Happening:
    return Happening(
        actor=actor,
        action="version.yank",
        resource=version.name,
        message=yank.reason,
        related=(f"models/{version.model_id}",),
    )


def _unyanked(version: ModelVersion, actor: str) -> Happening:
    before = version.yank
    return Happening(
        actor=actor,
        action="version.unyank",
        resource=version.name,
        message=f"it was yanked by {before.actor}: {before.reason}" if before is not None else "",
        related=(f"models/{version.model_id}",),
    )


def check_paths(artifact: Artifact) -> None:
    """Raise FieldInvalidError unless the files can lie side by side in a folder of any station."""
    if len(artifact.files) > limits.ARTIFACT_FILES_MAX:
        raise FieldInvalidError(
            f"{len(artifact.files)} files are more than {limits.ARTIFACT_FILES_MAX}",
            field="artifact.files",
            remedy="publish the files of one model only",
        )
    paths = {file.path for file in artifact.files}
    for path in sorted(paths):
        parts = PurePosixPath(path).parts
        too_long = len(path.encode()) > limits.ARTIFACT_PATH_BYTES_MAX or any(
            len(part.encode()) > limits.ARTIFACT_NAME_BYTES_MAX for part in parts
        )
        inside_a_file = any(str(parent) in paths for parent in PurePosixPath(path).parents)
        if too_long or inside_a_file or not path.isprintable() or str(PurePosixPath(path)) != path:
            raise FieldInvalidError(
                f"{path[:100]!r} cannot be a file beside the others",
                field="artifact.files.path",
                remedy="use short printable names, none of which is a folder of another",
            )


@contextmanager
def _told_as_storage_error(workspace: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise StorageError(
            f"the files of the model cannot be put together in {workspace}: {error.strerror}",
            remedy="free some of its disk, then publish again" if full else "make it writable, then publish again",
            reason=Reason.STORAGE_FULL if full else Reason.STORAGE_UNAVAILABLE,
        ) from error


def _chunk_digests(path: Path) -> tuple[bytes, ...]:
    digests = []
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_SIZE_BYTES):
            digests.append(hashlib.sha256(chunk).digest())
    return tuple(digests)


def _check_text(text: str, *, field: str) -> None:
    if len(text) > limits.DESCRIPTION_CHARS_MAX:
        raise FieldInvalidError(
            f"{len(text)} characters are more than {limits.DESCRIPTION_CHARS_MAX}", field=field, remedy="shorten it"
        )
    if "\0" in text:
        raise FieldInvalidError("the text holds NUL, which no database keeps", field=field, remedy="leave it out")
