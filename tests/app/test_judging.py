"""Judging: both are asked about the whole holdout, once, and the run gets one judgement."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from controlplane import limits
from controlplane.app.judging import Judging
from controlplane.app.ports import Store
from controlplane.app.ports_judging import SampleContent
from controlplane.domain.dataset import DatasetItem
from controlplane.domain.errors import FieldInvalidError, Reason, ResourceNotFoundError, StorageError
from controlplane.domain.ids import DatasetId, Digest
from controlplane.domain.judgement import JudgementPolicy
from controlplane.domain.promotion import Promotion, PromotionState
from controlplane.domain.split import Split
from controlplane.domain.training_policy import Approval
from controlplane.domain.training_run import TrainingRun, TrainingState, cancel
from tests.app.fleet import CrashError, CrashingStore
from tests.app.log import actions_of
from tests.support.dataset_factories import make_item
from tests.support.factories import SOLAR, digest_of, make_artifact, make_deployment, make_model, make_version
from tests.support.judging import ALL_AT_ONCE, make_policy, make_promotion
from tests.support.memory_blobs import MemoryBlobStore
from tests.support.memory_store import MemoryStore
from tests.support.training import make_candidate, make_run
from tests.support.virtual_time import CountingIds, VirtualClock

CHAMPION, BETTER = b"champion", b"candidate"


class Holdouts:
    """One holdout; refuses what the test says."""

    def __init__(self, items: Sequence[DatasetItem]) -> None:
        self.items = items
        self.refusal: Exception | None = None

    async def holdout(self, dataset_id: DatasetId) -> Sequence[DatasetItem]:
        if self.refusal is not None:
            raise self.refusal
        return self.items


class Evaluator:
    """The champion calls everything half a defect; the candidate reads what the picture is. Remembers what it saw."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, int]] = []
        self.refusals: dict[bytes, Exception] = {}
        self.classes: tuple[str, str] = ("good", "defect")

    async def evaluate(
        self, folder: Path, contents: AsyncIterator[SampleContent], *, labels: Collection[str]
    ) -> Sequence[Mapping[str, float] | None]:
        model = (folder / next(folder.iterdir()).name).read_bytes()
        if model in self.refusals:
            raise self.refusals[model]
        answers: list[Mapping[str, float] | None] = []
        async for content in contents:
            defect = (0.9 if b"defect" in content.content else 0.1) if model == BETTER else 0.5
            readable = content.content and b"unreadable" not in content.content
            answers.append({self.classes[0]: 1 - defect, self.classes[1]: defect} if readable else None)
        self.asked.append((model, len(answers)))
        return answers


def items(count: int = 60, **overrides: Any) -> list[DatasetItem]:
    found = []
    for number in range(count):
        label = "defect" if number % 2 else "good"
        content = f"{label} {number}"
        found.append(
            make_item(
                **{
                    "sample_id": f"s{number}",
                    "digest": digest_of(content),
                    "label": label,
                    "split": Split.HOLDOUT,
                    "group": f"g{number}",
                    "site": "suzhou",
                    "line": "3",
                }
                | overrides
            )
        )
    return found


@dataclass
class Scene:
    """A run in JUDGING with everything around it."""

    workspace: Path
    store: Store = field(default_factory=MemoryStore)
    blobs: MemoryBlobStore = field(default_factory=MemoryBlobStore)
    evaluator: Evaluator = field(default_factory=Evaluator)
    holdouts: Holdouts = field(default_factory=lambda: Holdouts(items()))
    clock: VirtualClock = field(default_factory=VirtualClock)
    ids: CountingIds = field(default_factory=CountingIds)

    def judging(self, store: Store | None = None) -> Judging:
        return Judging(
            store=store or self.store,
            blobs=self.blobs,
            holdouts=self.holdouts,
            evaluator=self.evaluator,
            clock=self.clock,
            ids=self.ids,
            workspace=self.workspace,
        )

    async def prepare(self, *runs: str) -> None:
        artifact = make_artifact(CHAMPION.decode())
        candidate = make_candidate(BETTER)
        self.blobs.blobs[artifact.files[0].digest] = CHAMPION
        self.blobs.blobs[candidate.artifact.files[0].digest] = BETTER
        for item in self.holdouts.items:
            number = item.sample_id.removeprefix("s")
            self.blobs.blobs[item.digest] = f"{item.label} {number}".encode()
        async with self.store.write() as work:
            await work.models.add(make_model(id=SOLAR, latest_version=1))
            await work.models.add_version(make_version(model_id=SOLAR, artifact=artifact))
            for run in runs or ("r1",):
                await work.training_runs.add(make_run(run, state=TrainingState.JUDGING, candidate=candidate))

    async def run(self, run_id: str = "r1") -> TrainingRun:
        async with self.store.read() as work:
            return await work.training_runs.get(make_run(run_id).id)

    async def promotion(self, run_id: str = "r1") -> Promotion | None:
        async with self.store.read() as work:
            return await work.promotions.find(make_run(run_id).id)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(workspace=tmp_path)


