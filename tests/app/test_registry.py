"""The registry: immutable, numbered versions, and refusals that change nothing."""

import asyncio
import hashlib
import itertools
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane import limits
from controlplane.app.convergence import converge
from controlplane.app.notices import Notices
from controlplane.app.ports import Store
from controlplane.app.registry import Registry
from controlplane.domain.catalog import Artifact, ArtifactFile, ModelSignature, Yank
from controlplane.domain.errors import (
    DomainError,
    FieldInvalidError,
    PreconditionError,
    Reason,
    ResourceExistsError,
    ResourceNotFoundError,
    StorageError,
)
from controlplane.domain.ids import ModelId
from controlplane.store import open_store
from tests.app.log import actions_of
from tests.support.factories import ST_1, digest_of, make_agent, make_artifact, make_deployment, make_signature
from tests.support.memory_blobs import MemoryBlobStore
from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import CountingIds, VirtualClock

SOLAR = ModelId("solar")
ANNA = "operators/anna"


class FakeInspector:
    """Reads every folder whose files say nothing of `hostile`; remembers what it saw."""

    def __init__(self) -> None:
        self.seen: list[dict[str, bytes]] = []
        self.gate: asyncio.Event | None = None

    async def inspect(self, folder: Path) -> ModelSignature:
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.seen.append(files)
        if self.gate is not None:
            await self.gate.wait()
        if b"hostile" in b"".join(files.values()):
            raise FieldInvalidError("hostile", field="artifact", remedy="no", reason=Reason.MODEL_UNREADABLE)
        return make_signature()


class Scene:
    """A registry with everything around it."""

    def __init__(self, store: Store, workspace: Path) -> None:
        self.store = store
        self.workspace = workspace
        self.blobs = MemoryBlobStore()
        self.inspector = FakeInspector()
        self.clock = VirtualClock()
        self.notices = Notices()
        self.registry = Registry(
            store=store,
            blobs=self.blobs,
            inspector=self.inspector,
            clock=self.clock,
            ids=CountingIds(),
            notifier=self.notices,
            workspace=workspace,
        )

    async def upload(self, *contents: str) -> Artifact:
        for content in contents:
            await self.blobs.put_bytes(digest_of(content), content.encode())
        return make_artifact(*contents)

    async def numbers(self, model_id: ModelId = SOLAR) -> list[int]:
        return [version.number for version in (await self.registry.list_versions(model_id)).items]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(MemoryStore(), tmp_path)


@pytest.fixture
async def sql_scene(database_url: str, tmp_path: Path) -> AsyncIterator[Scene]:
    store = open_store(database_url)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    yield Scene(store, workspace)
    await store.close()


async def test_publishing_makes_the_model_and_version_1(scene: Scene) -> None:
    artifact = await scene.upload("weights", "description")
    version = await scene.registry.publish("solar", artifact, notes="first", actor=ANNA)
    assert (version.name, version.notes, version.signature) == ("models/solar/versions/1", "first", make_signature())
    assert version == await scene.registry.get_version(SOLAR, 1)
    assert (await scene.registry.get(SOLAR)).latest_version == 1
    assert scene.inspector.seen == [{"file-0": b"weights", "file-1": b"description"}]
    assert list(scene.workspace.iterdir()) == []


async def test_versions_count_on_and_list_newest_first(scene: Scene) -> None:
    for content in ("a", "b", "c"):
        await scene.registry.publish("solar", await scene.upload(content), actor=ANNA)
    assert await scene.numbers() == [3, 2, 1]
    page = await scene.registry.list_versions(SOLAR, page_size=2)
    rest = await scene.registry.list_versions(SOLAR, page_size=2, page_token=page.next_token)
    assert [[v.number for v in p.items] for p in (page, rest)] == [[3, 2], [1]]
    assert rest.next_token == ""


async def test_the_same_bytes_are_the_version_they_were(scene: Scene) -> None:
    artifact = await scene.upload("a")
    first = await scene.registry.publish("solar", artifact, actor=ANNA)
    await scene.registry.publish("solar", await scene.upload("b"), actor=ANNA)
    assert await scene.registry.publish("solar", artifact, notes="again", actor=ANNA) == first
    assert len(scene.inspector.seen) == 2
    assert (await scene.registry.publish("wind", artifact, actor=ANNA)).name == "models/wind/versions/1"


async def test_chunk_digests_are_the_controllers_own(scene: Scene) -> None:
    content = bytes(limits.CHUNK_BYTES_MAX + 5)
    await scene.blobs.put_bytes(digest_of(content), content)
    file = ArtifactFile(path="net.bin", digest=digest_of(content), size_bytes=len(content))
    version = await scene.registry.publish("solar", Artifact(files=(file,)), actor=ANNA)
    chunks = (content[: limits.CHUNK_BYTES_MAX], content[limits.CHUNK_BYTES_MAX :])
    assert version.artifact.files[0].chunk_digests == tuple(hashlib.sha256(chunk).digest() for chunk in chunks)


