"""Training runs asked for, carried forward by ticks, and ended: with a runner in memory."""

import asyncio
import json
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from controlplane import limits
from controlplane.app.ports import Store
from controlplane.app.ports_training import JobOutcome, JobState
from controlplane.app.training import Training, TrainingRequest
from controlplane.app.training_ticks import TrainingTicks
from controlplane.domain.catalog import ModelSignature, Yank
from controlplane.domain.dataset import Dataset, DatasetRule
from controlplane.domain.errors import (
    DomainError,
    FieldInvalidError,
    LimitExceededError,
    PreconditionError,
    Reason,
    ResourceNotFoundError,
    StaleWriteError,
    StorageError,
)
from controlplane.domain.ids import DatasetId, ModelId, TrainingRunId
from controlplane.domain.training_run import TrainingRun, TrainingState
from tests.app.fleet import CrashError, CrashingStore
from tests.app.log import actions_of
from tests.support.factories import NOW, SOLAR, WELD, digest_of, make_artifact, make_model, make_version
from tests.support.memory_blobs import MemoryBlobStore
from tests.support.memory_store import MemoryStore
from tests.support.training import MemoryRunner, make_signature
from tests.support.virtual_time import CountingIds, VirtualClock
from tests.training.trainers import trainer

ANNA = "operators/anna"
TRAINERS = (replace(trainer("pass"), id="head"), replace(trainer("pass"), id="other"))


class FolderOfDatasets:
    """Gives each dataset one file; refuses what the test says."""

    def __init__(self) -> None:
        self.refusal: Exception | None = None

    async def materialise(self, dataset_id: DatasetId, folder: Path) -> None:
        if self.refusal is not None:
            raise self.refusal
        (folder / "dataset.json").write_text(json.dumps({"dataset": dataset_id}))


class Inspector:
    """Reads everything but what says `unreadable`; what says `wider` has another input."""

    async def inspect(self, folder: Path) -> ModelSignature:
        content = (folder / "model.xml").read_bytes()
        if b"unreadable" in content:
            raise FieldInvalidError("no model", field="artifact", remedy="r", reason=Reason.MODEL_UNREADABLE)
        if b"wider" in content:
            return make_signature(inputs=())
        if b"relabelled" in content:
            return make_signature(rt_info={"model_info/labels": "defect ok"})
        return make_signature()


@dataclass
class Scene:
    """Training with everything around it."""

    workspace: Path
    store: Store = field(default_factory=MemoryStore)
    blobs: MemoryBlobStore = field(default_factory=MemoryBlobStore)
    clock: VirtualClock = field(default_factory=VirtualClock)
    ids: CountingIds = field(default_factory=CountingIds)
    datasets: FolderOfDatasets = field(default_factory=FolderOfDatasets)
    trainers: Collection[str] = ("head", "other")

    def __post_init__(self) -> None:
        self.runner = MemoryRunner(self.workspace)

    @property
    def training(self) -> Training:
        return Training(
            store=self.store,
            blobs=self.blobs,
            clock=self.clock,
            ids=self.ids,
            runner=self.runner,
            trainers=[one for one in TRAINERS if one.id in self.trainers],
        )

    def ticks(self, store: Store | None = None) -> TrainingTicks:
        return TrainingTicks(
            store=store or self.store,
            blobs=self.blobs,
            datasets=self.datasets,
            inspector=Inspector(),
            runner=self.runner,
            trainers=[one for one in TRAINERS if one.id in self.trainers],
            clock=self.clock,
            ids=self.ids,
            workspace=self.workspace,
        )

    async def prepare(self, model: ModelId = SOLAR, *, dataset: str = "d1") -> None:
        artifact = make_artifact(f"base of {model}")
        for file in artifact.files:
            self.blobs.blobs[file.digest] = f"base of {model}".encode()
        async with self.store.write() as work:
            await work.models.add(make_model(id=model, latest_version=1))
            await work.models.add_version(
                make_version(model_id=model, uid=f"v-{model}", artifact=artifact, signature=make_signature())
            )
            await work.datasets.add(make_dataset(dataset, model))

    async def create(self, **changes: object) -> TrainingRun:
        return await self.training.create(replace(REQUEST, **changes))  # type: ignore[arg-type]

    async def tick(self) -> None:
        await self.ticks().tick(self.clock.now())

    async def get(self, run: TrainingRun) -> TrainingRun:
        return await self.training.get(run.id)

    async def log(self, run: TrainingRun, *, offset_bytes: int = 0) -> bytes:
        pieces = [piece async for piece in self.training.read_log(run.id, offset_bytes=offset_bytes)]
        return b"".join(pieces)


