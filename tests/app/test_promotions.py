"""Promotions: decided once, published and rolled out once, whatever is killed in between."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from controlplane import limits
from controlplane.app.ports import Store
from controlplane.app.promotions import Promotions, PromotionTicks
from controlplane.app.registry import Registry
from controlplane.app.rollouts import Rollouts
from controlplane.domain.catalog import Artifact, ModelSignature
from controlplane.domain.errors import FieldInvalidError, PreconditionError, ResourceNotFoundError, StaleWriteError
from controlplane.domain.ids import TrainingRunId
from controlplane.domain.promotion import Promotion, PromotionState
from controlplane.domain.rollout import Rollout, RolloutState
from controlplane.domain.training_run import Candidate, TrainingState
from tests.app.fleet import LINE_3, SOLAR, CrashError, CrashingStore, Fleet
from tests.app.log import actions_of
from tests.support.factories import make_model, make_version
from tests.support.judging import make_promotion
from tests.support.memory_blobs import MemoryBlobStore
from tests.support.training import make_candidate, make_run, make_signature

R1 = TrainingRunId("r1")
CONTENT = b"candidate"


class Inspector:
    async def inspect(self, folder: Path) -> ModelSignature:
        return make_signature()


def _candidate() -> Candidate:
    """As a run keeps it: with the digests of its chunks."""
    candidate = make_candidate(CONTENT)
    (file,) = candidate.artifact.files
    whole = replace(file, chunk_digests=(hashlib.sha256(CONTENT).digest(),))
    return replace(candidate, artifact=Artifact(files=(whole,)))


@dataclass
class Scene:
    """A proposal for a deployment with two agents."""

    workspace: Path
    fleet: Fleet = field(default_factory=Fleet)
    blobs: MemoryBlobStore = field(default_factory=MemoryBlobStore)

    @property
    def promotions(self) -> Promotions:
        return Promotions(store=self.fleet.store, clock=self.fleet.clock, ids=self.fleet.ids)

    def ticks(self, store: Store | None = None) -> PromotionTicks:
        store, fleet = store or self.fleet.store, self.fleet
        registry = Registry(
            store=store,
            blobs=self.blobs,
            inspector=Inspector(),
            clock=fleet.clock,
            ids=fleet.ids,
            notifier=fleet.notices,
            workspace=self.workspace,
        )
        rollouts = Rollouts(store=store, clock=fleet.clock, ids=fleet.ids, notices=fleet.notices)
        return PromotionTicks(store=store, registry=registry, rollouts=rollouts, clock=fleet.clock, ids=fleet.ids)

    async def prepare(self, promotion: Promotion | None = None, *, agents: bool = True) -> None:
        candidate = _candidate()
        self.blobs.blobs[candidate.artifact.files[0].digest] = CONTENT
        async with self.fleet.store.write() as work:
            await work.models.add(make_model(id=SOLAR, latest_version=1))
            await work.models.add_version(make_version(model_id=SOLAR, number=1))
            await work.training_runs.add(make_run(state=TrainingState.SUCCEEDED, candidate=candidate))
            await work.promotions.add(promotion or make_promotion())
        await self.fleet.enrol("st-1", "st-2")
        await self.fleet.deploy()
        if not agents:
            await self.fleet.revoke("st-1")
            await self.fleet.revoke("st-2")

    async def promotion(self) -> Promotion:
        return await self.promotions.get(R1)

    async def versions(self) -> list[int]:
        async with self.fleet.store.read() as work:
            return [one.number for one in await work.models.list_versions(SOLAR, before=None, limit=9)]

    async def rollouts(self) -> list[Rollout]:
        async with self.fleet.store.read() as work:
            return list(await work.rollouts.list(deployment_id=LINE_3, before=None, limit=9))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(workspace=tmp_path)


async def test_what_is_approved_is_published_and_rolled_out(scene: Scene) -> None:
    await scene.prepare()
    await scene.ticks().tick()
    assert await scene.versions() == [1], "nothing goes out that nobody approved"
    await scene.promotions.approve(R1, actor="operators/anna", reason="looked at ten")
    await scene.ticks().tick()
    promotion = await scene.promotion()
    (rollout,) = await scene.rollouts()
    assert (promotion.state, promotion.version, promotion.rollout_id) == (PromotionState.RELEASED, 2, rollout.id)
    assert (rollout.target_version, rollout.state, rollout.creator) == (2, RolloutState.RUNNING, "operators/anna")
    async with scene.fleet.store.read() as work:
        notes = (await work.models.get_version(SOLAR, 2)).notes
    assert notes == "trained by trainingRuns/r1 (head) on datasets/d1 from models/solar/versions/1"
    assert [action for _, action in await actions_of(scene.fleet.store, promotion.name)] == [
        "promotion.approve",
        "promotion.publish",
        "promotion.release",
    ]
    await scene.ticks().tick()
    assert len(await scene.rollouts()) == 1


@pytest.mark.parametrize("at_write", range(5))
@pytest.mark.parametrize("committed", [False, True])
async def test_a_crash_anywhere_makes_no_second_version_and_no_second_rollout(
    scene: Scene, at_write: int, committed: bool
) -> None:
    await scene.prepare(make_promotion(state=PromotionState.APPROVED, decider="operators/anna"))
    crashing = CrashingStore(scene.fleet.store, at_write=at_write, committed=committed)
    try:
        await scene.ticks(crashing).tick()
    except CrashError:
        pass
    else:
        assert at_write == 4, "four writes: the version, the step, the rollout, the step"
    await scene.ticks().tick()
    promotion = await scene.promotion()
    assert promotion.state is PromotionState.RELEASED
    assert await scene.versions() == [2, 1]
    assert [rollout.id for rollout in await scene.rollouts()] == [promotion.rollout_id]


async def test_a_policy_that_changes_after_the_judgement_changes_nothing_of_it(scene: Scene) -> None:
    """What was kept with the judgement is asked for, also after a crash right behind the rollout's commit."""
    await scene.prepare(make_promotion(state=PromotionState.APPROVED, decider="operators/anna"))
    with pytest.raises(CrashError):
        await scene.ticks(CrashingStore(scene.fleet.store, at_write=2, committed=True)).tick()
    scene.fleet.clock.advance(3600)
    await scene.ticks().tick()
    assert (await scene.promotion()).state is PromotionState.RELEASED
    assert len(await scene.rollouts()) == 1