async def test_a_gain_is_proposed_and_the_run_succeeds(scene: Scene) -> None:
    await scene.prepare()
    await scene.judging().tick()
    run, promotion = await scene.run(), await scene.promotion()
    assert (run.state, run.reason) == (TrainingState.SUCCEEDED, "PROPOSED")
    assert promotion is not None
    assert promotion.state is PromotionState.PROPOSED
    assert (promotion.judgement.overall.champion, promotion.judgement.overall.candidate) == (0.5, 1.0)
    assert [line.subject for line in promotion.judgement.lines] == ["suzhou/3"]
    assert scene.evaluator.asked == [(CHAMPION, 60), (BETTER, 60)]
    assert list(scene.workspace.iterdir()) == []
    assert await actions_of(scene.store, "trainingRuns/r1") == [
        ("rules/training-policy", "training.judge"),
        ("rules/training-policy", "promotion.judge"),
    ]
    await scene.judging().tick()
    assert len(scene.evaluator.asked) == 2, "what was judged is not judged again"


async def test_what_a_trainer_claims_changes_nothing(scene: Scene) -> None:
    await scene.prepare()
    async with scene.store.write() as work:
        run = await work.training_runs.get(make_run().id)
        await work.training_runs.save(replace(run, reported_metrics={"auc": 0.1}))
    await scene.judging().tick()
    promotion = await scene.promotion()
    assert promotion is not None
    assert promotion.judgement.overall.candidate == 1.0


async def test_the_policy_decides_what_is_asked_and_where_it_goes(scene: Scene) -> None:
    await scene.prepare()
    async with scene.store.write() as work:
        await work.deployments.add(make_deployment(id="line-3", version=1))
        await work.training_policies.add(
            make_policy(
                judgement=JudgementPolicy(min_parts=61),
                approval=Approval.AUTO,
                deployment_id="line-3",
                strategy=ALL_AT_ONCE,
            )
        )
    await scene.judging().tick()
    promotion = await scene.promotion()
    assert promotion is not None
    assert promotion.state is PromotionState.WITHHELD
    assert promotion.deployment_id == "line-3"
    assert (await scene.run()).reason == "INCONCLUSIVE"


async def test_the_champion_is_what_the_deployment_runs(scene: Scene) -> None:
    await scene.prepare()
    second = make_artifact(BETTER.decode())
    scene.blobs.blobs[second.files[0].digest] = BETTER
    async with scene.store.write() as work:
        await work.models.add_version(make_version(model_id=SOLAR, number=2, uid="v2", artifact=second))
        await work.deployments.add(make_deployment(id="line-3", version=2))
        await work.training_policies.add(make_policy(deployment_id="line-3"))
    await scene.judging().tick()
    promotion = await scene.promotion()
    assert promotion is not None
    assert promotion.judgement.champion_version == 2
    assert promotion.state is PromotionState.WITHHELD, "it is no better than what runs"


async def test_items_that_cannot_be_read_are_left_out_and_counted(scene: Scene) -> None:
    await scene.prepare()
    scene.blobs.blobs[digest_of("good 0")] = b"unreadable"
    del scene.blobs.blobs[digest_of("defect 1")]
    await scene.judging().tick()
    promotion = await scene.promotion()
    assert promotion is not None
    assert (promotion.judgement.items, promotion.judgement.skipped_items) == (58, 2)


async def test_images_of_one_part_are_one_piece_of_evidence(scene: Scene) -> None:
    scene.holdouts.items = [replace(item, group="one" if item.label == "good" else "two") for item in items()]
    await scene.prepare()
    await scene.judging().tick()
    promotion = await scene.promotion()
    assert promotion is not None
    assert promotion.judgement.parts == 2
    assert promotion.state is PromotionState.WITHHELD