REQUEST = TrainingRequest(
    model_id=SOLAR, base_version=0, dataset_id=DatasetId("d1"), trainer="head", actor=ANNA, parameters={"x": 4}
)


def make_dataset(dataset_id: str, model: ModelId) -> Dataset:
    return Dataset(
        id=DatasetId(dataset_id),
        model_id=model,
        number=1,
        create_time=NOW,
        creator=ANNA,
        description="",
        digest=digest_of(dataset_id),
        training_manifest=digest_of("training"),
        holdout_manifest=digest_of("holdout"),
        rule=DatasetRule(),
        counts=(),
    )


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path)
    await made.prepare()
    return made


async def test_a_run_goes_from_its_inputs_to_a_stored_candidate(scene: Scene) -> None:
    run = await scene.create()
    assert (run.state, run.base_version, run.attempt) == (TrainingState.QUEUED, 1, 1)
    scene.runner.warnings = ["no Landlock"]
    await scene.tick()
    begun = await scene.get(run)
    assert (begun.state, begun.runner, begun.warnings) == (TrainingState.RUNNING, "here", ("no Landlock",))
    assert scene.runner.parameters == {"x": 4}
    scene.runner.tell(run.job_id, 0.5, "half")
    await scene.tick()
    progress = (await scene.get(run)).progress
    assert progress is not None
    assert progress.fraction == 0.5
    scene.runner.finish(run.job_id, b"better", metrics={"auc": 0.99})
    await scene.tick()
    delivered = await scene.get(run)
    assert delivered.state is TrainingState.JUDGING
    assert delivered.candidate is not None
    (file,) = delivered.candidate.artifact.files
    assert scene.blobs.blobs[file.digest] == b"better"
    assert dict(delivered.reported_metrics) == {"auc": 0.99}
    await scene.tick()
    assert await scene.runner.list_jobs() == []
    assert await scene.log(run) == b"started\nhalf"
    assert await scene.log(run, offset_bytes=8) == b"half"
    assert await actions_of(scene.store, run.name) == [
        (ANNA, "training.create"),
        ("rules/training", "training.begin"),
        ("rules/training", "training.deliver"),
    ]
    assert list(scene.workspace.glob("training-*")) == []


async def test_a_tick_that_finds_nothing_new_writes_nothing(scene: Scene) -> None:
    run = await scene.create()
    await scene.tick()
    before = await scene.get(run)
    await scene.tick()
    assert await scene.get(run) == before


@pytest.mark.parametrize("at_write", [0, 1])
@pytest.mark.parametrize("committed", [False, True])
async def test_a_controller_that_dies_around_a_write_starts_no_job_twice(
    scene: Scene, at_write: int, committed: bool
) -> None:
    """The first write says that the job runs, the second keeps what it left."""
    run = await scene.create()
    dying = CrashingStore(scene.store, at_write=at_write, committed=committed)
    for _ in range(4):
        store: Store = dying if dying._left >= 0 else scene.store
        try:
            await scene.ticks(store).tick(scene.clock.now())
        except* CrashError:
            pass
        if (await scene.runner.look(run.job_id)).state is JobState.RUNNING:
            scene.runner.finish(run.job_id)
    assert scene.runner.starts == [run.job_id]
    assert (await scene.get(run)).state is TrainingState.JUDGING
    assert (await actions_of(scene.store, run.name)).count(("rules/training", "training.deliver")) == 1


@pytest.mark.parametrize(
    ("content", "reason", "said"),
    [
        (b"unreadable", "MODEL_UNREADABLE", "no model"),
        (b"wider", "OUTPUT_INVALID", "inputs"),
        (b"relabelled", "OUTPUT_INVALID", "labels"),
    ],
)
async def test_a_candidate_that_could_not_take_the_base_s_place_fails_its_run(
    scene: Scene, content: bytes, reason: str, said: str
) -> None:
    run = await scene.create()
    await scene.tick()
    scene.runner.finish(run.job_id, content)
    await scene.tick()
    failed = await scene.get(run)
    assert (failed.state, failed.reason) == (TrainingState.FAILED, reason)
    assert said in failed.message
    assert failed.candidate is None