async def test_what_cannot_go_out_now_says_why_and_goes_when_it_can(scene: Scene) -> None:
    await scene.prepare(make_promotion(state=PromotionState.APPROVED, decider="operators/anna"), agents=False)
    ticks = scene.ticks()
    await ticks.tick()
    waiting = await scene.promotion()
    assert (waiting.state, waiting.version) == (PromotionState.PUBLISHED, 2)
    assert "holds no agent that it could move" in waiting.message
    scene.fleet.clock.advance(limits.PROMOTION_RETRY_SECONDS)
    await ticks.tick()
    assert (await scene.promotion()).revision == waiting.revision, "it is said once"
    await scene.fleet.enrol("st-3")
    await ticks.tick()
    assert (await scene.promotion()).state is PromotionState.PUBLISHED, "it is not tried at every tick"
    scene.fleet.clock.advance(limits.PROMOTION_RETRY_SECONDS)
    await ticks.tick()
    released = await scene.promotion()
    assert (released.state, released.message) == (PromotionState.RELEASED, "")


async def test_bytes_that_are_lost_are_told_and_the_promotion_can_be_rejected(scene: Scene) -> None:
    await scene.prepare(make_promotion(state=PromotionState.APPROVED, decider="operators/anna"))
    scene.blobs.blobs.clear()
    await scene.ticks().tick()
    assert "are not uploaded" in (await scene.promotion()).message
    declined = await scene.promotions.decline(R1, actor="operators/bo", reason="the bytes are gone")
    assert (declined.state, declined.message) == (PromotionState.DECLINED, "the bytes are gone")
    await scene.ticks().tick()
    assert (await scene.promotion()) == declined


async def test_bytes_that_are_a_version_already_are_that_version(scene: Scene) -> None:
    await scene.prepare(make_promotion(state=PromotionState.APPROVED, decider="operators/anna"))
    async with scene.fleet.store.write() as work:
        candidate = _candidate()
        await work.models.add_version(make_version(model_id=SOLAR, number=2, uid="v2", artifact=candidate.artifact))
        model = await work.models.get(SOLAR)
        await work.models.save(replace(model, latest_version=2))
    await scene.ticks().tick()
    assert (await scene.promotion()).version == 2
    assert await scene.versions() == [2, 1]


async def test_a_proposal_is_decided_once(scene: Scene) -> None:
    await scene.prepare()
    stale = (await scene.promotion()).revision
    await scene.promotions.decline(R1, actor="operators/anna", reason="labels are wrong")
    with pytest.raises(PreconditionError, match="is DECLINED"):
        await scene.promotions.approve(R1, actor="operators/anna")
    with pytest.raises(PreconditionError, match="is DECLINED"):
        await scene.promotions.decline(R1, actor="operators/anna", reason="again")
    with pytest.raises(StaleWriteError):
        await scene.promotions.approve(R1, actor="operators/anna", revision=stale)
    await scene.ticks().tick()
    assert await scene.versions() == [1]


async def test_a_rejection_has_a_reason(scene: Scene) -> None:
    await scene.prepare()
    with pytest.raises(FieldInvalidError) as refusal:
        await scene.promotions.decline(R1, actor="operators/anna", reason=" ")
    assert refusal.value.field == "reason"
    with pytest.raises(ResourceNotFoundError):
        await scene.promotions.get(TrainingRunId("r9"))


async def test_promotions_are_listed_page_by_page(scene: Scene) -> None:
    async with scene.fleet.store.write() as work:
        for number in range(1, 4):
            await work.promotions.add(make_promotion(f"r{number}"))
    page = await scene.promotions.list(page_size=2)
    assert [one.run_id for one in page.items] == ["r3", "r2"]
    rest = await scene.promotions.list(page_size=2, page_token=page.next_token)
    assert ([one.run_id for one in rest.items], rest.next_token) == (["r1"], "")