@pytest.mark.parametrize(("model", "reason"), [(BETTER, "CANDIDATE_UNUSABLE"), (CHAMPION, "CHAMPION_UNUSABLE")])
async def test_a_model_that_cannot_be_asked_fails_the_run(scene: Scene, model: bytes, reason: str) -> None:
    await scene.prepare()
    scene.evaluator.refusals[model] = FieldInvalidError(
        "asking it crashes", field="artifact", remedy="r", reason=Reason.MODEL_UNREADABLE
    )
    await scene.judging().tick()
    run = await scene.run()
    assert (run.state, run.reason) == (TrainingState.FAILED, reason)
    assert "asking it crashes" in run.message
    assert await scene.promotion() is None


async def test_a_candidate_of_other_classes_fails_the_run(scene: Scene) -> None:
    await scene.prepare()
    scene.evaluator.classes = ("cat", "dog")
    await scene.judging().tick()
    run = await scene.run()
    assert (run.state, run.reason) == (TrainingState.FAILED, "CANDIDATE_UNUSABLE")
    assert "cat, dog" in run.message


async def test_a_dataset_that_is_gone_fails_the_run(scene: Scene) -> None:
    await scene.prepare()
    scene.holdouts.refusal = ResourceNotFoundError("datasets/d1 does not exist")
    await scene.judging().tick()
    assert (await scene.run()).reason == "DATASET_MISSING"


async def test_a_store_that_is_away_decides_nothing(scene: Scene) -> None:
    await scene.prepare()
    scene.holdouts.refusal = StorageError("the object store does not answer")
    await scene.judging().tick()
    assert (await scene.run()).state is TrainingState.JUDGING
    scene.holdouts.refusal = None
    await scene.judging().tick()
    assert (await scene.run()).state is TrainingState.SUCCEEDED


async def test_a_run_that_was_cancelled_meanwhile_gets_no_judgement(scene: Scene) -> None:
    await scene.prepare()
    asked = scene.evaluator.evaluate

    async def cancelling(*args: Any, **kwargs: Any) -> Any:
        async with scene.store.write() as work:
            run = await work.training_runs.get(make_run().id)
            if run.state is TrainingState.JUDGING:
                step = cancel(run, scene.clock.now(), actor="operators/anna")
                await work.training_runs.save(step.run)
        return await asked(*args, **kwargs)

    scene.evaluator.evaluate = cancelling  # type: ignore[method-assign]
    await scene.judging().tick()
    assert (await scene.run()).state is TrainingState.CANCELLED
    assert await scene.promotion() is None


@pytest.mark.parametrize("committed", [False, True])
async def test_a_crash_around_the_commit_leaves_one_judgement(scene: Scene, committed: bool) -> None:
    await scene.prepare()
    crashing = CrashingStore(scene.store, at_write=0, committed=committed)
    with pytest.raises(CrashError):
        await scene.judging(crashing).tick()
    assert ((await scene.promotion()) is not None) == committed
    await scene.judging().tick()
    assert (await scene.run()).state is TrainingState.SUCCEEDED
    async with scene.store.read() as work:
        assert len(await work.promotions.list(model_id=None, before=None, limit=9)) == 1
    assert len(await actions_of(scene.store, "trainingRuns/r1")) == 2


async def test_a_newer_judgement_takes_the_place_of_a_proposal(scene: Scene) -> None:
    await scene.prepare("r2")
    async with scene.store.write() as work:
        await work.promotions.add(make_promotion("r1"))
        await work.promotions.add(make_promotion("r9", model_id="weld"))
    await scene.judging().tick()
    earlier, other = await scene.promotion("r1"), await scene.promotion("r9")
    assert earlier is not None
    assert (earlier.state, earlier.message) == (PromotionState.DECLINED, "trainingRuns/r2 was judged after it")
    assert other is not None
    assert other.state is PromotionState.PROPOSED


async def test_a_holdout_is_cut_at_its_bound_the_same_way_each_time(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HOLDOUT_ITEMS_MAX", 40)
    await scene.prepare()
    await scene.judging().tick()
    assert scene.evaluator.asked == [(CHAMPION, 40), (BETTER, 40)]
    seen: list[Digest] = sorted(item.digest for item in items())[:40]
    promotion = await scene.promotion()
    assert promotion is not None
    assert promotion.judgement.items == len(seen)
