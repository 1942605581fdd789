"""Training policies and their triggers: one run a set of labels, whatever is killed in between."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from controlplane.app.datasets import Datasets
from controlplane.app.ports import Store
from controlplane.app.training import Training, TrainingRequest
from controlplane.app.training_policies import TrainingPolicies
from controlplane.app.training_triggers import TrainingTriggers
from controlplane.domain.dataset import DatasetRule
from controlplane.domain.drift import Drift, DriftState
from controlplane.domain.errors import FieldInvalidError, ResourceNotFoundError, StaleWriteError
from controlplane.domain.gate import GatePolicy
from controlplane.domain.ids import DeploymentId, LabelId, ModelId, SampleId
from controlplane.domain.judgement import JudgementPolicy
from controlplane.domain.promotion import PromotionState
from controlplane.domain.training_policy import TrainingPolicy, Trigger
from controlplane.domain.training_run import TrainingRun, TrainingState
from controlplane.imaging.reading import PillowReader
from tests.app.fleet import CrashError, CrashingStore
from tests.app.log import actions_of
from tests.support.dataset_factories import make_label, picture
from tests.support.factories import (
    NOW,
    SOLAR,
    ST_1,
    WELD,
    digest_of,
    make_agent,
    make_deployment,
    make_model,
    make_sample,
    make_version,
)
from tests.support.judging import ALL_AT_ONCE, make_policy, make_promotion
from tests.support.memory_blobs import MemoryBlobStore
from tests.support.memory_store import MemoryStore
from tests.support.training import MemoryRunner, make_run
from tests.support.virtual_time import CountingIds, VirtualClock
from tests.training.trainers import trainer

HEAD = replace(trainer("pass"), id="head")
POLICY = make_policy(min_new_labels=3, dataset_rule=DatasetRule(near_duplicate_distance=0))


@dataclass
class Scene:
    """A model with a version, and pictures that people label."""

    workspace: Path
    store: Store = field(default_factory=MemoryStore)
    blobs: MemoryBlobStore = field(default_factory=MemoryBlobStore)
    clock: VirtualClock = field(default_factory=VirtualClock)
    ids: CountingIds = field(default_factory=CountingIds)
    labelled: int = 0

    def __post_init__(self) -> None:
        self.triggers = self.restarted()

    @property
    def policies(self) -> TrainingPolicies:
        return TrainingPolicies(store=self.store, clock=self.clock, ids=self.ids, trainers=["head"])

    def restarted(self, store: Store | None = None) -> TrainingTriggers:
        used = store or self.store
        datasets = Datasets(store=used, blobs=self.blobs, reader=PillowReader(), clock=self.clock, ids=self.ids)
        training = Training(
            store=used,
            blobs=self.blobs,
            clock=self.clock,
            ids=self.ids,
            runner=MemoryRunner(self.workspace),
            trainers=[HEAD],
        )
        return TrainingTriggers(store=used, datasets=datasets, training=training, clock=self.clock)

    async def prepare(self, policy: TrainingPolicy | None = POLICY) -> None:
        async with self.store.write() as work:
            await work.models.add(make_model(id=SOLAR, latest_version=1))
            await work.models.add_version(make_version(model_id=SOLAR, number=1))
            if policy is not None:
                await work.training_policies.add(policy)

    async def label(self, count: int, *, label: str = "good") -> None:
        """That many more samples are labelled, a minute later."""
        self.clock.advance(60)
        async with self.store.write() as work:
            for _ in range(count):
                self.labelled += 1
                content = picture(self.labelled)
                digest = digest_of(content)
                self.blobs.blobs[digest] = content
                sample_id = SampleId(f"s{self.labelled:03}")
                await work.samples.add(make_sample(id=sample_id, model_id=SOLAR, digest=digest))
                await work.labels.add([await self._opinion(sample_id, label)])

    async def opine(self, sample: int, *, label: str) -> None:
        """Another opinion of a sample, a minute later."""
        self.clock.advance(60)
        async with self.store.write() as work:
            await work.labels.add([await self._opinion(SampleId(f"s{sample:03}"), label, annotator="bo")])

    async def _opinion(self, sample_id: SampleId, label: str, *, annotator: str = "anna") -> Any:
        return make_label(
            id=LabelId(self.ids.uid()),
            model_id=SOLAR,
            sample_id=sample_id,
            label=label,
            annotator=annotator,
            create_time=self.clock.now(),
        )

    async def runs(self) -> Sequence[TrainingRun]:
        async with self.store.read() as work:
            return await work.training_runs.list(model_id=SOLAR, before=None, limit=9)

    async def end(self, run: TrainingRun, state: TrainingState = TrainingState.SUCCEEDED) -> None:
        async with self.store.write() as work:
            await work.training_runs.save(replace(run, state=state))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(workspace=tmp_path)


async def test_enough_new_labels_start_a_run(scene: Scene) -> None:
    await scene.prepare()
    await scene.label(2)
    await scene.triggers.tick()
    assert await scene.runs() == []
    await scene.label(1)
    await scene.triggers.tick()
    (run,) = await scene.runs()
    assert (run.creator, run.trainer, run.base_version) == ("rules/training-policy", "head", 1)
    async with scene.store.read() as work:
        dataset = await work.datasets.get(run.dataset_id)
    assert dataset.count() == 3
    assert dataset.description == "LABELS: 3 of 3 labelled samples are new"
    assert dataset.creator == "rules/training-policy"


async def test_one_run_a_time_and_each_set_of_labels_once(scene: Scene) -> None:
    await scene.prepare()
    await scene.label(3)
    await scene.triggers.tick()
    await scene.label(3)
    await scene.triggers.tick()
    (run,) = await scene.runs()
    await scene.end(run, TrainingState.FAILED)
    await scene.triggers.tick()
    second, first = await scene.runs()
    assert second.dataset_id != first.dataset_id
    await scene.end(second)
    for _ in range(3):
        await scene.restarted().tick()
    assert len(await scene.runs()) == 2, "what was trained on is not trained on again, however that ended"


async def test_opinions_that_change_no_label_start_nothing(scene: Scene) -> None:
    await scene.prepare(replace(POLICY, min_new_labels=1))
    await scene.label(3)
    await scene.triggers.tick()
    (run,) = await scene.runs()
    await scene.end(run)
    async with scene.store.write() as work:
        await work.samples.add(make_sample(id=SampleId("lost"), model_id=WELD, digest=digest_of("lost")))
    scene.clock.advance(60)
    async with scene.store.write() as work:
        await work.labels.add([await scene._opinion(SampleId("lost"), "good")])
    await scene.triggers.tick()
    await scene.restarted().tick()
    assert len(await scene.runs()) == 1


@pytest.mark.parametrize("at_write", range(5))
@pytest.mark.parametrize("committed", [False, True])
async def test_a_crash_anywhere_leaves_one_run(scene: Scene, at_write: int, committed: bool) -> None:
    await scene.prepare()
    await scene.label(3)
    try:
        await scene.restarted(CrashingStore(scene.store, at_write=at_write, committed=committed)).tick()
    except CrashError:
        pass
    else:
        assert at_write >= 3, "what was read of the pictures, the dataset, the run"
    await scene.restarted().tick()
    (run,) = await scene.runs()
    await scene.end(run)
    await scene.restarted().tick()
    assert len(await scene.runs()) == 1


async def test_two_that_both_believe_to_lead_start_one_run(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await scene.prepare()
    await scene.label(3)
    both, create = asyncio.Barrier(2), Training.create

    async def create_together(self: Training, request: TrainingRequest) -> TrainingRun:
        await both.wait()
        return await create(self, request)

    monkeypatch.setattr(Training, "create", create_together)
    await asyncio.gather(scene.restarted().tick(), scene.restarted().tick())
    assert len(await scene.runs()) == 1


async def test_what_a_person_trained_on_is_not_trained_on_again(scene: Scene) -> None:
    await scene.prepare(replace(POLICY, min_new_labels=1))
    await scene.label(3)
    datasets = Datasets(store=scene.store, blobs=scene.blobs, reader=PillowReader(), clock=scene.clock, ids=scene.ids)
    frozen = await datasets.freeze(SOLAR, rule=POLICY.dataset_rule, actor="operators/anna")
    async with scene.store.write() as work:
        run = make_run(dataset_id=frozen.id, state=TrainingState.SUCCEEDED, create_time=scene.clock.now())
        await work.training_runs.add(run)
        scene.clock.advance(60)
        await work.labels.add([await scene._opinion(SampleId("lost"), "good")])
    await scene.triggers.tick()
    assert len(await scene.runs()) == 1


async def test_nothing_starts_while_a_proposal_waits(scene: Scene) -> None:
    await scene.prepare()
    async with scene.store.write() as work:
        await work.promotions.add(make_promotion("r7"))
    await scene.label(3)
    await scene.triggers.tick()
    assert await scene.runs() == []
    assert (await scene.policies.explain(SOLAR)).finding.message.startswith("the candidate of trainingRuns/r7 waits")
    async with scene.store.write() as work:
        (open_one,) = await work.promotions.list_in([PromotionState.PROPOSED])
        await work.promotions.save(replace(open_one, state=PromotionState.DECLINED))
    await scene.triggers.tick()
    assert len(await scene.runs()) == 1


async def test_cron_starts_a_run_once_a_time_in_its_zone(scene: Scene) -> None:
    await scene.prepare(replace(POLICY, min_new_labels=0, cron="0 2 * * *", time_zone="Asia/Shanghai"))
    await scene.label(1)
    await scene.triggers.tick()
    assert await scene.runs() == []
    view = await scene.policies.explain(SOLAR)
    due = view.facts.cron_time
    assert due is not None
    assert (due.hour, due.minute) == (18, 0), "02:00 in Shanghai"
    scene.clock.move_to(due)
    await scene.triggers.tick()
    (run,) = await scene.runs()
    await scene.end(run)
    await scene.label(1)
    await scene.triggers.tick()
    assert len(await scene.runs()) == 1
    scene.clock.advance(86400)
    await scene.triggers.tick()
    assert len(await scene.runs()) == 2


async def test_drift_starts_a_run_once_something_new_is_labelled(scene: Scene) -> None:
    await scene.prepare(replace(POLICY, min_new_labels=0, on_drift=True, drift_min_new_labels=2))
    await scene.label(2)
    await scene.triggers.tick()
    assert await scene.runs() == [], "no drift is flagged"
    drift = Drift(
        agent_id=ST_1,
        model_id=SOLAR,
        version=1,
        state=DriftState.DRIFTED,
        transition_time=NOW,
        place=(1, NOW),
        start_time=NOW,
    )
    async with scene.store.write() as work:
        await work.agents.add(make_agent(id=ST_1))
        await work.drifts.save([drift])
    scene.clock.advance(1)
    await scene.triggers.tick()
    (run,) = await scene.runs()
    async with scene.store.read() as work:
        description = (await work.datasets.get(run.dataset_id)).description
    assert description == f"DRIFT: inputs have drifted at agents/{ST_1}, and 2 of 2 labelled samples are new"
    await scene.end(run)
    await scene.label(1)
    await scene.triggers.tick()
    assert len(await scene.runs()) == 1, "the drift goes on, and too little is new"


async def test_a_run_starts_from_what_the_deployment_runs(scene: Scene) -> None:
    await scene.prepare(replace(POLICY, deployment_id=DeploymentId("line-3")))
    async with scene.store.write() as work:
        await work.models.add_version(make_version(model_id=SOLAR, number=2, uid="v2"))
        model = await work.models.get(SOLAR)
        await work.models.save(replace(model, latest_version=2))
        await work.deployments.add(make_deployment(id="line-3", version=1))
    await scene.label(3)
    await scene.triggers.tick()
    assert (await scene.runs())[0].base_version == 1


async def test_labels_that_no_dataset_can_be_made_of_are_tried_when_they_change(scene: Scene) -> None:
    await scene.prepare(replace(POLICY, min_new_labels=1))
    await scene.label(1)
    await scene.opine(1, label="defect")
    await scene.triggers.tick()
    assert await scene.runs() == []
    await scene.label(1)
    await scene.triggers.tick()
    assert len(await scene.runs()) == 1


async def test_the_explanation_says_what_fires(scene: Scene) -> None:
    await scene.prepare()
    await scene.label(3)
    view = await scene.policies.explain(SOLAR)
    assert view.finding.trigger is Trigger.LABELS
    assert (view.facts.labels, view.facts.new_labels) == (3, 3)


# --- policies ---


async def test_a_policy_is_set_shown_and_written_down(scene: Scene) -> None:
    await scene.prepare(policy=None)
    with pytest.raises(ResourceNotFoundError):
        await scene.policies.get(SOLAR)
    first = await scene.policies.put(POLICY)
    scene.clock.advance(10)
    assert await scene.policies.put(replace(POLICY, actor="operators/bo")) == first, "the same changes nothing"
    second = await scene.policies.put(replace(POLICY, min_new_labels=9), revision=first.revision)
    assert (second.min_new_labels, second.update_time) == (9, scene.clock.now())
    with pytest.raises(StaleWriteError):
        await scene.policies.put(POLICY, revision=first.revision)
    assert await scene.policies.get(SOLAR) == second
    assert [one.model_id for one in (await scene.policies.list()).items] == ["solar"]
    assert [action for _, action in await actions_of(scene.store, POLICY.name)] == ["training_policy.set"] * 2


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"trainer": "nobody"}, "training_policy.trainer"),
        ({"cron": "* * * *"}, "training_policy.cron"),
        ({"cron": "0 0 31 2 *"}, "training_policy.cron"),
        ({"time_zone": "Mars/Base"}, "training_policy.time_zone"),
        ({"min_new_labels": -1}, "training_policy.min_new_labels"),
        ({"drift_min_new_labels": 0}, "training_policy.drift_min_new_labels"),
        ({"minimum_interval_seconds": float("nan")}, "training_policy.minimum_interval"),
        ({"judgement": JudgementPolicy(confidence=1.0)}, "training_policy.judgement.confidence"),
        ({"judgement": JudgementPolicy(confidence=0.4)}, "training_policy.judgement.confidence"),
        ({"judgement": JudgementPolicy(min_parts=1)}, "training_policy.judgement.min_parts"),
        ({"judgement": JudgementPolicy(class_budgets={"a": 1.5})}, "training_policy.judgement.class_budgets['a']"),
        ({"judgement": JudgementPolicy(line_budget=-0.1)}, "training_policy.judgement.line_budget"),
        (
            {"strategy": replace(ALL_AT_ONCE, gate=GatePolicy(confidence_per_mille=1))},
            "training_policy.strategy.gate.confidence_per_mille",
        ),
        ({"deployment_id": "of-weld"}, "training_policy.deployment"),
    ],
)
async def test_what_cannot_be_right_is_refused_by_its_field(scene: Scene, change: dict[str, Any], at: str) -> None:
    await scene.prepare(policy=None)
    async with scene.store.write() as work:
        await work.deployments.add(make_deployment(id="of-weld", model_id=WELD))
    with pytest.raises(FieldInvalidError) as refusal:
        await scene.policies.put(replace(POLICY, **change))
    assert refusal.value.field == at
    assert refusal.value.remedy


async def test_a_policy_needs_its_model_and_its_deployment(scene: Scene) -> None:
    await scene.prepare(policy=None)
    with pytest.raises(ResourceNotFoundError):
        await scene.policies.put(replace(POLICY, model_id=ModelId("none")))
    with pytest.raises(ResourceNotFoundError):
        await scene.policies.put(replace(POLICY, deployment_id=DeploymentId("none")))