async def test_wrong_chunk_digests_are_refused(scene: Scene) -> None:
    await scene.upload("a")
    file = ArtifactFile(path="a", digest=digest_of("a"), size_bytes=1, chunk_digests=(bytes(32),))
    with pytest.raises(FieldInvalidError) as refusal:
        await scene.registry.publish("solar", Artifact(files=(file,)), actor=ANNA)
    assert refusal.value.reason is Reason.DIGEST_MISMATCH
    assert refusal.value.field == "artifact.files.chunk_digests"


def a_file(path: str) -> ArtifactFile:
    return ArtifactFile(path=path, digest=digest_of("a"), size_bytes=1)


@pytest.mark.parametrize("paths", [["a", "a/b"], ["x" * 256], ["a\x00b"], ["a\nb"], ["a//b"], ["d/" * 600 + "a"]])
async def test_files_that_cannot_lie_side_by_side_are_refused(scene: Scene, paths: list[str]) -> None:
    await scene.upload("a")
    with pytest.raises(FieldInvalidError) as refusal:
        await scene.registry.publish("solar", Artifact(files=tuple(a_file(path) for path in sorted(paths))), actor=ANNA)
    assert refusal.value.field == "artifact.files.path"
    assert refusal.value.remedy


async def test_a_missing_blob_is_named(scene: Scene) -> None:
    await scene.upload("here")
    with pytest.raises(PreconditionError) as refusal:
        await scene.registry.publish("solar", make_artifact("here", "missing"), actor=ANNA)
    assert refusal.value.reason is Reason.ARTIFACT_INCOMPLETE
    assert refusal.value.field == "artifact.files"
    assert "'file-1'" in refusal.value.message
    assert refusal.value.remedy
    assert scene.inspector.seen == []


async def test_a_wrong_size_is_refused(scene: Scene) -> None:
    await scene.upload("a")
    with pytest.raises(FieldInvalidError) as refusal:
        await scene.registry.publish(
            "solar", Artifact(files=(ArtifactFile(path="a", digest=digest_of("a"), size_bytes=2),)), actor=ANNA
        )
    assert refusal.value.field == "artifact.files.size_bytes"


async def test_a_refused_publish_changes_nothing(scene: Scene) -> None:
    hostile = await scene.upload("hostile")
    request_id = str(uuid.UUID(int=1))
    for artifact in (hostile, make_artifact("missing")):
        with pytest.raises(DomainError):
            await scene.registry.publish("solar", artifact, request_id=request_id, actor=ANNA)
    with pytest.raises(ResourceNotFoundError):
        await scene.registry.get(SOLAR)
    assert list(scene.workspace.iterdir()) == []
    good = await scene.upload("good")
    assert (await scene.registry.publish("solar", good, request_id=request_id, actor=ANNA)).number == 1


@pytest.mark.parametrize(
    ("model_id", "notes", "field"), [("Solar", "", "parent"), ("", "", "parent"), ("solar", "x" * 5000, "notes")]
)
async def test_bad_requests_name_the_field(scene: Scene, model_id: str, notes: str, field: str) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        await scene.registry.publish(model_id, await scene.upload("a"), notes=notes, actor=ANNA)
    assert refusal.value.field == field
    assert refusal.value.remedy


async def test_a_repeated_create_is_answered_with_the_first_outcome(scene: Scene) -> None:
    request_id = str(uuid.UUID(int=7))
    model = await scene.registry.create("solar", description="cells", request_id=request_id, actor=ANNA)
    assert await scene.registry.create("solar", description="cells", request_id=request_id, actor=ANNA) == model
    with pytest.raises(PreconditionError) as reused:
        await scene.registry.create("wind", description="cells", request_id=request_id, actor=ANNA)
    assert reused.value.reason is Reason.REQUEST_ID_REUSED
    with pytest.raises(ResourceExistsError):
        await scene.registry.create("solar", actor=ANNA)
    with pytest.raises(PreconditionError):
        await scene.registry.publish("solar", await scene.upload("a"), request_id=request_id, actor=ANNA)


async def test_models_list_by_id(scene: Scene) -> None:
    for model_id in ("c", "a", "b"):
        await scene.registry.create(model_id, actor=ANNA)
    page = await scene.registry.list(page_size=2)
    rest = await scene.registry.list(page_size=2, page_token=page.next_token)
    assert [[model.id for model in p.items] for p in (page, rest)] == [["a", "b"], ["c"]]