async def test_what_a_trainer_leaves_wrong_or_declines_fails_its_run_with_the_reason(scene: Scene) -> None:
    refused = await scene.create()
    await scene.tick()
    scene.runner.refuse(refused.job_id, "the folder is empty")
    await scene.tick()
    declined = await scene.create()
    await scene.tick()
    scene.runner.finish(declined.job_id, declined="INT8 is no faster")
    await scene.tick()
    first, second = await scene.get(refused), await scene.get(declined)
    assert (first.state, first.reason) == (TrainingState.FAILED, "OUTPUT_INVALID")
    assert "the folder is empty" in first.message
    assert (second.state, second.reason) == (TrainingState.FAILED, "DECLINED")
    assert "INT8 is no faster" in second.message


@pytest.mark.parametrize("outcome", [JobOutcome.CRASHED, JobOutcome.TIME_LIMIT, JobOutcome.MEMORY_LIMIT])
async def test_a_trainer_that_ended_badly_fails_its_run_and_may_be_tried_again(
    scene: Scene, outcome: JobOutcome
) -> None:
    run = await scene.create()
    await scene.tick()
    scene.runner.fail(run.job_id, outcome, "said why")
    await scene.tick()
    failed = await scene.get(run)
    assert (failed.state, failed.reason, failed.message) == (TrainingState.FAILED, outcome.value, "said why")
    assert await scene.log(run) == b"started\n"
    again = await scene.training.retry(run.id, actor=ANNA)
    assert (again.state, again.attempt) == (TrainingState.QUEUED, 2)
    await scene.tick()
    assert scene.runner.starts == [f"{run.id}-1", f"{run.id}-2"]


async def test_a_job_that_is_lost_or_killed_is_tried_again_by_itself_a_few_times(scene: Scene) -> None:
    run = await scene.create()
    for attempt in range(1, limits.TRAINING_ATTEMPTS_MAX + 1):
        await scene.tick()
        if attempt == 2:
            scene.runner.fail(f"{run.id}-{attempt}", JobOutcome.KILLED, "killed")
        else:
            scene.runner.lose(f"{run.id}-{attempt}")
        await scene.tick()
    ended = await scene.get(run)
    assert (ended.state, ended.reason, ended.attempt) == (TrainingState.FAILED, "LOST", limits.TRAINING_ATTEMPTS_MAX)


async def test_a_job_of_a_machine_that_leads_no_more_is_done_anew_here(scene: Scene) -> None:
    run = await scene.create()
    await scene.tick()
    scene.runner.name = "elsewhere"
    await scene.tick()
    await scene.tick()
    assert (await scene.get(run)).runner == "elsewhere"
    assert scene.runner.starts == [f"{run.id}-1", f"{run.id}-2"]
    await scene.tick()
    assert await scene.runner.list_jobs() == [f"{run.id}-2"]


async def test_runs_take_turns(scene: Scene) -> None:
    await scene.prepare(WELD, dataset="d2")
    first = await scene.create()
    second = await scene.create(model_id=WELD, dataset_id=DatasetId("d2"))
    await scene.tick()
    await scene.tick()
    assert scene.runner.starts == [first.job_id]
    scene.runner.finish(first.job_id)
    await scene.tick()
    await scene.tick()
    assert scene.runner.starts == [first.job_id, second.job_id]


async def test_a_run_is_cancelled_wherever_it_stands(scene: Scene) -> None:
    queued = await scene.create()
    assert (await scene.training.cancel(queued.id, actor=ANNA)).state is TrainingState.CANCELLED
    running = await scene.create()
    await scene.tick()
    assert (await scene.training.cancel(running.id, actor=ANNA)).state is TrainingState.RUNNING
    await scene.tick()
    await scene.tick()
    assert (await scene.get(running)).state is TrainingState.CANCELLED
    finished = await scene.create()
    await scene.tick()
    await scene.training.cancel(finished.id, actor=ANNA)
    scene.runner.finish(finished.job_id)
    await scene.tick()
    assert (await scene.get(finished)).state is TrainingState.CANCELLED
    with pytest.raises(StaleWriteError):
        await scene.training.retry(finished.id, actor=ANNA, revision=0)