async def test_versions_of_an_unknown_model_are_not_found(scene: Scene) -> None:
    with pytest.raises(ResourceNotFoundError):
        await scene.registry.list_versions(SOLAR)
    with pytest.raises(ResourceNotFoundError):
        await scene.registry.get_version(SOLAR, 1)


async def test_concurrent_publishers_leave_no_gap_and_no_double(sql_scene: Scene) -> None:
    sql_scene.inspector.gate = asyncio.Event()
    artifacts = [await sql_scene.upload(f"content {number}") for number in range(6)]
    # Each content twice: the second is the first's version, whoever wins.
    publishing = [
        asyncio.create_task(sql_scene.registry.publish("solar", artifact, actor=ANNA))
        for artifact in itertools.chain(artifacts, artifacts)
    ]
    while len(sql_scene.inspector.seen) < len(publishing):
        await asyncio.wait(publishing, timeout=0.01)
    sql_scene.inspector.gate.set()
    versions = await asyncio.gather(*publishing)
    assert await sql_scene.numbers() == [6, 5, 4, 3, 2, 1]
    assert [v.number for v in versions[:6]] == [v.number for v in versions[6:]]
    assert (await sql_scene.registry.get(SOLAR)).latest_version == 6


async def test_two_processes_number_one_after_the_other(sql_scene: Scene, database_url: str, tmp_path: Path) -> None:
    other_store = open_store(database_url)
    other = Scene(other_store, tmp_path)
    try:
        scenes = (sql_scene, other)
        publishing = []
        for index in range(8):
            scene = scenes[index % 2]
            publishing.append(scene.registry.publish("solar", await scene.upload(f"content {index}"), actor=ANNA))
        versions = await asyncio.gather(*publishing)
    finally:
        await other_store.close()
    assert sorted(version.number for version in versions) == list(range(1, 9))
    assert sorted(await sql_scene.numbers()) == list(range(1, 9))


async def test_a_workspace_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    scene = Scene(MemoryStore(), tmp_path / "gone")
    artifact = await scene.upload("weights")
    with pytest.raises(StorageError) as refusal:
        await scene.registry.publish("solar", artifact, actor=ANNA)
    assert refusal.value.reason is Reason.STORAGE_UNAVAILABLE
    assert "publish again" in refusal.value.remedy


async def test_a_yank_is_kept_with_its_reason_and_ends_with_the_unyank(scene: Scene) -> None:
    await scene.registry.publish("solar", await scene.upload("a"), actor=ANNA)
    version = await scene.registry.yank(SOLAR, 1, reason=" it misses cracks ", actor=ANNA)
    assert version.yank == Yank(time=scene.clock.now(), reason="it misses cracks", actor=ANNA)
    again = await scene.registry.yank(SOLAR, 1, reason="another reason", actor="operators/ben")
    assert again == version
    assert await scene.registry.get_version(SOLAR, 1) == version
    assert (await scene.registry.unyank(SOLAR, 1, actor="operators/ben")).yank is None
    assert (await scene.registry.unyank(SOLAR, 1, actor="operators/ben")).yank is None
    assert await actions_of(scene.store, "models/solar/versions/1") == [
        (ANNA, "version.publish"),
        (ANNA, "version.yank"),
        ("operators/ben", "version.unyank"),
    ]
    assert await actions_of(scene.store, "models/solar") == [
        (ANNA, "model.create"),
        (ANNA, "version.publish"),
        (ANNA, "version.yank"),
        ("operators/ben", "version.unyank"),
    ]


async def test_an_agent_that_waits_for_a_yanked_version_gets_it_once_it_is_allowed_again(scene: Scene) -> None:
    await scene.registry.publish("solar", await scene.upload("a"), actor=ANNA)
    await scene.registry.yank(SOLAR, 1, reason="it misses cracks", actor=ANNA)
    async with scene.store.write() as work:
        await work.agents.add(make_agent(labels={"line": "3"}))
        await work.deployments.add(make_deployment())
        await converge(work)
        assert await work.desired.find(ST_1) is None
    await scene.registry.unyank(SOLAR, 1, actor=ANNA)
    async with scene.store.read() as work:
        state = await work.desired.find(ST_1)
    assert state is not None
    assert state.version_of(SOLAR) == 1


async def test_a_yank_without_a_reason_or_of_nothing_is_refused(scene: Scene) -> None:
    await scene.registry.publish("solar", await scene.upload("a"), actor=ANNA)
    with pytest.raises(FieldInvalidError) as refusal:
        await scene.registry.yank(SOLAR, 1, reason=" ", actor=ANNA)
    assert refusal.value.field == "reason"
    with pytest.raises(ResourceNotFoundError):
        await scene.registry.yank(SOLAR, 2, reason="it misses cracks", actor=ANNA)