async def test_inputs_that_are_gone_fail_the_run_and_a_store_that_is_away_only_delays_it(scene: Scene) -> None:
    run = await scene.create()
    scene.datasets.refusal = StorageError("away", remedy="wait")
    with pytest.raises(ExceptionGroup):
        await scene.tick()
    waiting = await scene.get(run)
    assert (waiting.state, waiting.message) == (TrainingState.QUEUED, "it waits: away; wait")
    scene.datasets.refusal = ExceptionGroup("several", [ResourceNotFoundError("blobs/x is not stored")])
    await scene.tick()
    failed = await scene.get(run)
    assert (failed.state, failed.reason) == (TrainingState.FAILED, "INPUTS_MISSING")
    assert "blobs/x" in failed.message


async def test_a_trainer_that_was_taken_out_of_the_configuration_fails_its_run(scene: Scene) -> None:
    run = await scene.create(trainer="other")
    scene.trainers = ("head",)
    await scene.tick()
    assert (await scene.get(run)).reason == "TRAINER_UNKNOWN"


@pytest.mark.parametrize(
    ("changes", "refusal", "field"),
    [
        ({"trainer": "nobody"}, FieldInvalidError, "training_run.trainer"),
        ({"dataset_id": DatasetId("d2")}, FieldInvalidError, "training_run.dataset"),
        ({"dataset_id": DatasetId("d9")}, ResourceNotFoundError, "name"),
        ({"base_version": 7}, ResourceNotFoundError, "name"),
        ({"model_id": ModelId("nothing")}, ResourceNotFoundError, "name"),
        ({"parameters": {"x": "y" * 20_000}}, FieldInvalidError, "training_run.parameters"),
        ({"request_id": "no uuid"}, FieldInvalidError, "request_id"),
    ],
)
async def test_what_cannot_be_trained_is_refused(
    scene: Scene, changes: dict[str, object], refusal: type[DomainError], field: str
) -> None:
    await scene.prepare(WELD, dataset="d2")
    with pytest.raises(refusal) as caught:
        await scene.create(**changes)
    assert caught.value.field == field
    assert caught.value.remedy
    assert (await scene.training.list()).items == []


async def test_a_yanked_base_and_a_full_queue_are_refused(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TRAINING_RUNS_QUEUED_MAX", 1)
    await scene.create()
    with pytest.raises(LimitExceededError):
        await scene.create()
    monkeypatch.undo()
    async with scene.store.write() as work:
        await work.models.set_yank(SOLAR, 1, Yank(time=NOW, reason="burns", actor=ANNA))
    with pytest.raises(PreconditionError) as caught:
        await scene.create()
    assert caught.value.reason is Reason.VERSION_YANKED


async def test_a_repeated_request_is_answered_with_its_first_run(scene: Scene) -> None:
    request_id = str(uuid.UUID(int=1))
    first = await scene.create(request_id=request_id)
    assert await scene.create(request_id=request_id) == first
    with pytest.raises(PreconditionError):
        await scene.create(request_id=request_id, trainer="other")
    assert len((await scene.training.list(model_id=SOLAR)).items) == 1


async def test_a_followed_log_goes_on_over_attempts_and_ends_with_the_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TRAINING_LOG_LOOK_SECONDS", 0.0)
    run = await scene.create()
    await scene.tick()
    heard: list[bytes] = []

    async def follow() -> None:
        heard.extend([piece async for piece in scene.training.read_log(run.id, follow=True)])

    following = asyncio.create_task(follow())
    while not following.done():
        await asyncio.sleep(0)
        if (await scene.get(run)).attempt == 1:
            scene.runner.lose(f"{run.id}-1")
        elif (await scene.get(run)).state is TrainingState.RUNNING and heard_of(scene, run):
            scene.runner.finish(f"{run.id}-2")
        await scene.tick()
    await following
    assert b"".join(heard) in {b"started\nstarted\nsecond", b"started\nsecond"}
    with pytest.raises(ResourceNotFoundError):
        await anext(scene.training.read_log(TrainingRunId("nobody")))
    with pytest.raises(FieldInvalidError):
        await anext(scene.training.read_log(run.id, offset_bytes=-1))


def heard_of(scene: Scene, run: TrainingRun) -> bool:
    """Have the second attempt say something, once."""
    job_id = f"{run.id}-2"
    if b"second" not in scene.runner._logs.get(job_id, b""):
        scene.runner.tell(job_id, 0.1, "second")
        return False
    return True


def test_trainers_are_listed_by_id(tmp_path: Path) -> None:
    training = Scene(tmp_path).training
    page = training.list_trainers(page_size=1)
    assert [one.id for one in page.items] == ["head"]
    assert [one.id for one in training.list_trainers(page_token=page.next_token).items] == ["other"]
